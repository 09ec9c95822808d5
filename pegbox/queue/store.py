"""The queue's rows: enqueue, claim, heartbeat, move, events. Every write of a worker carries its lease token, so
one that lost its lease can change nothing any more."""

import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from pegbox import ids
from pegbox.errors import IllegalMove, LostRace
from pegbox.queue import outbox
from pegbox.queue.states import MOVES, Failure, QueuedJob, Status, is_final
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import events, jobs

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a job's story. `key` names it within the job: what has been told is not told again."""

    key: str
    message: str
    level: str = "info"
    type: str = "message"
    data: Mapping[str, object] | None = None


def enqueue(tx: Connection, scope: Scope, job_id: str) -> None:
    """Add a job of that project, to be validated first."""
    values = {"id": job_id, "status": Status.VALIDATING, "created_at": int(time.time()), "attempt": 0}
    tx.execute(scope.insert(jobs).values(**values))


def get(tx: Connection, job_id: str) -> QueuedJob | None:
    """For those who serve all projects; what a user may see is read by `jobs.records`."""
    row = tx.execute(select(jobs).where(jobs.c.id == job_id)).first()
    return None if row is None else from_row(row)


def claim(db: Database, statuses: Collection[Status]) -> QueuedJob | None:
    """Take the oldest job that is in one of `statuses` and under nobody's lease; None if there is none.

    A pause that a dead server left half done comes before all others: to finish it takes no time.
    """
    now = time.time()
    free = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < now)
    waiting = select(jobs.c.id).where(and_(jobs.c.status.in_(statuses), free))
    oldest = waiting.order_by(jobs.c.status != Status.PAUSING, jobs.c.seq).limit(1).scalar_subquery()
    take = (
        update(jobs)
        .where(jobs.c.id == oldest)
        .values(attempt=jobs.c.attempt + 1, lease_token=secrets.token_hex(8), lease_until=now + LEASE_SECONDS)
        .returning(jobs)
    )
    with db.write() as tx:
        row = tx.execute(take).first()
    return None if row is None else from_row(row)


def hold(tx: Connection, job: QueuedJob) -> QueuedJob:
    """Prolong the lease: the first statement of every transaction in which a worker writes. Returns the job as it
    stands now: somebody may have asked for a pause.

    Raises LostRace if the lease is gone: the job was cancelled, or claimed by another worker.
    """
    ours = and_(jobs.c.id == job.id, jobs.c.lease_token == job.lease_token, jobs.c.lease_token.is_not(None))
    prolong = update(jobs).where(ours).values(lease_until=time.time() + LEASE_SECONDS)
    row = tx.execute(prolong.returning(jobs)).first()
    if row is None:
        raise LostRace(f"{job.id} is no longer this worker's: cancelled, paused, or claimed by another")
    return from_row(row)


def move(
    tx: Connection,
    job: QueuedJob,
    to: Status,
    *,
    because: Event | None = None,
    failure: Failure | None = None,
    keep_lease: bool = False,
) -> QueuedJob:
    """The only function that changes a status.

    Event and, for a final status, the outbox row come in the same transaction. Raises IllegalMove where the
    table has no such arrow, and LostRace where another process has moved or claimed the job since `job` was read.
    """
    if to not in MOVES[job.status]:
        raise IllegalMove(f"{job.id}: {job.status} → {to} is not in the table of moves")
    now = int(time.time())
    values: dict[str, Any] = {"status": to}
    if to == Status.RUNNING and job.started_at is None:
        values["started_at"] = now
    if is_final(to):
        values["finished_at"] = now
    if failure is not None:
        values |= {"error_code": failure.code, "error_message": failure.message, "error_param": failure.param}
    if not keep_lease:
        values |= {"lease_token": None, "lease_until": None}
    unchanged = and_(
        jobs.c.id == job.id,
        jobs.c.status == job.status,
        jobs.c.lease_token.is_not_distinct_from(job.lease_token),
    )
    row = tx.execute(update(jobs).where(unchanged).values(**values).returning(jobs)).first()
    if row is None:
        raise LostRace(f"{job.id} was moved by another process")
    if because is not None:
        tell(tx, job.id, because)
    if is_final(to):
        outbox.put(tx, job.id, to)
    return from_row(row)


def tell(tx: Connection, job_id: str, *told: Event) -> None:
    """Append events, leaving out those told before. They belong to whoever the job belongs to."""
    now = int(time.time())
    owner = select(jobs.c.project_id).where(jobs.c.id == job_id).scalar_subquery()
    for event in told:
        values = {
            "id": ids.mint("event"), "job_id": job_id, "key": event.key, "created_at": now,
            "level": event.level, "type": event.type, "message": event.message,
            "data": None if event.data is None else dict(event.data), "project_id": owner,
        }  # fmt: skip
        tx.execute(sqlite_insert(events).values(values).on_conflict_do_nothing())


def was_told(tx: Connection, job_id: str, key: str) -> bool:
    found = select(events.c.seq).where(events.c.job_id == job_id, events.c.key == key)
    return tx.execute(found).first() is not None


def times_told(tx: Connection, job_id: str, kind: str) -> int:
    """How many of the job's events have a key `KIND:…`."""
    mine = (events.c.job_id == job_id) & events.c.key.startswith(f"{kind}:", autoescape=True)
    return tx.execute(select(func.count()).where(mine)).scalar_one()


def release_all(db: Database) -> int:
    """At the start of the only server of this database: no lease can be alive. Returns how many were freed."""
    with db.write() as tx:
        freed = tx.execute(
            update(jobs).where(jobs.c.lease_token.is_not(None)).values(lease_token=None, lease_until=None)
        )
    return int(freed.rowcount)


def from_row(row: Row[Any]) -> QueuedJob:
    failure = Failure(row.error_code, row.error_message, row.error_param) if row.error_code else None
    return QueuedJob(
        id=row.id,
        status=Status(row.status),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempt=row.attempt,
        lease_token=row.lease_token,
        lease_until=row.lease_until,
        failure=failure,
        project_id=row.project_id,
    )
