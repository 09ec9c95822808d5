"""Bytes on disk: written beside, flushed, renamed. What has a name is whole.

Bytes get their name first and their row after. In between nothing refers to them, so whoever names bytes holds the
folder's lock together with all others who do (`naming`), and whoever looks for bytes that nobody refers to holds it
alone (`alone`): what is garbage then is garbage for good. The lock is the kernel's: it counts over processes, and a
process that dies lets go of it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import uuid
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pegbox import durable

MANIFEST = "manifest.json"  # in every stored folder: the sha256 of each of its files
INCOMING = "incoming"
_LOCK = "naming.lock"
_ALIVE = "alive.lock"


class Blobs:
    """A folder of files under keys that pegbox minted (ids, never names from a client)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._part: Path | None = None  # where this process writes
        durable.make_folder(root / INCOMING, mode=0o700)
        self.sweep_incoming()

    def path(self, key: str) -> Path:
        return self.root / key

    def begin(self) -> Path:
        """A path to write to; `commit` gives it its name."""
        return self._incoming() / uuid.uuid4().hex

    def commit(self, written: Path, key: str, what: str = "blob") -> None:
        """Name a fully written (and fsynced) file or folder. It survives a power cut from here on."""
        durable.rename(written, self.path(key), what)

    def put(self, key: str, content: bytes) -> None:
        written = self.begin()
        try:
            with durable.written(written, "blob") as out:
                out.write(content)
            self.commit(written, key)
        except OSError:
            written.unlink(missing_ok=True)
            raise

    def put_folder(self, key: str, source: Path, names: list[str], linked: Collection[str] = ()) -> None:
        """Copy the named files of `source` as one folder, with a manifest. A folder already there is left as it is.

        Those in `linked` are on the disk for good and never written again: where the file system can, they get a
        second name instead of a second place. Nothing stays behind where a file is missing.
        """
        if self.path(key).exists():
            return
        written = self.begin()
        written.mkdir()
        try:
            digests = {name: _bring(source / name, written / name, link=name in linked) for name in names}
            with durable.written(written / MANIFEST, "adapter") as out:
                out.write(json.dumps(digests).encode())
            durable.sync_folder(written)
            self.commit(written, key, "adapter")
        except OSError:
            shutil.rmtree(written, ignore_errors=True)
            raise

    def delete(self, key: str) -> None:
        target = self.path(key)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    # --- garbage -------------------------------------------------------------------------------------------

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Around the naming of bytes and the transaction that refers to them; and around a transaction that drops a
        reference and the removal of the bytes."""
        with _locked(self.root / INCOMING / _LOCK, fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody names or removes bytes. Waits for those who do, and lets nobody begin: be quick."""
        with _locked(self.root / INCOMING / _LOCK, fcntl.LOCK_EX):
            yield

    def keys(self) -> list[str]:
        """All that has a name: files of the folder, and folders that hold a manifest."""
        found = []
        for folder, below, names in os.walk(self.root):
            here = Path(folder)
            if here == self.root:
                below.remove(INCOMING)
            if MANIFEST in names:
                found.append(str(here.relative_to(self.root)))
                below.clear()
            else:
                found += [str((here / name).relative_to(self.root)) for name in names]
        return sorted(found)

    def sweep_incoming(self) -> int:
        """Remove what processes that are no more left half-written. Returns how many uploads and folders."""
        swept = 0
        with self.alone():
            for part in (self.root / INCOMING).iterdir():
                if part.name != _LOCK and not _alive(part):
                    swept += sum(1 for left in part.iterdir() if left.name != _ALIVE) if part.is_dir() else 1
                    _remove(part)
        return swept

    def _incoming(self) -> Path:
        """Our part of the folder of half-written things, made at its first use."""
        if self._part is None:
            part = self.root / INCOMING / uuid.uuid4().hex
            with self.naming():  # nobody sweeps before it is locked
                part.mkdir(mode=0o700)
                held = os.open(part / _ALIVE, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(held, fcntl.LOCK_EX)
            weakref.finalize(self, os.close, held)
            self._part = part
        return self._part


def _alive(part: Path) -> bool:
    """Whether the process that writes there still lives."""
    try:
        with (part / _ALIVE).open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no lock: left by a crash before it was taken, or by an older version
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy(source: Path, target: Path) -> str:
    """Returns the sha256 of what was written, hexadecimal."""
    digest = hashlib.sha256()
    with source.open("rb") as src, durable.written(target, "adapter") as out:
        while chunk := src.read(1 << 20):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _bring(source: Path, target: Path, *, link: bool) -> str:
    """By a second name or by a copy. Returns the sha256, hexadecimal."""
    if not link or not _link(source, target):
        return _copy(source, target)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open("ab") as lock:  # an open file of our own: threads shut each other out as processes do
        fcntl.flock(lock, how)
        yield
