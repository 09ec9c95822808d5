"""What is to be told, and to whom. An ending is put in the transaction that ends its job; routing it writes a
delivery for each receiver; a delivery is attempted until it works or a day is over. At least once: who crashes between
sending and noting it sends again."""

import random
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from pegbox import ids
from pegbox.queue.states import Status
from pegbox.storage.db import Database
from pegbox.storage.tables import deliveries, delivery_attempts, outbox

# Seconds from the first attempt to each of the next, as Standard Webhooks suggests.
SCHEDULE = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
WAITS = tuple(float(later - earlier) for earlier, later in pairwise(SCHEDULE))
_JITTER = 0.1  # each wait is up to this share shorter or longer, so that not all come at once
HOLD_SECONDS = 60.0  # whoever takes a delivery and does not come back loses it after this
_LONGEST_ERROR = 500
_PRUNED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Ending:
    """A job's end, to be told."""

    seq: int
    event_id: str  # evt_…: the same at every attempt and for every receiver
    job_id: str
    status: Status
    created_at: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One ending for one receiver, taken to be attempted now."""

    id: str
    endpoint_id: str | None  # None = by mail
    attempts: int  # that failed so far
    ending: Ending


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went."""

    milliseconds: int
    error: str | None = None  # None = delivered
    status_code: int | None = None
    final: bool = False  # the receiver wants no more of it


# The receivers of an ending: ids of endpoints, and None for mail.
Receivers = Callable[[Connection, Ending], Iterable[str | None]]


def put(tx: Connection, job_id: str, status: Status) -> None:
    values = {"event_id": ids.mint("told"), "job_id": job_id, "kind": status, "created_at": int(time.time())}
    tx.execute(insert(outbox).values(**values))


def route(db: Database, receivers: Receivers) -> int:
    """Write the deliveries of endings that have none yet. Returns how many endings that were."""
    with db.read() as tx:
        waiting = select(outbox).where(outbox.c.routed_at.is_(None)).order_by(outbox.c.seq).limit(100)
        found = [_ending(row) for row in tx.execute(waiting)]
    for ending in found:
        with db.write() as tx:
            unrouted = (outbox.c.seq == ending.seq) & outbox.c.routed_at.is_(None)
            if not tx.execute(update(outbox).where(unrouted).values(routed_at=int(time.time()))).rowcount:
                continue  # another server was first
            for endpoint_id in receivers(tx, ending):
                _add(tx, ending, endpoint_id)
    return len(found)


def claim(db: Database, busy: Collection[str | None], most: int) -> list[Delivery]:
    """Take deliveries that are due, oldest first: one a receiver, none for the receivers in `busy`."""
    now = time.time()
    place = func.row_number().over(partition_by=deliveries.c.endpoint_id, order_by=deliveries.c.not_before)
    queued = select(deliveries, place.label("place")).where(deliveries.c.not_before <= now).subquery()
    first = select(queued, outbox).join(outbox, outbox.c.seq == queued.c.outbox_seq).where(queued.c.place == 1)
    with db.read() as tx:
        rows = tx.execute(first.order_by(queued.c.not_before)).all()
    taken: list[Delivery] = []
    for row in [row for row in rows if row.endpoint_id not in busy][:most]:
        unchanged = (deliveries.c.id == row.id) & (deliveries.c.not_before == row.not_before)
        with db.write() as tx:
            if tx.execute(update(deliveries).where(unchanged).values(not_before=now + HOLD_SECONDS)).rowcount:
                taken.append(Delivery(row.id, row.endpoint_id, row.attempts, _ending(row)))
    return taken


def note(db: Database, delivery: Delivery, outcome: Outcome, waits: tuple[float, ...] = WAITS) -> None:
    """Write down an attempt, and when the next one is, if there is to be one."""
    now = time.time()
    values: dict[str, object] = {"attempts": delivery.attempts + 1, "not_before": None}
    if outcome.error is None:
        values["delivered_at"] = int(now)
    elif delivery.attempts < len(waits) and not outcome.final:
        share = 1 + random.SystemRandom().uniform(-_JITTER, _JITTER)
        values["not_before"] = now + waits[delivery.attempts] * share
    error = None if outcome.error is None else outcome.error[:_LONGEST_ERROR]
    tried = {"delivery_id": delivery.id, "created_at": int(now), "milliseconds": outcome.milliseconds}
    with db.write() as tx:
        if tx.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(**values)).rowcount:
            tx.execute(insert(delivery_attempts).values(**tried, status_code=outcome.status_code, error=error))


def prune(db: Database, before: float) -> int:
    """Forget endings of before that moment (unix seconds) with all that was sent of them, a few at a time so that
    nobody waits long. What is still to be sent is kept. Returns how many."""
    waiting = select(deliveries.c.outbox_seq).where(deliveries.c.not_before.is_not(None))
    old = (outbox.c.created_at < before) & outbox.c.routed_at.is_not(None) & outbox.c.seq.not_in(waiting)
    forgotten = 0
    while True:
        with db.write() as tx:
            some = tx.execute(select(outbox.c.seq).where(old).order_by(outbox.c.seq).limit(_PRUNED_AT_ONCE)).scalars()
            gone = list(some)
            tx.execute(delete(deliveries).where(deliveries.c.outbox_seq.in_(gone)))
            tx.execute(delete(outbox).where(outbox.c.seq.in_(gone)))
        forgotten += len(gone)
        if len(gone) < _PRUNED_AT_ONCE:
            return forgotten


def drop(tx: Connection, endpoint_id: str) -> None:
    """No further attempt for this receiver."""
    waiting = (deliveries.c.endpoint_id == endpoint_id) & deliveries.c.not_before.is_not(None)
    tx.execute(update(deliveries).where(waiting).values(not_before=None))


def _add(tx: Connection, ending: Ending, endpoint_id: str | None) -> None:
    values = {"id": ids.mint("delivery"), "outbox_seq": ending.seq, "endpoint_id": endpoint_id}
    tx.execute(insert(deliveries).values(**values, attempts=0, not_before=time.time()))


def _ending(row: Row[Any]) -> Ending:
    seq = row._mapping[outbox.c.seq]  # noqa: SLF001 - SQLAlchemy's name for reading a row by column
    return Ending(seq, row.event_id, row.job_id, Status(row.kind), row.created_at)
