"""The queue when things go wrong: under a simulated clock, and with real processes on PostgreSQL."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import queue_simulation
from queue_simulation import claim_latency, simulate

from pegbox.errors import LostRace
from pegbox.queue import lease, store


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
    with pytest.raises(AssertionError, match="a stale worker wrote"):
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
