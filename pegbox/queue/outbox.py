"""Endings to be told: put in the transaction that ends a job, taken out when told. At least once, with back-off."""

import time
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from pegbox.queue.states import Status
from pegbox.storage.db import Database
from pegbox.storage.tables import outbox

# Seconds to wait after each failed attempt; about a day in all, then the row stays with its last error.
BACK_OFF = (5, 30, 300, 1_800, 7_200, 21_600, 43_200)


@dataclass(frozen=True, slots=True)
class Ending:
    seq: int
    job_id: str
    status: Status
    attempts: int


def put(tx: Connection, job_id: str, status: Status) -> None:
    tx.execute(insert(outbox).values(job_id=job_id, kind=status, attempts=0, not_before=time.time()))


def due(db: Database) -> list[Ending]:
    """Endings whose next attempt is due, oldest first."""
    waiting = outbox.c.delivered_at.is_(None) & (outbox.c.not_before <= time.time())
    with db.read() as tx:
        rows = tx.execute(select(outbox).where(waiting).order_by(outbox.c.seq).limit(20)).all()
    return [Ending(row.seq, row.job_id, Status(row.kind), row.attempts) for row in rows]


def delivered(db: Database, ending: Ending) -> None:
    with db.write() as tx:
        tx.execute(update(outbox).where(outbox.c.seq == ending.seq).values(delivered_at=int(time.time())))


def postpone(db: Database, ending: Ending, error: str, back_off: tuple[float, ...] = BACK_OFF) -> None:
    """Note a failed attempt and when to try again; after the last one, never."""
    attempts = ending.attempts + 1
    wait = back_off[attempts - 1] if attempts <= len(back_off) else float("inf")
    not_before = min(time.time() + wait, 1e18)
    values = {"attempts": attempts, "not_before": not_before, "last_error": error[:500]}
    with db.write() as tx:
        tx.execute(update(outbox).where(outbox.c.seq == ending.seq).values(**values))
