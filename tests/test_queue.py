"""The queue: every move, every race, every lease."""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, Table, delete, select, update

from pegbox.errors import IllegalMove, JobFailure, LostRace
from pegbox.queue import outbox, store
from pegbox.queue.lease import Lease
from pegbox.queue.outbox import Ending, Outcome
from pegbox.queue.states import MOVES, Failure, QueuedJob, Status, diagram, is_final
from pegbox.queue.store import LEASE_SECONDS, Event
from pegbox.queue.worker import Worker
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import deliveries, delivery_attempts, events, jobs
from pegbox.storage.tables import outbox as outbox_table

ALLOWED = {
    ("validating_files", "queued"), ("validating_files", "failed"), ("validating_files", "cancelled"),
    ("queued", "running"), ("queued", "failed"), ("queued", "cancelled"),
    ("running", "succeeded"), ("running", "failed"), ("running", "cancelled"),
    ("validating_files", "paused"), ("queued", "paused"), ("running", "pausing"),
    ("pausing", "paused"), ("pausing", "succeeded"), ("pausing", "failed"), ("pausing", "cancelled"),
    ("paused", "validating_files"), ("paused", "queued"), ("paused", "cancelled"),
}  # fmt: skip
WAY_TO = {
    Status.VALIDATING: [],
    Status.QUEUED: [Status.QUEUED],
    Status.RUNNING: [Status.QUEUED, Status.RUNNING],
    Status.PAUSING: [Status.QUEUED, Status.RUNNING, Status.PAUSING],
    Status.PAUSED: [Status.PAUSED],
    Status.SUCCEEDED: [Status.QUEUED, Status.RUNNING, Status.SUCCEEDED],
    Status.FAILED: [Status.FAILED],
    Status.CANCELLED: [Status.CANCELLED],
}


def enqueue(db: Database, *names: str) -> None:
    with db.write() as tx:
        for name in names:
            store.enqueue(tx, DEFAULT, name)


def get(db: Database, name: str) -> QueuedJob:
    with db.read() as tx:
        job = store.get(tx, name)
    assert job is not None
    return job


def told(db: Database, name: str) -> list[tuple[str, str, str]]:
    with db.read() as tx:
        rows = tx.execute(select(events).where(events.c.job_id == name).order_by(events.c.seq))
        return [(row.key, row.level, row.message) for row in rows]


def endings(db: Database) -> list[tuple[str, str]]:
    with db.read() as tx:
        return [(row.job_id, row.kind) for row in tx.execute(select(outbox_table).order_by(outbox_table.c.seq))]


def at(db: Database, status: Status, name: str = "j") -> QueuedJob:
    enqueue(db, name)
    job = get(db, name)
    for step in WAY_TO[status]:
        with db.write() as tx:
            job = store.move(tx, job, step)
    return job


# --- moves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("here", list(Status))
def test_every_pair_of_statuses(db: Database, here: Status) -> None:
    for there in Status:
        name = f"to-{there}"
        job = at(db, here, name)
        before = endings(db)
        if (here, there) in ALLOWED:
            with db.write() as tx:
                moved = store.move(tx, job, there, because=Event("why", "because"))
            assert moved == get(db, name)
            assert moved.status == there
            assert (moved.finished_at is not None) == is_final(there) == (there in ("succeeded", "failed", "cancelled"))
            assert (moved.started_at is not None) == (there == "running" or here in ("running", "pausing"))
            assert told(db, name) == [("why", "info", "because")]
            assert endings(db) == before + ([(name, there)] if is_final(there) else [])
        else:
            with pytest.raises(IllegalMove), db.write() as tx:
                store.move(tx, job, there, because=Event("why", "because"))
            assert get(db, name) == job
            assert told(db, name) == []
            assert endings(db) == before


def test_the_table_of_moves_is_the_designs() -> None:
    assert {(a, b) for a, targets in MOVES.items() for b in targets} == ALLOWED
    assert set(MOVES) == set(Status)


