"""The queue's rows: enqueue, claim, heartbeat, move, events. Every write of a worker carries its lease token, so
one that lost its lease can change nothing any more."""

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Float,
    Insert,
    Row,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from pegbox import ids
from pegbox.errors import IllegalMove, LostRace
from pegbox.queue import outbox
from pegbox.queue.states import MOVES, Failure, QueuedJob, Status, is_final
from pegbox.queue.turns import full_projects, next_turn
from pegbox.storage.db import Database, new_row, now
from pegbox.storage.kept import kept
from pegbox.storage.scope import Scope
from pegbox.storage.tables import events, jobs

LEASE_SECONDS = 30.0
# Seconds to wait before the next attempt, after the first setback in a row, the second and so on.
BACK_OFF = (0, 2, 10, 60, 300)
Full = tuple[str, ...]  # projects that have as many jobs in training as they may
_FREE: Mapping[str, None] = {"lease_token": None, "lease_until": None, "lease_owner": None}


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
    tx.execute(_entry(scope), {**values, "turn": next_turn(tx, scope.project_id)})


@kept
def _entry(scope: Scope) -> Insert:
    return scope.insert(jobs)


def get(tx: Connection, job_id: str) -> QueuedJob | None:
    """For those who serve all projects; what a user may see is read by `jobs.records`."""
    row = tx.execute(select(jobs).where(jobs.c.id == job_id)).first()
    return None if row is None else from_row(row)


def claim(
    db: Database, statuses: Collection[Status], *, owner: str | None = None, project_jobs: int = 0
) -> QueuedJob | None:
    """Take the job whose turn it is, of those in one of `statuses` and under nobody's lease; None if there is none.

    A pause that a dead server left half done comes before all others: to finish it takes no time. A job whose worker
    went without a word has had a setback. `owner` is the process that claims, `project_jobs` how many jobs of one
    project may be in training at once, 0 for any number.
    """
    wanted = tuple(statuses)
    with db.read() as tx:  # most looks find nothing, and need not wait for a writer
        if not _heads(tx, wanted, full_projects(tx, project_jobs)):
            return None
    given = {"token": secrets.token_hex(8), "owner": owner, "seconds": LEASE_SECONDS}
    with db.write() as tx:
        full = full_projects(tx, project_jobs)
        for status in _heads(tx, wanted, full):
            if row := tx.execute(_take(status, full), given).first():
                return from_row(row)
    return None


def _heads(tx: Connection, statuses: tuple[Status, ...], full: Full) -> list[Status]:
    """The statuses in which a job is to be had, that of the soonest first."""
    firsts = tx.execute(_firsts(statuses, full))
    heads = [(row.status != Status.PAUSING, row.turn, row.seq, Status(row.status)) for row in firsts]
    return [status for *_, status in sorted(heads)]


@kept
def _firsts(statuses: tuple[Status, ...], full: Full) -> CompoundSelect[Any]:
    return union_all(*(select(_free(status, full).subquery()) for status in statuses))


@kept
def _take(status: Status, full: Full) -> ReturningUpdate[Any]:
    lost = case((jobs.c.lease_token.is_(None), 0), else_=1)
    # Who holds one of these rows this moment changes it, so we would not want it: take the next.
    mine = _free(status, full).with_only_columns(jobs.c.id).with_for_update(skip_locked=True)
    take = update(jobs).where(jobs.c.id == mine.scalar_subquery()).values(
        attempt=jobs.c.attempt + 1, setbacks=jobs.c.setbacks + lost, not_before=None, lease_owner=bindparam("owner"),
        lease_token=bindparam("token"), lease_until=now() + bindparam("seconds", type_=Float),
    )  # fmt: skip
    return take.returning(jobs)


def _free(status: Status, full: Full) -> Select[Any]:
    """The first job to be had, in the order of the turns. One status at a time: so the index finds it at once, however
    many there are."""
    unheld = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < now())
    due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now())
    free = select(jobs.c.status, jobs.c.turn, jobs.c.seq).where(jobs.c.status == status, unheld, due)
    if status == Status.QUEUED and full:
        free = free.where(jobs.c.project_id.not_in(full))
    return free.order_by(jobs.c.turn, jobs.c.seq).limit(1)


