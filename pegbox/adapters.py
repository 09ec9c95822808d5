"""Tuned models: a name each, the base they belong to, and the folder of their weights.

Most are adapters over a base of the catalogue. One whose job learnt all weights is a whole model; later adapters may
lie over it, and then its bytes stay for as long as they do, whatever becomes of its name.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, bindparam, select

from pegbox.errors import NotFound
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.kept import kept
from pegbox.storage.scope import Scope
from pegbox.storage.tables import adapters

FILES = ["adapter_model.safetensors", "adapter_config.json"]


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    base: str
    created_at: int
    job_id: str
    format: str  # "chat" or "completion"
    folder: str  # key of the blob
    model_folder: str | None = None  # key of the whole model that computes; None: the base in the catalogue

    @property
    def is_whole(self) -> bool:
        """It brings all its weights, and is no adapter."""
        return self.model_folder == self.folder


class Adapters:
    def __init__(self, db: Database, blobs: Blobs) -> None:
        self._db = db
        self._blobs = blobs

    def store(self, source: Path, key: str, names: Sequence[str] = FILES, linked: Sequence[str] = ()) -> None:
        """Bring a tuned model's bytes in. It has no name yet; `publish` gives it one."""
        self._blobs.put_folder(key, source, list(names), linked)

    def publish(
        self,
        tx: Connection,
        scope: Scope,
        *,
        name: str,
        base: str,
        job_id: str,
        format_: str,
        key: str,
        model_folder: str | None = None,
    ) -> Adapter:
        """Name stored bytes, in the transaction of whoever announces the name."""
        adapter = Adapter(name, base, int(time.time()), job_id, format_, key, model_folder)
        values = {field: getattr(adapter, field) for field in Adapter.__slots__}
        tx.execute(scope.insert(adapters).values(values))
        return adapter

    def find(self, scope: Scope, name: str) -> Adapter | None:
        with self._db.read() as tx:
            return find(tx, scope, name)

    def get(self, scope: Scope, name: str) -> Adapter:
        """Raises NotFound in the API's own words."""
        adapter = self.find(scope, name)
        if adapter is None:
            raise NotFound(f"The model '{name}' does not exist", param="model", code="model_not_found")
        return adapter

    def list(self, scope: Scope) -> list[Adapter]:
        with self._db.read() as tx:
            return [_adapter(row._asdict()) for row in tx.execute(scope.select(adapters).order_by(adapters.c.seq))]

    def path(self, adapter: Adapter) -> Path:
        return self.folder(adapter.folder)

    def folder(self, key: str) -> Path:
        """Where stored bytes lie, named or not."""
        return self._blobs.path(key)

    def delete(self, scope: Scope, adapter: Adapter) -> None:
        """The name goes first, then the bytes unless another name still stands for them or lies over them."""
        with self._blobs.naming():
            with self._db.write() as tx:
                tx.execute(scope.delete(adapters).where(adapters.c.name == adapter.name))
                keys = {key for key in (adapter.folder, adapter.model_folder) if key}
                either = adapters.c.folder.in_(keys) | adapters.c.model_folder.in_(keys)
                query = select(adapters.c.folder, adapters.c.model_folder).where(either)
                held = {key for row in tx.execute(query) for key in row}
            for key in keys - held:
                self._blobs.delete(key)


def find(tx: Connection, scope: Scope, name: str) -> Adapter | None:
    row = tx.execute(_one(scope), {"of": name}).first()
    return None if row is None else _adapter(row._asdict())


@kept
def _one(scope: Scope) -> Select[Any]:
    return scope.select(adapters).where(adapters.c.name == bindparam("of"))


def _adapter(values: "dict[str, object]") -> Adapter:
    del values["seq"], values["project_id"]
    return Adapter(**values)  # type: ignore[arg-type]
