"""Bytes on disk: written beside, flushed, renamed. What has a name is whole."""

import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class Blobs:
    """A folder of files under keys that pegbox minted (ids, never names from a client)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)  # what a crash left half-written has no name yet
        self._incoming.mkdir(parents=True, mode=0o700)

    def path(self, key: str) -> Path:
        return self.root / key

    def begin(self) -> Path:
        """A path to write to; `commit` gives it its name."""
        return self._incoming / uuid.uuid4().hex

    def commit(self, written: Path, key: str) -> None:
        """Name a fully written (and fsynced) file or folder. It survives a power cut from here on."""
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        written.rename(target)
        sync_folder(target.parent)

    def put(self, key: str, content: bytes) -> None:
        written = self.begin()
        with synced(written) as out:
            out.write(content)
        self.commit(written, key)

    def put_folder(self, key: str, source: Path, names: list[str], linked: Collection[str] = ()) -> None:
        """Copy the named files of `source` as one folder. A folder already there is left as it is.

        Those in `linked` are on the disk for good and never written again: where the file system can, they get a
        second name instead of a second place. Nothing stays behind where a file is missing.
        """
        if self.path(key).exists():
            return
        written = self.begin()
        written.mkdir()
        try:
            for name in names:
                if name not in linked or not _link(source / name, written / name):
                    _copy(source / name, written / name)
        except OSError:
            shutil.rmtree(written, ignore_errors=True)
            raise
        sync_folder(written)
        self.commit(written, key)

    def delete(self, key: str) -> None:
        target = self.path(key)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as src, synced(target) as out:
        shutil.copyfileobj(src, out, 1 << 20)


def _link(source: Path, target: Path) -> bool:
    """False where the file system has no links, or the two lie on different ones."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """Open for writing; on leaving, the content is on the disk and not only in the page cache."""
    with path.open("wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
