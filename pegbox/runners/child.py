"""`python -m pegbox.runners.child OPTIONS -- PROGRAM …`: give up what a run does not need, then become the program.

Between fork and exec in the server no Python may safely run, because the server has threads. So the child does it
itself, before it loads anything that could go wrong.
"""

import argparse
import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from pegbox.runners.isolation import isolate_network
from pegbox.runners.landlock import confine

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 4096


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--memory-bytes", type=int, default=0)
    parser.add_argument("--file-bytes", type=int, default=0)
    parser.add_argument("--keep-out", type=Path, help="a folder to see nothing of, but what the next two name")
    parser.add_argument("--writes", type=Path, help="the folder in it to work in")
    parser.add_argument("--reads", type=Path, action="append", default=[], help="what in it to read from")
    parser.add_argument("--tell", help="a file to write into what became of the network and of the other files")
    parser.add_argument("program", nargs="+")
    asked = parser.parse_args()
    os.umask(0o077)
    _limit(resource.RLIMIT_CORE, 0)  # a core file would hold the user's rows
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if asked.memory_bytes:
        _limit(resource.RLIMIT_AS, asked.memory_bytes)
    if asked.file_bytes:
        _limit(resource.RLIMIT_FSIZE, asked.file_bytes)
    _be_killed_first()
    done = [isolate_network()]
    if asked.keep_out:
        done.append(confine(asked.keep_out, writes=asked.writes, reads=asked.reads))
    if asked.tell:
        Path(asked.tell).write_text("\n".join(done), "utf-8")
    if sys.platform == "linux":  # after the isolation, which may take it back
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != asked.parent:  # it died before we asked
            sys.exit(1)
    os.execv(asked.program[0], asked.program)  # noqa: S606 - a list of words, made by the server


def _limit(what: int, most: int) -> None:
    """Lower a limit, never raise it."""
    _, hard = resource.getrlimit(what)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (value, value))


def _be_killed_first() -> None:
    """Where memory runs out, the kernel shall take the run and not the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")


if __name__ == "__main__":
    main()
