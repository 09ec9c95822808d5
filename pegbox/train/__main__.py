"""`python -m pegbox.train RUNDIR`: the trainer as a program."""

import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

from pegbox.train.rundir import RunDir


def main() -> int:
    _die_with_parent()
    run = RunDir(Path(sys.argv[1]))
    from pegbox.train.loop import train  # after the parent is watched: torch takes seconds to import

    result = train(run)
    unit = 1 if sys.platform == "darwin" else 1024  # what getrusage counts memory in
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    run.finish(replace(result, peak_bytes=peak))
    return 0


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