def test_the_diagram_has_every_arrow_and_no_other() -> None:
    head, *lines = diagram().splitlines()
    assert head == "stateDiagram-v2"
    arrows = [tuple(re.fullmatch(r"    (\S+) --> (\S+)", line).groups()) for line in lines]
    ends = {(status, "[*]") for status in ("succeeded", "failed", "cancelled")}
    assert sorted(arrows) == sorted(ALLOWED | ends | {("[*]", "validating_files")})


def test_a_failure_is_kept(db: Database) -> None:
    job = at(db, Status.RUNNING)
    with db.write() as tx:
        store.move(tx, job, Status.FAILED, failure=Failure("bad", "It broke.", "training_file"))
    assert get(db, "j").failure == Failure("bad", "It broke.", "training_file")


def test_a_rolled_back_move_leaves_nothing(db: Database) -> None:
    job = at(db, Status.RUNNING)

    def half() -> None:
        with db.write() as tx:
            store.move(tx, job, Status.SUCCEEDED, because=Event("ended", "Done"))
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        half()
    assert get(db, "j") == job
    assert told(db, "j") == []
    assert endings(db) == []


def test_of_two_who_end_a_job_one_loses(db: Database) -> None:
    job = at(db, Status.RUNNING)
    with db.write() as tx:
        store.move(tx, job, Status.CANCELLED)
    with pytest.raises(LostRace), db.write() as tx:
        store.move(tx, job, Status.SUCCEEDED)
    assert get(db, "j").status == Status.CANCELLED
    assert endings(db) == [("j", "cancelled")]


# --- claims and leases ---------------------------------------------------------------------------------------


def claim(db: Database, *statuses: Status) -> QueuedJob | None:
    return store.claim(db, statuses or (Status.VALIDATING,))


def expire(db: Database, name: str) -> None:
    with db.write() as tx:
        tx.execute(update(jobs).where(jobs.c.id == name).values(lease_until=time.time() - 0.001))


def test_the_oldest_job_is_claimed_first(db: Database) -> None:
    enqueue(db, "z", "a", "m")
    assert [claim(db).id for _ in range(3)] == ["z", "a", "m"]
    assert claim(db) is None


def test_a_pause_left_half_done_is_claimed_first_and_a_resumed_job_keeps_its_place(db: Database) -> None:
    for name in ("a", "b", "c"):
        at(db, Status.QUEUED, name)
    at(db, Status.RUNNING, "d")
    at(db, Status.PAUSING, "e")
    with db.write() as tx:
        paused = store.move(tx, get(db, "b"), Status.PAUSED)
    wanted = (Status.QUEUED, Status.RUNNING, Status.PAUSING)
    assert [claim(db, *wanted).id for _ in range(2)] == ["e", "a"]
    with db.write() as tx:
        store.move(tx, paused, Status.QUEUED)
    assert [claim(db, *wanted).id for _ in range(3)] == ["b", "c", "d"]
    assert claim(db, *wanted) is None


def test_only_the_asked_statuses_are_claimed(db: Database) -> None:
    at(db, Status.QUEUED)
    assert claim(db, Status.VALIDATING) is None
    assert claim(db, Status.VALIDATING, Status.QUEUED).id == "j"


def test_a_claim_holds_a_lease(db: Database) -> None:
    enqueue(db, "j")
    before = time.time()
    job = claim(db)
    assert job == get(db, "j")
    assert job.attempt == 1
    assert job.lease_token
    assert before + LEASE_SECONDS <= job.lease_until <= time.time() + LEASE_SECONDS


def test_eight_threads_claim_a_hundred_jobs_once_each(db: Database) -> None:
    names = [f"j{i}" for i in range(100)]
    enqueue(db, *names)
    together = threading.Barrier(8)

    def take_all(_: int) -> list[QueuedJob]:
        together.wait()
        return list(iter(lambda: claim(db), None))

    with ThreadPoolExecutor(8) as pool:
        taken = [job for found in pool.map(take_all, range(8)) for job in found]
    assert sorted(job.id for job in taken) == sorted(names)
    assert {job.attempt for job in taken} == {1}
    assert len({job.lease_token for job in taken}) == 100


