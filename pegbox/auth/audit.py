"""The log of who changed keys and projects. Rows are added in the transaction of the change and never altered."""

import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from pegbox import ids
from pegbox.auth.access import Caller
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import audit


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    type: str  # "api_key.created" and the like, in OpenAI's words where they have one
    effective_at: int
    actor_key: str | None  # a key's id; None for the server's own doing
    project_id: str
    target_id: str
    details: dict[str, object] = field(default_factory=dict)


def note(
    tx: Connection, actor: Caller | None, scope: Scope, kind: str, target: str, details: dict[str, object] | None = None
) -> None:
    values = {
        "id": ids.mint("audit"), "type": kind, "effective_at": int(time.time()), "target_id": target,
        "actor_key": actor.key_id if actor else None, "details": details or {}, "project_id": scope.project_id,
    }  # fmt: skip
    tx.execute(insert(audit).values(values))


def page(db: Database, caller: Caller, *, after: str | None, limit: int) -> tuple[list[Entry], bool]:
    """Newest first, and whether there are more: of the caller's project, or of all for those who run the server."""
    mine = select(audit) if caller.runs_the_server else caller.scope.select(audit)
    if after is not None:
        of_it = select(audit.c.seq).where(audit.c.id == after)
        mine = mine.where(
            audit.c.seq < (of_it if caller.runs_the_server else of_it.where(caller.scope.owns(audit))).scalar_subquery()
        )
    with db.read() as tx:
        rows = tx.execute(mine.order_by(audit.c.seq.desc()).limit(limit + 1)).all()
    return [_entry(row) for row in rows[:limit]], len(rows) > limit > 0


def _entry(row: Row[Any]) -> Entry:
    return Entry(row.id, row.type, row.effective_at, row.actor_key, row.project_id, row.target_id, row.details)
