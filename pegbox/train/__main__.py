"""`python -m pegbox.train RUNDIR`: the trainer as a program."""

import errno
import os
import re
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

from pegbox.train.rundir import DISK_REFUSED, NO_ROOM, RunDir


def main() -> int:
    _die_with_parent()
    run = RunDir(Path(sys.argv[1]))
    from pegbox.train.loop import train  # after the parent is watched: torch takes seconds to import

    try:
        result = train(run)
        unit = 1 if sys.platform == "darwin" else 1024  # what getrusage counts memory in
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        run.finish(replace(result, peak_bytes=peak))
    except Exception as error:
        status = _refused(error)
        if status is None:
            raise
        print(error, file=sys.stderr)  # noqa: T201 - into the run's log, if there is room
        return status
    return 0


def _refused(error: Exception) -> int | None:
    """The exit status that tells the server what the disk refused: it may not take a file that says so. safetensors
    has an error of its own, with the number in its text."""
    number = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os error (\d+)", str(error)):
        number = int(found[1])
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NO_ROOM
    return DISK_REFUSED if number in (errno.EIO, errno.EROFS) else None


def _die_with_parent() -> None:
    """A run never outlives the server that started it, so that no two ever work in one directory.

    Linux tells us (PR_SET_PDEATHSIG); a run started by hand, with no PEGBOX_PARENT, has no server to follow.
    """
    parent = os.environ.get("PEGBOX_PARENT")
    if parent is None or sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
