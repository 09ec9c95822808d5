"""A copy of a data directory, of one moment, made while the server works; and the way back.

FOLDER/pegbox.db       the database as it was at that moment
FOLDER/blobs/          what its rows refer to
FOLDER/runs/           the run directories: a job that was at work goes on from its newest whole checkpoint
FOLDER/manifest.json   written last: sha256 and size of every file. A folder without it is no backup.

Under the lock that stops all naming only links are made, so the server waits for milliseconds; the bytes are copied
afterwards, from links that nobody deletes.
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from pysqlite3 import dbapi2

from pegbox import __version__, durable
from pegbox.errors import CommandFailed
from pegbox.queue.states import Status
from pegbox.storage.db import HEAD
from pegbox.train.rundir import JOURNALS, RunDir
from pegbox.upkeep.store import References, Store, references
from pegbox.upkeep.verify import damage

MANIFEST = "manifest.json"
_FORMAT = 1
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Entry:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    made_at: int  # unix seconds
    version: str  # of pegbox
    schema: str  # of the database
    files: Mapping[str, Entry]  # by path below the backup's folder


@dataclass(frozen=True, slots=True)
class Made:
    manifest: Manifest
    damaged: tuple[str, ...]  # what was not whole in the store already


def backup(store: Store, folder: Path) -> Made:
    """Copy the store into a new or empty folder. Raises CommandFailed for any other, and where PostgreSQL holds the
    rows: it has tools of its own for that."""
    if store.db.name != "sqlite":
        raise CommandFailed(
            "Rows in PostgreSQL are not backed up from here. Run `pg_dump` first, then copy blobs/ and runs/ of the "
            "data directory; what has no row by then is harmless."
        )
    _must_be_empty(folder)
    durable.make_folder(folder, mode=0o700)
    staging = store.blobs.begin()
    try:
        wanted = _freeze(store, staging)
        damaged = tuple(f"{one.key} {one.text}" for one in damage(staging / "blobs", wanted))
        entries = dict(_copy_all(staging, folder))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    manifest = Manifest(_FORMAT, int(time.time()), __version__, HEAD, entries)
    durable.put(folder / MANIFEST, json.dumps(asdict(manifest), indent=1).encode(), "backup")
    return Made(manifest, damaged)


def restore(folder: Path, root: Path) -> Manifest:
    """Make a backup a data directory, whole or not at all. Raises CommandFailed for a folder that is no backup, one
    that is damaged, and a data directory that holds something."""
    manifest = load(folder)
    _must_be_empty(root)
    beside = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
    durable.make_folder(beside, mode=0o700)
    try:
        for name, entry in manifest.files.items():
            durable.make_folder((beside / name).parent, mode=0o700)
            if _copy(folder / name, beside / name) != entry:
                raise CommandFailed(f"{folder / name} is not what the backup's manifest says; use another backup.")
        for run in (beside / "runs").glob("*/recipe.json"):
            RunDir(run.parent).create()  # folders that were empty
        with suppress(FileNotFoundError):
            root.rmdir()
        durable.rename(beside, root, "restore")
    except FileNotFoundError as error:
        raise CommandFailed(f"{error.filename} is missing in the backup; use another one.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


def load(folder: Path) -> Manifest:
    """Raises CommandFailed."""
    try:
        values = json.loads((folder / MANIFEST).read_bytes())
        files = {name: Entry(**entry) for name, entry in values["files"].items()}
        manifest = Manifest(**{**values, "files": files})
    except FileNotFoundError:
        raise CommandFailed(f"{folder} is no backup: it has no {MANIFEST}, which is written last.") from None
    except (ValueError, TypeError, KeyError):
        raise CommandFailed(f"{folder / MANIFEST} can't be read; use another backup.") from None
    if manifest.format != _FORMAT or manifest.schema > HEAD:
        raise CommandFailed(f"{folder} was made by pegbox {manifest.version}; restore it with that version or a newer.")
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise CommandFailed(f"{folder / MANIFEST} names a file outside of the backup: {name!r}.")
    return manifest


# --- one moment ----------------------------------------------------------------------------------------------------


def _freeze(store: Store, staging: Path) -> References:
    """Database and links of one moment in `staging`. A job that ends while its run directory is linked loses its rows
    on the way: then again."""
    for _ in range(_TRIES):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        with closing(dbapi2.connect(str(store.root / "pegbox.db"), isolation_level=None)) as source:
            with store.blobs.alone():
                source.execute("BEGIN")  # its first read fixes the moment
                source.execute("SELECT count(*) FROM files").fetchall()
                wanted = _references_of(source)
                _link(store.blobs.root, staging / "blobs", [*wanted.files, *wanted.adapters])
            for run in (store.root / "runs").glob("*"):
                _keep_run(RunDir(run), staging / "runs" / run.name)
            with closing(dbapi2.connect(str(staging / "pegbox.db"))) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
        with store.db.read() as tx:
            now = references(tx)
        if wanted.unfinished <= now.unfinished:
            return wanted
    raise CommandFailed("jobs end faster than they can be copied; try again in a moment.")


def _references_of(source: dbapi2.Connection) -> References:
    return References(
        files=dict(source.execute("SELECT id, sha256 FROM files")),
        adapters=frozenset(key for (key,) in source.execute("SELECT folder FROM adapters")),
        jobs={job: Status(status) for job, status in source.execute("SELECT id, status FROM jobs")},
    )


def _link(root: Path, target: Path, names: list[str]) -> None:
    """Second names for files and whole folders of `root`, below `target`. What isn't there is left out."""
    for name in names:
        source = root / name
        for path in _files(source) if source.is_dir() else [source]:
            place = target / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a checkpoint that was dropped a moment ago
                os.link(path, place)


def _keep_run(run: RunDir, target: Path) -> None:
    """A run directory in which what is told and what is saved agree: no checkpoint came while they were taken."""
    before = None
    while before != (before := _checkpoints(run)):
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        _link(run.path.parent, target.parent, [run.path.name])
        for name in JOURNALS:  # these grow: a link would grow with them
            (target / name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(run.path / name, target / name)


def _checkpoints(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.glob("step-*"))


def _files(folder: Path) -> Iterator[Path]:
    for here, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith("incoming")]
        yield from (Path(here, name) for name in names)


# --- bytes ---------------------------------------------------------------------------------------------------------


def _copy_all(source: Path, target: Path) -> Iterator[tuple[str, Entry]]:
    for path in sorted(_files(source)):
        name = str(path.relative_to(source))
        durable.make_folder((target / name).parent, mode=0o700)
        yield name, _copy(path, target / name)


def _copy(source: Path, target: Path) -> Entry:
    """Returns what was written: the hash is that of the copy."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as src, durable.written(target, "backup") as out:
        while chunk := src.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    durable.sync_folder(target.parent)
    return Entry(size, digest.hexdigest())


def _must_be_empty(folder: Path) -> None:
    with _readable(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CommandFailed(f"{folder} is not empty; name a folder that is not there yet, or move this one away.")


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise CommandFailed(f"{folder} can't be read; mend its permissions.") from None
