"""Files that survive a power cut: written beside, flushed to the disk, renamed, and the folder flushed, too.

A failed flush is never tried again: the kernel may have dropped what it could not write and call a second try a
success. The operation fails, and what it wrote has no name yet.

Every step has a name, `WHAT.fsync`, `WHAT.rename`, `WHAT.folder` (each before it is done) and `WHAT.done`. The process
dies at the Nth pass of one where PEGBOX_CRASH_AT=NAME:N says so; see docs/durability.md.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CRASH_VARIABLE = "PEGBOX_CRASH_AT"
_TRACE = "trace"
_DIED = 137  # as a shell tells of a process that was killed


def put(path: Path, content: bytes, what: str) -> None:
    """Give a file that content: after a crash it has all of the new one or all of the old one, and after the return
    the new one. Nobody else may write the same path at the same time."""
    beside = path.with_name(f"{path.name}.tmp")
    with written(beside, what) as out:
        out.write(content)
    rename(beside, path, what)


@contextmanager
def written(path: Path, what: str) -> Iterator[BinaryIO]:
    """Open for writing; on leaving, the content is on the disk. The name is not yet: see `rename`."""
    with path.open("wb") as out:
        yield out
        sync(out, what)


def sync(out: BinaryIO, what: str) -> None:
    """Bring to the disk what was written to an open file."""
    out.flush()
    step(f"{what}.fsync")
    os.fsync(out.fileno())


def rename(beside: Path, target: Path, what: str) -> None:
    """Name a file or folder whose content is on the disk. It has the name for good from here on."""
    make_folder(target.parent)
    step(f"{what}.rename")
    beside.rename(target)
    step(f"{what}.folder")
    sync_folder(target.parent)
    step(f"{what}.done")


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing; each is in its parent for good. Does nothing if it is
    there."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    path.mkdir(exist_ok=True, mode=mode)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive: those added, and those taken away."""
    _flush(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path, what: str) -> None:
    """Bring to the disk what somebody else wrote, a library or an earlier `open`."""
    step(f"{what}.fsync")
    _flush(path, os.O_RDONLY)


def sync_tree(path: Path, what: str) -> None:
    """Bring a whole folder to the disk: the files, the folders below, and its own name in its parent."""
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            sync_file(Path(folder, name), what)
        sync_folder(Path(folder))
    sync_folder(path.parent)
    step(f"{what}.done")


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- points at which a test lets the process die ----------------------------------------------------------------


def _asked() -> tuple[str, int, str]:
    """`NAME`, `NAME:N` or `NAME:N:TOKEN` in the environment. TOKEN is a file that is used up in dying, so that of
    several processes, or several lives of one, a single one dies. `trace:0:FILE` notes each passing in that file."""
    name, _, rest = os.environ.get(CRASH_VARIABLE, "").partition(":")
    number, _, token = rest.partition(":")
    return name, int(number or 1), token


_name, _left, _token = _asked()
_counting = threading.Lock()


def step(name: str) -> None:
    """Pass a point by its name. Costs two comparisons."""
    if _name in (name, _TRACE):
        _pass(name)


def _pass(name: str) -> None:
    global _left  # noqa: PLW0603 - one process dies once
    with _counting:
        if _name == _TRACE:
            with Path(_token).open("a", encoding="ascii") as trace:
                trace.write(f"{name}\n")
            return
        _left -= 1
        if _left:
            return
        try:
            if _token:
                Path(_token).unlink()
        except FileNotFoundError:
            return
        os._exit(_DIED)


def crash_environment() -> dict[str, str]:
    """For a child process, whose environment is otherwise made anew: where it is to die, if anywhere."""
    return {CRASH_VARIABLE: os.environ[CRASH_VARIABLE]} if CRASH_VARIABLE in os.environ else {}
