"""Uploaded files and the files the server makes: a row each, and the bytes under the row's id."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, Row, Select, bindparam, delete

from pegbox import ids
from pegbox.errors import NotFound
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.kept import kept
from pegbox.storage.paging import Slice, fetch, paged
from pegbox.storage.scope import Scope
from pegbox.storage.tables import files

RESULTS_PURPOSE = "fine-tune-results"


@dataclass(frozen=True, slots=True)
class File:
    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    sha256: str
    expires_at: int | None
    status_details: str | None = None  # what the first look found wrong with it

    @classmethod
    def from_row(cls, row: Row[tuple[object, ...]]) -> "File":
        values = row._asdict()
        del values["seq"], values["project_id"]
        return cls(**values)


class Files:
    def __init__(self, db: Database, blobs: Blobs) -> None:
        self._db = db
        self._blobs = blobs

    def incoming(self) -> Path:
        """Where an upload is written until `keep` makes it a file."""
        return self._blobs.begin()

    def keep(
        self,
        scope: Scope,
        written: Path,
        *,
        filename: str,
        purpose: str,
        sha256: str,
        expires_in: int | None = None,
        status_details: str | None = None,
    ) -> File:
        """Make a fully written, fsynced upload a file: bytes first, then the row that acknowledges them."""
        now = int(time.time())
        size = written.stat().st_size
        expires_at = now + expires_in if expires_in else None
        file = File(ids.mint("file"), size, now, filename, purpose, sha256, expires_at, status_details)
        with self._blobs.naming():
            self._blobs.commit(written, file.id, "upload")
            with self._db.write() as tx:
                self.record(tx, scope, file)
        return file

    def naming(self) -> AbstractContextManager[None]:
        """Around `put` and the transaction that calls `record`, lest the collector come between them."""
        return self._blobs.naming()

    def put(self, content: bytes, *, filename: str, purpose: str) -> File:
        """Store the bytes of a file that the server makes; `record` gives it its row."""
        digest = hashlib.sha256(content).hexdigest()
        file = File(ids.mint("file"), len(content), int(time.time()), filename, purpose, digest, None)
        self._blobs.put(file.id, content)
        return file

    def record(self, tx: Connection, scope: Scope, file: File) -> None:
        """Acknowledge stored bytes, in the transaction of whoever refers to them."""
        tx.execute(scope.insert(files).values(_values(file)))

    def find(self, scope: Scope, file_id: str) -> File | None:
        with self._db.read() as tx:
            return find(tx, scope, file_id)

    def get(self, scope: Scope, file_id: str) -> File:
        """Raises NotFound in the API's own words."""
        file = self.find(scope, file_id)
        if file is None:
            raise NotFound(f"No such File object: {file_id}", param="id")
        return file

    def path(self, file: File) -> Path:
        return self._blobs.path(file.id)

    def open(self, file: File) -> BinaryIO | None:
        """Its bytes; None where it was deleted a moment ago."""
        try:
            return self.path(file).open("rb")
        except FileNotFoundError:
            return None

    def chunks(self, file: File, size: int = 1 << 16) -> Iterator[bytes]:
        with self.path(file).open("rb") as source:
            while chunk := source.read(size):
                yield chunk

    def delete(self, scope: Scope, file_id: str) -> None:
        file = self.get(scope, file_id)
        with self._blobs.naming():
            with self._db.write() as tx:
                tx.execute(scope.delete(files).where(files.c.id == file.id))
            self._blobs.delete(file.id)

    def purge(self) -> None:
        """Delete what has expired, whoever it belongs to: rows, then bytes."""
        past = files.c.expires_at <= int(time.time())
        with self._blobs.naming():
            with self._db.write() as tx:
                gone = list(tx.execute(delete(files).where(past).returning(files.c.id)).scalars())
            for file_id in gone:
                self._blobs.delete(file_id)

    def list(
        self, scope: Scope, *, purpose: str | None, after: str | None, limit: int, newest_first: bool
    ) -> Slice[File]:
        query = scope.select(files)
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        live = files.c.expires_at.is_(None) | (files.c.expires_at > int(time.time()))
        with self._db.read() as tx:
            statement = paged(
                scope, query.where(live), files.c.seq, files.c.id, follows=after is not None, newest_first=newest_first
            )
            page = fetch(tx, statement, after, limit)
        return Slice([File.from_row(row) for row in page.items], has_more=page.has_more)


def find(tx: Connection, scope: Scope, file_id: str) -> File | None:
    """A file that is there and has not expired."""
    row = tx.execute(_one(scope), {"of": file_id}).first()
    if row is None:
        return None
    file = File.from_row(row)
    expired = file.expires_at is not None and file.expires_at <= time.time()
    return None if expired else file


@kept
def _one(scope: Scope) -> Select[tuple[object, ...]]:
    return scope.select(files).where(files.c.id == bindparam("of"))


def _values(file: File) -> dict[str, object]:
    return {field: getattr(file, field) for field in File.__slots__}
