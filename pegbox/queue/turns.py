"""Whose turn it is. Every job gets a number when it is created, and the smallest number is worked on first.

The numbers make it fair between projects: a project's next job comes one turn after its last, and never before the
turn that is being served now. So of a project that sends a hundred jobs, the hundredth waits; a project that sends one
meanwhile is served after the turn in hand, and not after the hundred. With one project it is first come, first served.
(It is start-time fair queueing, each job counting as much as any other.)
"""

from typing import Any

from sqlalchemy import CompoundSelect, Connection, Select, and_, bindparam, func, or_, select, union_all

from pegbox.queue.states import QueuedJob, Status
from pegbox.storage.kept import kept
from pegbox.storage.tables import jobs

TRAINING = (Status.RUNNING, Status.PAUSING)
_SERVED = (*TRAINING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
_FULL = (
    select(jobs.c.project_id)
    .where(jobs.c.status.in_(TRAINING))
    .group_by(jobs.c.project_id)
    .having(func.count() >= bindparam("most"))
)


def next_turn(tx: Connection, project_id: str) -> int:
    """The turn of a new job of the project."""
    highest = [turn or 0 for turn in tx.execute(_turns(), {"of": project_id}).scalars()]
    return max(highest) + 1


def full_projects(tx: Connection, most: int) -> tuple[str, ...]:
    """Projects of which `most` jobs are in training already; none are full where `most` is 0."""
    return tuple(tx.execute(_FULL, {"most": most}).scalars()) if most else ()


def position(tx: Connection, job: QueuedJob) -> int | None:
    """The job's place in the queue, from 1; None where it does not wait in it."""
    if job.status != Status.QUEUED:
        return None
    seq = select(jobs.c.seq).where(jobs.c.id == job.id).scalar_subquery()
    sooner = or_(jobs.c.turn < job.turn, and_(jobs.c.turn == job.turn, jobs.c.seq < seq))
    ahead = select(func.count()).where(jobs.c.status == Status.QUEUED, sooner)
    return int(tx.execute(ahead).scalar_one()) + 1


@kept
def _turns() -> CompoundSelect[Any]:
    """The project's highest turn, and those that were served."""
    of_project = select(func.max(jobs.c.turn)).where(jobs.c.project_id == bindparam("of"))
    # One look into the index a status: a maximum over all of them at once would read every job that ever was.
    return union_all(of_project, *(select(_highest(status).scalar_subquery()) for status in _SERVED))


def _highest(status: Status) -> Select[tuple[int]]:
    return select(jobs.c.turn).where(jobs.c.status == status).order_by(jobs.c.turn.desc()).limit(1)