def hold(tx: Connection, job: QueuedJob) -> QueuedJob:
    """Prolong the lease: the first statement of every transaction in which a worker writes. Returns the job as it
    stands now: somebody may have asked for a pause.

    Raises LostRace if the lease is gone: the job was cancelled, or claimed by another worker.
    """
    prolong = update(jobs).where(_ours(job)).values(lease_until=now() + LEASE_SECONDS)
    row = tx.execute(prolong.returning(jobs)).first()
    if row is None:
        raise LostRace(f"{job.id} is no longer this worker's: cancelled, paused, or claimed by another")
    return from_row(row)


def give_back(tx: Connection, job: QueuedJob) -> None:
    """Let go of a job in good order: whoever claims next goes on with it. Does nothing where it is no longer ours."""
    tx.execute(update(jobs).where(_ours(job)).values(**_FREE))


def set_back(tx: Connection, job: QueuedJob, because: str) -> None:
    """Let go of a job whose work broke off; the next attempt waits longer each time.

    Raises LostRace if the lease is gone.
    """
    held = hold(tx, job)
    wait = _wait(held.setbacks + 1)
    values = {**_FREE, "setbacks": held.setbacks + 1, "not_before": now() + wait}
    tx.execute(update(jobs).where(_ours(job)).values(**values))
    when = f"in {wait} seconds" if wait else "at once"
    text = f"{because} The job goes on {when} from where it was last saved."
    tell(tx, job.id, Event(f"setback:{held.attempt}", text, level="warn"))


def progress(tx: Connection, job: QueuedJob) -> None:
    """The job got further than ever before: earlier setbacks count no more."""
    tx.execute(update(jobs).where(_ours(job), jobs.c.setbacks > 0).values(setbacks=0))


def release(db: Database, is_dead: Callable[[str | None], bool]) -> int:
    """Free the jobs of processes that are gone, without waiting for their leases to run out. Each had a setback.
    Returns how many were freed."""
    freed = 0
    with db.write() as tx:
        held = tx.execute(select(jobs).where(jobs.c.lease_token.is_not(None))).all()
        for row in held:
            if is_dead(row.lease_owner):
                setbacks = row.setbacks + 1
                values = {**_FREE, "setbacks": setbacks, "not_before": now() + _wait(setbacks)}
                tx.execute(update(jobs).where(_ours(from_row(row))).values(**values))
                freed += 1
    return freed


def _ours(job: QueuedJob) -> ColumnElement[bool]:
    return and_(jobs.c.id == job.id, jobs.c.lease_token == job.lease_token, jobs.c.lease_token.is_not(None))


def _wait(setbacks: int) -> int:
    return BACK_OFF[min(setbacks, len(BACK_OFF)) - 1]


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
    moment = int(time.time())
    values: dict[str, Any] = {"status": to}
    if to == Status.RUNNING and job.started_at is None:
        values["started_at"] = moment
    if is_final(to):
        values["finished_at"] = moment
    else:
        values |= {"setbacks": 0, "not_before": None}
    if failure is not None:
        values |= {"error_code": failure.code, "error_message": failure.message, "error_param": failure.param}
    if not keep_lease:
        values |= _FREE
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


def tell(tx: Connection, job_id: str, *told: Event) -> int:
    """Append events, leaving out those told before. They belong to whoever the job belongs to. Returns how many were
    new."""
    moment = int(time.time())
    new = 0
    for event in told:
        values = {
            "of": job_id, "id": ids.mint("event"), "job_id": job_id, "key": event.key, "created_at": moment,
            "level": event.level, "type": event.type, "message": event.message,
            "data": None if event.data is None else dict(event.data),
        }  # fmt: skip
        new += tx.execute(_telling(tx.dialect.name), values).first() is not None
    return new


@kept
def _telling(dialect: str) -> Insert:
    owner = select(jobs.c.project_id).where(jobs.c.id == bindparam("of")).scalar_subquery()
    return new_row(dialect, events).values(project_id=owner)


def was_told(tx: Connection, job_id: str, key: str) -> bool:
    found = select(events.c.seq).where(events.c.job_id == job_id, events.c.key == key)
    return tx.execute(found).first() is not None


def times_told(tx: Connection, job_id: str, kind: str) -> int:
    """How many of the job's events have a key `KIND:…`."""
    mine = (events.c.job_id == job_id) & events.c.key.startswith(f"{kind}:", autoescape=True)
    return tx.execute(select(func.count()).where(mine)).scalar_one()


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
        turn=row.turn,
        setbacks=row.setbacks,
    )
