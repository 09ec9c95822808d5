"""One server a data directory."""

import fcntl
from pathlib import Path
from typing import IO

from pegbox.errors import PegboxError


def lock_folder(root: Path) -> IO[str]:
    """Hold the folder until the returned file is closed or the process ends, however it ends.

    Raises PegboxError if another process holds it.
    """
    file = (root / "server.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise PegboxError(f"another pegbox server uses {root}; stop it, or give this one its own --data-dir") from None
    return file
