"""Locks on files: held by a process until it ends, however it ends."""

import fcntl
import uuid
from pathlib import Path
from typing import IO

from pegbox.errors import PegboxError


def lock_folder(root: Path) -> IO[str]:
    """Hold the folder until the returned file is closed or the process ends, however it ends.

    Raises PegboxError if another process holds it.
    """
    file = try_lock(root / "server.lock")
    if file is None:
        raise PegboxError(f"another pegbox server uses {root}; stop it, or give this one its own --data-dir")
    return file


def try_lock(path: Path) -> IO[str] | None:
    """The file, locked until it is closed; None where somebody else has it locked."""
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


class Owners:
    """The processes that work on the jobs of one data directory. Each holds a locked file of its own, so the others
    can tell whether it lives: better than by process number, which comes back and means nothing in another container.
    """

    def __init__(self, root: Path, *, one_machine: bool) -> None:
        """`one_machine`: no process of another machine uses this directory, so one of an earlier boot is dead."""
        self._folder = root / "owners"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._one_machine = one_machine
        self.name = f"{_boot()}.{uuid.uuid4().hex[:12]}"
        held = try_lock(self._folder / self.name)
        assert held is not None, "its name is new"
        self._held = held

    def is_dead(self, owner: str | None) -> bool:
        """Whether the process is known to be gone. Of another machine that can't be known."""
        if owner == self.name:
            return False
        if owner is None or owner.partition(".")[0] != _boot():
            return self._one_machine
        path = self._folder / owner
        if not path.exists():
            return True
        file = try_lock(path)
        if file is None:
            return False
        file.close()
        return True

    def forget_dead(self) -> None:
        """Remove the files of processes that are gone; call it when none of their jobs is left."""
        for path in self._folder.iterdir():
            if self.is_dead(path.name):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        (self._folder / self.name).unlink(missing_ok=True)
        self._held.close()


def _boot() -> str:
    """A word for this machine since it was started: the same in all its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").replace("-", "")[:12]
    except OSError:
        return "here"
