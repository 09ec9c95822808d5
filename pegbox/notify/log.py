"""What became of the events that were sent to an endpoint."""

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import ColumnElement, FromClause, select

from pegbox.notify.endpoints import event_type
from pegbox.queue.outbox import Ending
from pegbox.queue.states import Status
from pegbox.storage.db import Database
from pegbox.storage.paging import Slice, fetch, paged
from pegbox.storage.tables import deliveries, delivery_attempts, outbox


@dataclass(frozen=True, slots=True)
class Attempt:
    created_at: int
    milliseconds: int
    status_code: int | None
    error: str | None  # None = delivered


@dataclass(frozen=True, slots=True)
class Told:
    """One event for one endpoint, with all attempts at it, oldest first."""

    id: str
    event_id: str
    event_type: str
    job_id: str
    created_at: int
    delivered: bool
    next_attempt_at: int | None  # None = it is over
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """The owner of deliveries."""

    id: str

    def owns(self, table: FromClause) -> ColumnElement[bool]:
        mine: ColumnElement[bool] = table.c.endpoint_id == self.id
        return mine


def list_deliveries(db: Database, endpoint_id: str, *, after: str | None, limit: int) -> Slice[Told]:
    """Newest first. The caller knows that the endpoint is its own."""
    about = (outbox.c.event_id, outbox.c.job_id, outbox.c.kind, outbox.c.created_at)
    query = select(deliveries, *about).join(outbox, outbox.c.seq == deliveries.c.outbox_seq)
    with db.read() as tx:
        owner = _Endpoint(endpoint_id)
        statement = paged(owner, query, deliveries.c.seq, deliveries.c.id, follows=after is not None)
        page = fetch(tx, statement, after, limit)
        names = [row.id for row in page.items]
        tried = select(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(names))
        attempts: dict[str, list[Attempt]] = defaultdict(list)
        for row in tx.execute(tried.order_by(delivery_attempts.c.seq)):
            attempts[row.delivery_id].append(Attempt(row.created_at, row.milliseconds, row.status_code, row.error))
    told = [
        Told(
            id=row.id,
            event_id=row.event_id,
            event_type=event_type(Ending(row.outbox_seq, row.event_id, row.job_id, Status(row.kind), row.created_at)),
            job_id=row.job_id,
            created_at=row.created_at,
            delivered=row.delivered_at is not None,
            next_attempt_at=None if row.not_before is None else int(row.not_before),
            attempts=tuple(attempts[row.id]),
        )
        for row in page.items
    ]
    return Slice(told, page.has_more)
