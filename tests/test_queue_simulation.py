"""The queue when things go wrong: under a simulated clock, and with real processes on PostgreSQL."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import only_postgres
from sqlalchemy import Connection, func, select

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import queue_simulation
from queue_simulation import claim_latency, simulate

from pegbox.errors import IllegalMove, LostRace
from pegbox.queue import lease, store
from pegbox.queue.states import QueuedJob, Status
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import jobs, outbox


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a folder: nothing here has to survive a power cut, and the disk is slow."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("seed", range(3))
def test_no_job_runs_twice_at_once_and_none_is_lost(seed: int, folder: Path) -> None:
    counts = simulate(seed, 1000, folder)
    assert counts["succeeded"] > 5
    assert counts["workers killed"] > 3


def some_history(folder: Path) -> None:
    for seed in range(20):
        simulate(seed, 700, folder)


def test_the_simulation_notices_a_worker_that_does_not_fence_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "FENCE_SECONDS", 1e9)
    with pytest.raises(AssertionError, match="ran twice at the same time"):
        some_history(folder)


def test_the_simulation_notices_a_write_without_its_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.hold

    def forgiving(tx: Connection, job: QueuedJob) -> QueuedJob | None:
        try:
            return real(tx, job)
        except LostRace:
            return store.get(tx, job.id)

    monkeypatch.setattr(store, "hold", forgiving)
    with pytest.raises((AssertionError, IllegalMove), match=r"a stale worker wrote|not in the table"):
        some_history(folder)


def test_the_simulation_notices_a_job_that_nobody_takes_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.claim
    monkeypatch.setattr(queue_simulation.store, "claim", lambda db, statuses, **options: real(
        db, [status for status in statuses if status != "running"], **options))  # fmt: skip
    with pytest.raises(AssertionError, match="nobody works on it"):
        simulate(0, 200, folder)


def test_claims_in_a_long_queue_are_measured(where: Path | str) -> None:
    figures = claim_latency(where, 300, 20)
    assert 0 < figures["claim_ms_median"] <= figures["claim_ms_p99"]


WORKER = Path(__file__).parent / "queue_worker.py"
JOBS = 24


@only_postgres
def test_three_servers_and_four_workers_of_which_one_is_killed_again_and_again(
    db: Database, where: str, tmp_path: Path
) -> None:
    """Real processes with leases of two seconds. One is killed, and another started, after every third job. Each job
    holds a lock while it is worked on: nobody ever finds it held."""
    servers = [Database(where) for _ in range(3)]
    crew: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(WORKER), where, str(tmp_path)], stderr=subprocess.PIPE)

    with ExitStack() as ends:
        for server in servers:
            ends.callback(server.close)
        crew += [begin() for _ in range(4)]
        for i in range(JOBS):
            with servers[i % 3].write() as tx:
                store.enqueue(tx, Scope(f"project-{i % 3}"), f"j{i}")
        killed, deadline = 0, time.monotonic() + 200
        try:
            while left := _left(servers[killed % 3]):
                assert time.monotonic() < deadline, "not all jobs ended"
                assert all(one.poll() is None for one in crew), "a worker broke"
                if left > JOBS - 3 * (killed + 1):
                    time.sleep(0.02)
                    continue
                victim = crew.pop(0)
                victim.kill()
                victim.communicate()
                crew.append(begin())
                killed += 1
        finally:
            for one in crew:
                one.kill()
                one.communicate()
    with db.read() as tx:
        rows = tx.execute(select(jobs)).all()
        told = tx.execute(select(outbox.c.job_id)).scalars().all()
    assert {row.status for row in rows} == {Status.SUCCEEDED}
    assert sorted(told) == sorted(f"j{i}" for i in range(JOBS)), "each end is told once"
    assert not (tmp_path / "doubled").exists(), (tmp_path / "doubled").read_text("utf-8")
    assert killed >= 4


def _left(server: Database) -> int:
    with server.read() as tx:
        return int(tx.execute(select(func.count()).where(jobs.c.status != Status.SUCCEEDED)).scalar_one())
