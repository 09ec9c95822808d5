"""The store of one data directory, opened beside a server or without one, and what its rows say must be there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select

from pegbox.errors import CommandFailed
from pegbox.queue.states import Status, is_final
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.tables import adapters, files, jobs


@dataclass(frozen=True, slots=True)
class Store:
    root: Path
    db: Database
    blobs: Blobs


@dataclass(frozen=True, slots=True)
class References:
    """What the rows of one moment refer to."""

    files: dict[str, str]  # id, which is the key of the bytes → their sha256
    adapters: frozenset[str]  # keys of folders
    jobs: dict[str, Status]

    @property
    def unfinished(self) -> frozenset[str]:
        """Jobs whose bytes may be about to get a name."""
        return frozenset(job for job, status in self.jobs.items() if not is_final(status))


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """Raises CommandFailed where there is no data directory."""
    root = settings.root
    there = settings.database if isinstance(settings.database, Path) else root
    if not there.exists():
        raise CommandFailed(f"{root} is no data directory of pegbox; name the right one with --data-dir.")
    db = Database(settings.database)
    try:
        yield Store(root, db, Blobs(root / "blobs"))
    finally:
        db.close()


def references(tx: Connection) -> References:
    return References(
        files={row.id: row.sha256 for row in tx.execute(select(files.c.id, files.c.sha256))},
        adapters=frozenset(
            key for row in tx.execute(select(adapters.c.folder, adapters.c.model_folder)) for key in row if key
        ),
        jobs={row.id: Status(row.status) for row in tx.execute(select(jobs.c.id, jobs.c.status))},
    )
