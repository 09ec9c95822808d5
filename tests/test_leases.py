"""Leases that fence themselves, setbacks, and whose turn it is."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from pegbox.errors import LostRace, Setback
from pegbox.queue import store, turns
from pegbox.queue.lease import FENCE_SECONDS, Lease
from pegbox.queue.states import QueuedJob, Status
from pegbox.queue.store import BACK_OFF, LEASE_SECONDS
from pegbox.queue.worker import Rules, Worker
from pegbox.storage.db import Database, now
from pegbox.storage.scope import Scope
from pegbox.storage.tables import events, jobs

RUNS = (Status.QUEUED, Status.RUNNING, Status.PAUSING)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class CutOff:
    """A database that can't be reached."""

    @contextmanager
    def touch(self) -> Iterator[Connection]:
        raise OperationalError("", {}, Exception("no route"))
        yield


def add(db: Database, name: str, project: str = "proj_default", *steps: Status) -> QueuedJob:
    with db.write() as tx:
        store.enqueue(tx, Scope(project), name)
        job = store.get(tx, name)
        for step in steps:
            job = store.move(tx, job, step)
    return job


def get(db: Database, name: str) -> QueuedJob:
    with db.read() as tx:
        return store.get(tx, name)


def claim(db: Database, **options: object) -> QueuedJob | None:
    return store.claim(db, RUNS, **options)


def expire(db: Database, name: str) -> None:
    with db.write() as tx:
        tx.execute(update(jobs).where(jobs.c.id == name).values(lease_until=now() - 1))


def waits(db: Database, name: str) -> float:
    """Seconds until it may be claimed."""
    with db.read() as tx:
        return tx.execute(select(jobs.c.not_before - now()).where(jobs.c.id == name)).scalar_one()


# --- the fence -----------------------------------------------------------------------------------------------


def test_the_fence_leaves_time_to_kill_in() -> None:
    assert 0 < FENCE_SECONDS <= LEASE_SECONDS - 5


