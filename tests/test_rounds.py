"""What a server forgets by itself: endings that were told long ago, keys of repeated calls, expired files. And what never."""

import time
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update

from pegbox.adapters import Adapters
from pegbox.auth.access import Access
from pegbox.auth.keys import Keys
from pegbox.catalog.models import Catalog
from pegbox.files import Files
from pegbox.jobs.repeats import KEPT_SECONDS
from pegbox.jobs.submit import Desk
from pegbox.queue import outbox, store
from pegbox.queue.outbox import Outcome
from pegbox.queue.states import Status
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import audit, deliveries, delivery_attempts, events, idempotency, metadata
from pegbox.storage.tables import outbox as endings
from pegbox.upkeep.rounds import DAY_SECONDS, Rounds, prune

KEPT_DAYS = 30


@pytest.fixture
def desk(db: Database, tmp_path: Path) -> Desk:
    blobs = Blobs(tmp_path / "blobs")
    return Desk(db, Files(db, blobs), Adapters(db, blobs), Catalog(tmp_path / "models"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, keep_deliveries_days=KEPT_DAYS)


def end(db: Database, name: str, *, days_ago: float) -> None:
    """A job that ended then, of which one mail is to be sent."""
    with db.write() as tx:
        store.enqueue(tx, DEFAULT, name)
        job = store.get(tx, name)
        store.move(tx, job, Status.CANCELLED, because=store.Event("ended", "Cancelled"))
        mine = endings.c.job_id == name
        tx.execute(update(endings).where(mine).values(created_at=int(time.time() - days_ago * DAY_SECONDS)))
    outbox.route(db, lambda _tx, _ending: [None])


def tell(db: Database) -> None:
    """Deliver what is due, at the first attempt."""
    while due := outbox.claim(db, (), 8):
        for delivery in due:
            outbox.note(db, delivery, Outcome(1))


def told_of(db: Database) -> list[str]:
    with db.read() as tx:
        return list(tx.execute(select(endings.c.job_id).order_by(endings.c.seq)).scalars())


def count(db: Database, table: object) -> int:
    with db.read() as tx:
        return tx.execute(select(func.count()).select_from(table)).scalar_one()


def test_endings_that_were_told_long_ago_are_forgotten(desk: Desk, settings: Settings) -> None:
    for number in range(250):  # more than go at once
        end(desk.db, f"old-{number}", days_ago=KEPT_DAYS + 1)
    end(desk.db, "young", days_ago=KEPT_DAYS - 1)
    tell(desk.db)
    end(desk.db, "old, and to be told", days_ago=KEPT_DAYS + 1)
    with desk.db.write() as tx:  # an ending that nobody has looked at yet
        outbox.put(tx, "old, and not routed", Status.FAILED)
        tx.execute(update(endings).where(endings.c.job_id == "old, and not routed").values(created_at=1))
    before = count(desk.db, events)
    prune(desk, settings, time.time())
    assert told_of(desk.db) == ["young", "old, and to be told", "old, and not routed"]
    assert (count(desk.db, deliveries), count(desk.db, delivery_attempts)) == (2, 1)
    assert count(desk.db, events) == before, "a job's story stays"


def test_a_setting_of_zero_keeps_them(desk: Desk, settings: Settings) -> None:
    end(desk.db, "old", days_ago=10_000)
    tell(desk.db)
    prune(desk, settings.model_copy(update={"keep_deliveries_days": 0}), time.time())
    assert told_of(desk.db) == ["old"]


def test_keys_of_repeated_calls_are_kept_for_a_day(desk: Desk, settings: Settings) -> None:
    now = int(time.time())
    end(desk.db, "job", days_ago=0)
    with desk.db.write() as tx:
        for key, age in (("old", KEPT_SECONDS), ("young", KEPT_SECONDS - 60)):
            values = {"key": key, "request_sha256": "", "job_id": "job", "created_at": now - age}
            tx.execute(insert(idempotency).values(project_id=DEFAULT.project_id, **values))
    prune(desk, settings, now)
    with desk.db.read() as tx:
        assert list(tx.execute(select(idempotency.c.key)).scalars()) == ["young"]


def test_the_audit_log_is_kept_for_good(desk: Desk, settings: Settings) -> None:
    Keys(desk.db).mint(None, DEFAULT, "a", Access.READ)
    with desk.db.write() as tx:
        tx.execute(update(audit).values(effective_at=1))
    prune(desk, settings, time.time() + 100 * 365 * DAY_SECONDS)
    assert count(desk.db, audit) == 1


def test_the_first_round_is_made_at_the_start(desk: Desk, settings: Settings) -> None:
    end(desk.db, "old", days_ago=KEPT_DAYS + 1)
    tell(desk.db)
    rounds = Rounds(desk, settings)
    rounds.start()
    deadline = time.monotonic() + 30
    while told_of(desk.db):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert rounds.alive
    rounds.close()
    assert not rounds.alive


def test_every_table_is_spoken_for() -> None:
    """Whoever adds a table says here whether its rows go away by themselves."""
    with_age = {"outbox", "deliveries", "delivery_attempts", "idempotency", "files"}
    for_good = {"audit", "job_events", "jobs", "tunings", "checkpoints", "adapters", "projects", "api_keys"}
    assert {table.name for table in metadata.sorted_tables} == with_age | for_good | {"webhook_endpoints"}
