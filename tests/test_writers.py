"""Who may write when: one at a time, a heartbeat past those who wait; and what they share is one commit."""

import threading
from collections.abc import Callable

import pytest
from conftest import only_postgres, only_sqlite
from following import wait_for
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from pegbox import metrics
from pegbox.errors import StorageBroken
from pegbox.storage import group
from pegbox.storage.db import UNREACHABLE, Database
from pegbox.storage.tables import checkpoints, jobs
from pegbox.storage.trouble import trouble


@only_sqlite
def test_a_heartbeat_does_not_wait_in_line(db: Database) -> None:
    """On a slow disk a line of writers takes longer than a lease is long."""
    served: list[str] = []
    asking: set[str] = set()

    def write(name: str) -> None:
        asking.add(name)
        with (db.touch if name == "heartbeat" else db.write)() as tx:
            tx.execute(select(jobs.c.seq)).all()
            served.append(name)

    crowd = [threading.Thread(target=write, args=[str(number)]) for number in range(20)]
    heartbeat = threading.Thread(target=write, args=["heartbeat"])
    with db.write():
        for one in crowd:
            one.start()
        wait_for(lambda: len(asking) == len(crowd), "the line to form", 10)
        heartbeat.start()
        wait_for(lambda: "heartbeat" in asking, "the heartbeat to ask", 10)
    for one in (*crowd, heartbeat):
        one.join()
    assert len(served) == len(crowd) + 1
    assert served.index("heartbeat") <= 3, served  # the kernel may wake the first of the line before it


@only_postgres
def test_who_slept_in_a_transaction_has_lost_the_database_and_nothing_else(db: Database) -> None:
    """PostgreSQL ended its session, so that others can write. That is a setback for a job, and not its failure."""

    def is_there(session: int) -> bool:
        with db.read() as tx:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :session")
            return bool(tx.execute(query, {"session": session}).scalar_one())

    def sleep() -> None:
        with db.write() as tx:
            session = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            wait_for(lambda: not is_there(session), "the session to be ended", 30)
            tx.execute(select(jobs.c.seq))

    with pytest.raises(UNREACHABLE) as ended:
        sleep()
    assert isinstance(trouble(ended.value), StorageBroken)
    with db.write() as tx:
        assert tx.execute(select(jobs.c.seq)).all() == []


Block = Callable[[Connection], object]


def add(name: str) -> Block:
    return lambda tx: tx.execute(insert(jobs).values(id=name, status="queued", created_at=1, attempt=1))


def names(db: Database) -> set[str]:
    with db.read() as tx:
        return set(tx.execute(select(jobs.c.id)).scalars())


def commits() -> float:
    found = metrics.REGISTRY.get_sample_value("pegbox_db_commit_seconds_count")
    assert found is not None
    return found


@pytest.fixture
def together(db: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, dict[str, Exception]]]:
    """Run blocks that wait for each other, first to last; how often was committed, and what each of them raised."""
    monkeypatch.setattr(group, "_MOST_SECONDS", 60)

    def run(**blocks: Block) -> tuple[int, dict[str, Exception]]:
        raised: dict[str, Exception] = {}
        turns = {name: threading.Event() for name in blocks}
        first = next(iter(turns.values()))

        def write(name: str, block: Block, mine: threading.Event, next_: threading.Event | None) -> None:
            try:
                mine.wait()
                with db.write() as tx:
                    if next_ is not None:
                        next_.set()
                        wait_for(lambda: db._group._waiting > 0, "the next to wait", 10)
                    block(tx)
            except Exception as error:  # noqa: BLE001 - told to the test
                raised[name] = error

        order = [*turns.values(), None]
        crowd = [
            threading.Thread(target=write, args=(name, block, order[i], order[i + 1]))
            for i, (name, block) in enumerate(blocks.items())
        ]
        before = commits()
        db._group._flush_seconds = 60  # a very slow disk
        for one in crowd:
            one.start()
        first.set()
        for one in crowd:
            one.join(30)
        return round(commits() - before), raised

    return run


def test_who_waits_for_each_other_shares_a_commit(db: Database, together) -> None:
    assert together(a=add("a"), b=add("b"), c=add("c")) == (1, {})
    assert names(db) == {"a", "b", "c"}


@pytest.mark.parametrize("at", ["a", "b", "c"])
def test_a_block_that_fails_takes_nothing_of_the_others_with_it(db: Database, together, at: str) -> None:
    def fail(tx: Connection) -> None:
        add("gone")(tx)
        raise ValueError("no")

    blocks: dict[str, Block] = {name: add(name) for name in "abc"}
    _, raised = together(**{**blocks, at: fail})
    assert {name: type(error) for name, error in raised.items()} == {at: ValueError}
    assert names(db) == set("abc") - {at}


def test_a_row_that_is_refused_costs_the_others_nothing(db: Database, together) -> None:
    done, raised = together(a=add("a"), b=add("a"), c=add("c"))
    assert (done, {name: type(error) for name, error in raised.items()}) == (1, {"b": IntegrityError})
    assert names(db) == {"a", "c"}


@only_sqlite
def test_a_commit_that_fails_fails_for_all(db: Database, together) -> None:
    def of_no_job(tx: Connection) -> None:
        tx.execute(text("PRAGMA defer_foreign_keys=ON"))
        values = {"id": "c", "project_id": "proj_default", "job_id": "none", "step": 1, "created_at": 1, "model": "m"}
        tx.execute(insert(checkpoints).values(**values, metrics={}))

    done, raised = together(a=add("a"), b=of_no_job, c=add("c"))
    assert (done, {name: type(error) for name, error in raised.items()}) == (0, dict.fromkeys("abc", IntegrityError))
    assert names(db) == set()
    assert together(a=add("a")) == (1, {}), "and the next goes on"


@pytest.mark.parametrize("and_says_so", [True, False])
def test_a_database_that_ends_the_transaction_fails_all_who_were_in_it(
    db: Database, together, *, and_says_so: bool
) -> None:
    """As SQLite does by itself on a full disk; what comes after must not be taken for transactions of its own."""

    def be_ended(tx: Connection) -> None:
        raw = tx.connection.dbapi_connection
        assert raw is not None
        raw.rollback()
        if and_says_so:
            raise DBAPIError("INSERT", {}, Exception("database or disk is full"))

    done, raised = together(a=add("a"), b=be_ended, c=add("c"))
    assert {"a", "b"} == raised.keys()
    assert all(isinstance(error, DBAPIError) for error in raised.values())
    if and_says_so:
        assert "disk is full" in str(raised["a"])
    assert (done, names(db)) == (1, {"c"})