def test_a_worker_without_heartbeats_gives_up_before_its_lease_is_over(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    clock = Clock()
    job = claim(db)
    lease = Lease(CutOff(), job, threading.Event(), clock=clock)
    clock.now = FENCE_SECONDS - 0.1
    assert lease.beat() == job, "a database that is away for a moment is borne"
    clock.now = FENCE_SECONDS
    with pytest.raises(LostRace):
        lease.beat()
    assert lease.lost


def test_a_heartbeat_moves_the_fence_from_when_it_was_asked_for(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    clock = Clock()
    lease = Lease(db, claim(db), threading.Event(), clock=clock, since=-5.0)
    clock.now = FENCE_SECONDS - 5.1
    lease.beat()
    clock.now += FENCE_SECONDS - 0.1
    lease.beat()
    clock.now += FENCE_SECONDS
    assert lease.lost
    with pytest.raises(LostRace):
        lease.beat()


def test_an_answer_that_comes_too_late_is_none(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    clock = Clock()

    class Slow:
        @contextmanager
        def touch(self) -> Iterator[Connection]:
            with db.touch() as tx:
                yield tx
            clock.now += FENCE_SECONDS

    lease = Lease(Slow(), claim(db), threading.Event(), clock=clock)
    with pytest.raises(LostRace):
        lease.beat()


def test_the_guard_kills_though_the_worker_hangs(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    clock, killed = Clock(), threading.Event()
    lease = Lease(db, claim(db), threading.Event(), clock=clock)
    with lease.guarded(killed.set):
        assert not killed.wait(0.05)
        clock.now = FENCE_SECONDS
        assert killed.wait(10)


# --- setbacks ------------------------------------------------------------------------------------------------


def test_each_setback_in_a_row_waits_longer(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    for number, wait in enumerate((*BACK_OFF, BACK_OFF[-1]), start=1):
        with db.write() as tx:
            tx.execute(update(jobs).values(not_before=None))
        job = claim(db)
        with db.write() as tx:
            store.set_back(tx, job, "It broke off.")
        assert get(db, "j").setbacks == number
        assert wait - 5 < waits(db, "j") <= wait
        if wait:
            assert claim(db) is None
    with db.read() as tx:
        told = tx.execute(select(events.c.level, events.c.message).order_by(events.c.seq)).all()
    assert told[0] == ("warn", "It broke off. The job goes on at once from where it was last saved.")
    assert told[1] == ("warn", "It broke off. The job goes on in 2 seconds from where it was last saved.")
    assert len(told) == len(BACK_OFF) + 1


def test_what_is_given_back_in_order_is_no_setback(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    for _ in range(20):
        job = claim(db)
        with db.write() as tx:
            store.give_back(tx, job)
    assert (get(db, "j").setbacks, get(db, "j").attempt) == (0, 20)


def test_a_lease_that_ran_out_is_a_setback_and_progress_forgets_them(db: Database) -> None:
    add(db, "j", "proj_default", Status.QUEUED)
    for setbacks in range(3):
        job = claim(db)
        assert job.setbacks == setbacks
        expire(db, "j")
    with db.write() as tx:
        store.progress(tx, job)
    assert get(db, "j").setbacks == 0
    assert claim(db).setbacks == 1
    with db.write() as tx:
        store.progress(tx, job)
    assert get(db, "j").setbacks == 1, "a stale worker reports nothing"


def test_a_job_that_breaks_its_worker_again_and_again_fails_at_last(db: Database) -> None:
    add(db, "j")
    with db.write() as tx:
        tx.execute(update(jobs).values(setbacks=2, lease_token="dead", lease_until=now() - 1))
    worker = Worker(
        db, [Status.VALIDATING], lambda *_: pytest.fail("it was handled"), name="w", rules=Rules(attempts=3)
    )
    worker.start()
    until_final(db)
    worker.close()
    job = get(db, "j")
    assert job.status == Status.FAILED
    assert "broke off 3 times in a row" in job.failure.message


def test_a_handler_may_ask_for_another_attempt(db: Database) -> None:
    add(db, "j")
    tried: list[int] = []

    def handle(job: QueuedJob, _: Lease) -> None:
        tried.append(job.setbacks)
        if len(tried) == 1:
            raise Setback("The folder was busy.")
        with db.write() as tx:
            store.move(tx, job, Status.CANCELLED)

    worker = Worker(db, [Status.VALIDATING], handle, name="w")
    worker.start()
    until_final(db)
    worker.close()
    assert tried == [0, 1]


@pytest.mark.parametrize(
    ("error", "code"), [(errno.EIO, None), (errno.ENOSPC, "insufficient_storage"), (errno.ENOENT, "server_error")]
)
def test_what_the_machine_refuses_is_tried_again_where_it_may_pass(db: Database, error: int, code: str | None) -> None:
    """A disk that errs may be well again; a full one is not before somebody makes room; a missing file is our bug."""
    add(db, "j")
    tried: list[int] = []

    def handle(job: QueuedJob, _: Lease) -> None:
        tried.append(job.setbacks)
        if len(tried) == 1:
            raise OSError(error, os.strerror(error))
        with db.write() as tx:
            store.move(tx, job, Status.CANCELLED)

    worker = Worker(db, [Status.VALIDATING], handle, name="w")
    worker.start()
    until_final(db)
    worker.close()
    assert tried == ([0] if code else [0, 1])
    failure = get(db, "j").failure
    assert (failure.code if failure else None) == code


def until_final(db: Database) -> None:
    done = threading.Event()
    for _ in range(2000):
        if get(db, "j").status in (Status.FAILED, Status.CANCELLED):
            return
        done.wait(0.01)
    raise AssertionError(get(db, "j"))


# --- turns ---------------------------------------------------------------------------------------------------


def test_a_project_that_sends_many_does_not_keep_out_one_that_sends_one(db: Database) -> None:
    for i in range(5):
        add(db, f"a{i}", "a", Status.QUEUED)
    taken = [claim(db).id for _ in range(2)]
    for i in range(2):
        add(db, f"b{i}", "b", Status.QUEUED)
    add(db, "c0", "proj_default", Status.QUEUED)
    with db.write() as tx:
        for name in taken:
            store.move(tx, store.get(tx, name), Status.RUNNING, keep_lease=True)
    add(db, "d0", "d", Status.QUEUED)
    assert taken == ["a0", "a1"]
    order = []
    while job := claim(db):
        order.append(job.id)
    assert order == ["b0", "c0", "b1", "a2", "d0", "a3", "a4"], "two of a's, then two of b's, then in turns"


def test_one_project_is_first_come_first_served(db: Database) -> None:
    for i in range(4):
        add(db, f"j{i}", "proj_default", Status.QUEUED)
    assert [claim(db).id for _ in range(4)] == ["j0", "j1", "j2", "j3"]


def test_a_project_has_no_more_in_training_than_it_may(db: Database) -> None:
    for name, project in (("a0", "a"), ("a1", "a"), ("n0", "n"), ("n1", "n"), ("b0", "b")):
        add(db, name, project, Status.QUEUED)
    for _ in range(3):
        job = claim(db, project_jobs=1)
        with db.write() as tx:
            store.move(tx, job, Status.RUNNING, keep_lease=True)
    assert claim(db, project_jobs=1) is None
    assert claim(db, project_jobs=2) is not None
    expire(db, "a0")
    assert claim(db, project_jobs=1).id == "a0", "what is in training already goes on"


def test_the_place_in_the_queue(db: Database) -> None:
    for name, project in (("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b")):
        add(db, name, project, Status.QUEUED)
    add(db, "new", "a")

    def places() -> dict[str, int | None]:
        with db.read() as tx:
            return {name: turns.position(tx, store.get(tx, name)) for name in ("a0", "a1", "a2", "b0", "new")}

    assert places() == {"a0": 1, "b0": 2, "a1": 3, "a2": 4, "new": None}
    with db.write() as tx:
        store.move(tx, store.get(tx, "b0"), Status.CANCELLED)
        store.move(tx, store.get(tx, "a0"), Status.RUNNING)
    assert places() == {"a0": None, "b0": None, "a1": 1, "a2": 2, "new": None}