def test_two_processes_on_one_database_claim_each_job_once(db: Database, where: Path | str) -> None:
    """Two connections that write, as those of two processes."""
    names = [f"j{i}" for i in range(40)]
    enqueue(db, *names)
    other = Database(where)
    with ThreadPoolExecutor(2) as pool:
        taken = [
            job.id for found in pool.map(lambda d: list(iter(lambda: claim(d), None)), (db, other)) for job in found
        ]
    other.close()
    assert sorted(taken) == sorted(names)


def test_an_expired_lease_is_claimed_again_and_the_first_worker_can_change_nothing(db: Database) -> None:
    enqueue(db, "j")
    first = claim(db)
    assert claim(db) is None
    expire(db, "j")
    second = claim(db)
    assert (second.attempt, second.lease_token != first.lease_token) == (2, True)
    with pytest.raises(LostRace), db.write() as tx:
        store.hold(tx, first)
    with pytest.raises(LostRace), db.write() as tx:
        store.move(tx, first, Status.QUEUED)
    assert get(db, "j") == second


def test_hold_prolongs(db: Database) -> None:
    enqueue(db, "j")
    job = claim(db)
    expire(db, "j")
    with db.write() as tx:
        store.hold(tx, job)
    assert get(db, "j").lease_until > time.time() + LEASE_SECONDS - 5
    assert claim(db) is None


def test_a_lease_is_kept_around_long_work(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.queue.lease.BEAT_SECONDS", 0.01)
    enqueue(db, "j")
    job = claim(db)
    lease = Lease(db, job, threading.Event())
    deadline = time.monotonic() + 30
    with lease.kept():
        while get(db, "j").lease_until == job.lease_until:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with db.write() as tx:
            store.move(tx, get(db, "j"), Status.CANCELLED)  # the beats end without a word; the next write finds out
    with pytest.raises(LostRace):
        lease.beat()


def test_hold_of_a_job_that_was_cancelled_is_lost(db: Database) -> None:
    enqueue(db, "j")
    job = claim(db)
    with db.write() as tx:
        store.move(tx, get(db, "j"), Status.CANCELLED)
    with pytest.raises(LostRace), db.write() as tx:
        store.hold(tx, job)


def test_hold_shows_the_job_as_it_stands(db: Database) -> None:
    at(db, Status.RUNNING)
    job = claim(db, Status.RUNNING)
    with db.write() as tx:
        store.move(tx, get(db, "j"), Status.PAUSING, keep_lease=True)
    with db.write() as tx:
        assert store.hold(tx, job).status == Status.PAUSING
    assert claim(db, Status.PAUSING) is None, "its worker has it still"


def test_hold_of_a_job_that_was_paused_while_queued_is_lost(db: Database) -> None:
    at(db, Status.QUEUED)
    job = claim(db, Status.QUEUED)
    with db.write() as tx:
        store.move(tx, job, Status.PAUSED)
    with pytest.raises(LostRace), db.write() as tx:
        store.hold(tx, job)


def test_no_token_holds_nothing(db: Database) -> None:
    enqueue(db, "j")
    with pytest.raises(LostRace), db.write() as tx:
        store.hold(tx, get(db, "j"))


@pytest.mark.parametrize("keep", [True, False])
def test_a_move_gives_the_lease_back_unless_kept(db: Database, keep: bool) -> None:
    enqueue(db, "j")
    job = claim(db)
    with db.write() as tx:
        moved = store.move(tx, job, Status.QUEUED, keep_lease=keep)
    assert (moved.lease_token, moved.lease_until) == ((job.lease_token, job.lease_until) if keep else (None, None))


def test_what_dead_processes_held_is_freed(db: Database) -> None:
    enqueue(db, "a", "b", "c")
    for owner in ("dead", "alive", None):
        store.claim(db, [Status.VALIDATING], owner=owner)
    assert store.release(db, lambda owner: owner != "alive") == 2
    assert store.release(db, lambda owner: owner != "alive") == 0
    assert [claim(db).id for _ in range(2)] == ["a", "c"]
    assert claim(db) is None
    assert [get(db, name).setbacks for name in ("a", "b", "c")] == [1, 0, 1]


# --- events --------------------------------------------------------------------------------------------------


def test_an_event_is_told_once_a_job(db: Database) -> None:
    enqueue(db, "a", "b")
    with db.write() as tx:
        store.tell(tx, "a", Event("step:1", "first"), Event("step:1", "again"), Event("step:2", "second", level="warn"))
        store.tell(tx, "b", Event("step:1", "other job"))
    with db.write() as tx:
        store.tell(tx, "a", Event("step:2", "again"), Event("step:3", "third", data={"é": [1]}))
    assert told(db, "a") == [("step:1", "info", "first"), ("step:2", "warn", "second"), ("step:3", "info", "third")]
    assert told(db, "b") == [("step:1", "info", "other job")]
    with db.read() as tx:
        assert store.was_told(tx, "a", "step:3")
        assert not store.was_told(tx, "b", "step:3")
        rows = tx.execute(select(events)).all()
    assert len({row.id for row in rows}) == 4
    assert [row.data for row in rows if row.key == "step:3"] == [{"é": [1]}]


def test_events_of_a_kind_are_counted(db: Database) -> None:
    enqueue(db, "a", "b")
    with db.write() as tx:
        store.tell(tx, "a", Event("paused:1", ""), Event("paused:2", ""), Event("pausing:1", ""), Event("paused", ""))
        store.tell(tx, "b", Event("paused:1", ""))
    with db.read() as tx:
        assert [store.times_told(tx, "a", kind) for kind in ("paused", "pausing", "pause%", "resume")] == [2, 1, 0, 0]


# --- the outbox ----------------------------------------------------------------------------------------------


def by_mail(_tx: object, _ending: Ending) -> list[str | None]:
    return [None]


def routed(db: Database, *names: str) -> None:
    for name in names:
        at(db, Status.FAILED, name)
    outbox.route(db, by_mail)


def rows_of(db: Database, table: Table) -> list[Row[Any]]:
    with db.read() as tx:
        return list(tx.execute(select(table).order_by(table.c.seq)))


def test_an_ending_is_routed_once_and_each_receiver_has_a_delivery(db: Database) -> None:
    at(db, Status.FAILED, "a")
    at(db, Status.CANCELLED, "b")
    routed: list[tuple[str, Status]] = []

    def receivers(_tx: object, ending: Ending) -> list[str | None]:
        routed.append((ending.job_id, ending.status))
        return [None] if ending.job_id == "a" else []

    assert [outbox.route(db, receivers), outbox.route(db, receivers)] == [2, 0]
    assert routed == [("a", Status.FAILED), ("b", Status.CANCELLED)]
    (delivery,) = outbox.claim(db, (), 10)
    assert (delivery.ending.job_id, delivery.endpoint_id, delivery.attempts) == ("a", None, 0)
    assert delivery.ending.event_id.startswith("evt_")


def test_a_delivery_in_hand_is_nobody_elses_until_its_holder_is_given_up(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed(db, "a")
    (first,) = outbox.claim(db, (), 10)
    assert outbox.claim(db, (), 10) == []
    now = time.time()
    monkeypatch.setattr(outbox.time, "time", lambda: now + outbox.HOLD_SECONDS + 1)
    assert outbox.claim(db, (), 10) == [first]


def test_one_delivery_a_receiver_at_a_time_and_none_for_a_busy_one(db: Database) -> None:
    routed(db, "a", "b")
    assert outbox.claim(db, {None}, 10) == []
    assert outbox.claim(db, (), 0) == []
    (first,) = outbox.claim(db, (), 10)
    outbox.note(db, first, Outcome(3))
    (second,) = outbox.claim(db, (), 10)
    assert [first.ending.job_id, second.ending.job_id] == ["a", "b"]


def test_two_servers_never_take_the_same_delivery(db: Database, tmp_path: Path) -> None:
    for i in range(20):
        at(db, Status.FAILED, f"j{i}")
    other = Database(tmp_path / "pegbox.db")

    def drain(side: Database) -> list[str]:
        taken = []
        outbox.route(side, by_mail)
        while got := outbox.claim(side, (), 10):
            taken += [one.id for one in got]
            for one in got:
                outbox.note(side, one, Outcome(1))
        return taken

    with ThreadPoolExecutor() as pool:
        both = [name for names in pool.map(drain, (db, other)) for name in names]
    other.close()
    assert len(both) == len(set(both)) == len(rows_of(db, deliveries)) == 20


def test_a_failed_attempt_waits_longer_each_time_and_at_last_for_ever(db: Database) -> None:
    routed(db, "a")
    waits = (0.0, 100.0)
    (delivery,) = outbox.claim(db, (), 10)
    outbox.note(db, delivery, Outcome(7, "refused", 503), waits)
    (delivery,) = outbox.claim(db, (), 10)
    assert delivery.attempts == 1
    before = time.time()
    outbox.note(db, delivery, Outcome(8, "x" * 1000), waits)
    assert outbox.claim(db, (), 10) == []
    (row,) = rows_of(db, deliveries)
    assert before + 90 <= row.not_before <= time.time() + 110  # ten per cent of jitter either way
    outbox.note(db, replace(delivery, attempts=2), Outcome(9, "gave up"), waits)
    (row,) = rows_of(db, deliveries)
    assert (row.attempts, row.delivered_at, row.not_before) == (3, None, None)
    tried = [(row.milliseconds, row.status_code, row.error) for row in rows_of(db, delivery_attempts)]
    assert tried == [(7, 503, "refused"), (8, None, "x" * 500), (9, None, "gave up")]


def test_who_wants_no_more_is_not_asked_again(db: Database) -> None:
    routed(db, "a")
    (delivery,) = outbox.claim(db, (), 10)
    outbox.note(db, delivery, Outcome(1, "gone", 410, final=True))
    (row,) = rows_of(db, deliveries)
    assert (row.not_before, row.delivered_at) == (None, None)


def test_a_delivery_that_vanished_meanwhile_is_not_noted(db: Database) -> None:
    routed(db, "a")
    (delivery,) = outbox.claim(db, (), 10)
    with db.write() as tx:
        tx.execute(delete(deliveries))
    outbox.note(db, delivery, Outcome(1))
    assert rows_of(db, delivery_attempts) == []


def test_the_attempts_spread_over_a_day() -> None:
    assert outbox.SCHEDULE == (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert sum(outbox.WAITS) == 24 * 3600


# --- the worker ----------------------------------------------------------------------------------------------


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def work(db: Database, handle: Callable[[QueuedJob, Lease], None]) -> Worker:
    worker = Worker(db, [Status.VALIDATING], handle, name="test-worker")
    worker.start()
    return worker


@pytest.mark.parametrize(
    ("raised", "failure"),
    [
        (JobFailure("invalid_file_format", "Row 3 is bad.", param="training_file"), Failure("invalid_file_format", "Row 3 is bad.", "training_file")),
        (KeyError("a secret"), Failure("server_error", "The job failed due to an internal error; the server's log has the details.", None)),
    ],
)  # fmt: skip
def test_a_handler_that_raises_fails_the_job(db: Database, raised: Exception, failure: Failure) -> None:
    enqueue(db, "bad", "good")

    def handle(job: QueuedJob, lease: Lease) -> None:
        if job.id == "bad":
            raise raised
        with db.write() as tx:
            store.move(tx, job, Status.QUEUED)

    worker = work(db, handle)
    until(lambda: get(db, "good").status == Status.QUEUED)
    worker.close()
    job = get(db, "bad")
    assert (job.status, job.failure, job.lease_token) == (Status.FAILED, failure, None)
    assert told(db, "bad") == [("ended", "error", failure.message)]
    assert endings(db) == [("bad", "failed")]


def test_a_handler_that_lost_its_job_changes_nothing(db: Database) -> None:
    enqueue(db, "j")
    seen = threading.Event()

    def handle(job: QueuedJob, lease: Lease) -> None:
        with db.write() as tx:
            store.move(tx, job, Status.CANCELLED)  # as the API does beside it
        try:
            lease.beat()
        finally:
            seen.set()

    worker = work(db, handle)
    assert seen.wait(10)
    worker.close()
    assert get(db, "j").status == Status.CANCELLED
    assert told(db, "j") == []
    assert endings(db) == [("j", "cancelled")]


def test_a_failure_after_the_job_was_taken_away_is_dropped(db: Database) -> None:
    enqueue(db, "j")
    seen = threading.Event()

    def handle(job: QueuedJob, lease: Lease) -> None:
        seen.set()
        expire(db, "j")
        assert claim(db).attempt == 2
        raise JobFailure("late", "Too late.")

    worker = work(db, handle)
    assert seen.wait(10)
    worker.close()
    job = get(db, "j")
    assert (job.status, job.failure, job.attempt) == (Status.VALIDATING, None, 2)


def test_a_beat_prolongs_the_lease(db: Database) -> None:
    enqueue(db, "j")
    seen: list[float] = []

    def handle(job: QueuedJob, lease: Lease) -> None:
        expire(db, "j")
        lease.beat()
        seen.append(get(db, "j").lease_until - time.time())
        with db.write() as tx:
            store.move(tx, job, Status.QUEUED)

    worker = work(db, handle)
    until(lambda: get(db, "j").status == Status.QUEUED)
    worker.close()
    assert LEASE_SECONDS - 5 < seen[0] <= LEASE_SECONDS


def test_closing_tells_the_handler_and_waits_for_it(db: Database) -> None:
    enqueue(db, "j")
    started = threading.Event()
    ended: list[str] = []

    def handle(job: QueuedJob, lease: Lease) -> None:
        started.set()
        assert lease.closing.wait(10)
        ended.append(job.id)

    worker = work(db, handle)
    assert started.wait(10)
    worker.close()
    assert ended == ["j"]
    assert get(db, "j").status == Status.VALIDATING


def test_wake_is_quicker_than_waiting(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.queue.worker._IDLE_SECONDS", 60.0)
    done = threading.Event()

    def handle(job: QueuedJob, lease: Lease) -> None:
        with db.write() as tx:
            store.move(tx, job, Status.QUEUED)
        done.set()

    worker = work(db, handle)
    enqueue(db, "j")
    worker.wake()
    assert done.wait(10)
    worker.close()


def test_the_thread_outlives_a_database_that_fails(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pegbox.queue.worker._IDLE_SECONDS", 0.01)
    real, failures = store.claim, iter([OSError("disk full"), OSError("disk full")])

    def flaky(*args: object, **options: object) -> QueuedJob | None:
        if (failure := next(failures, None)) is not None:
            raise failure
        return real(*args, **options)

    monkeypatch.setattr(store, "claim", flaky)
    enqueue(db, "j")

    def handle(job: QueuedJob, lease: Lease) -> None:
        with db.write() as tx:
            store.move(tx, job, Status.QUEUED)

    worker = work(db, handle)
    until(lambda: get(db, "j").status == Status.QUEUED)
    worker.close()
    assert caplog.text.count("disk full") >= 2
