"""A worker that is frozen for longer than its lease lasts, and goes on as if nothing had been: one PostgreSQL database, one
data directory, and another worker that took its job meanwhile."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Server, finished, rows, upload_bytes
from following import gone, jsonl, resumptions, steps, story, wait_for, wait_for_step
from sqlalchemy import func, select, update

from pegbox.storage.db import Database, now
from pegbox.storage.tables import jobs, outbox

EPOCH, EPOCHS = 20, 12
Worker = subprocess.Popen


@pytest.fixture
def settings(postgres: Callable[[], str], tiny_catalog: Path) -> dict[str, str]:
    return {"PEGBOX_DATABASE_URL": postgres(), "PEGBOX_WORK_JOBS": "false", "PEGBOX_MODELS_DIR": str(tiny_catalog)}


@pytest.fixture
def server(tmp_path: Path, tiny_catalog: Path, settings: dict[str, str]) -> Iterator[Server]:
    running = Server(tmp_path / "data", tiny_catalog, settings).start()
    yield running
    running.close()


@pytest.fixture
def db(settings: dict[str, str], server: Server) -> Iterator[Database]:
    database = Database(settings["PEGBOX_DATABASE_URL"])
    yield database
    database.close()


@pytest.fixture
def hire(server: Server, settings: dict[str, str]) -> Iterator[Callable[[str], "Worker[bytes]"]]:
    crew: list[Worker[bytes]] = []

    def begin(name: str) -> "Worker[bytes]":
        command = [sys.executable, "-m", "pegbox.cli.main", "worker", "--data-dir", str(server.data_dir)]
        with (server.data_dir.parent / f"{name}.log").open("wb") as log:
            env = {**os.environ, **settings, "PEGBOX_THREADS": "1"}
            crew.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        return crew[-1]

    yield begin
    for worker in crew:
        worker.kill()
        worker.wait()


def trainers(worker: "Worker[bytes]") -> list[psutil.Process]:
    return [p for p in psutil.Process(worker.pid).children(recursive=True) if "pegbox.train" in p.cmdline()]


def test_a_worker_that_wakes_up_too_late_changes_nothing(
    server: Server, db: Database, hire: Callable[[str], "Worker[bytes]"]
) -> None:
    """Its trainer is not frozen with it, and trains on until the other worker ends it."""
    client = server.client()
    file_id = upload_bytes(client, jsonl(rows(EPOCH)))
    hyperparameters = {"n_epochs": EPOCHS, "batch_size": 1}
    job_id = client.fine_tuning.jobs.create(model="tiny", training_file=file_id, hyperparameters=hyperparameters).id
    first = hire("first")
    wait_for_step(client, job_id, 1)
    hire("second")
    logs = {name: server.data_dir.parent / f"{name}.log" for name in ("first", "second")}
    wait_for(lambda: "pegbox works on" in logs["second"].read_text("utf-8"), "the second to be there")
    wait_for_step(client, job_id, EPOCH + 3)
    left_behind = trainers(first)
    first.send_signal(signal.SIGSTOP)
    with db.write() as tx:  # half a minute goes by, for everyone but us
        tx.execute(update(jobs).where(jobs.c.id == job_id).values(lease_until=now() - 1))

    wait_for(lambda: resumptions(story(client, job_id)), "the job to go on with the second")
    assert gone(left_behind), "there is one trainer, though the other's worker slept"
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: "dropping it" in logs["first"].read_text("utf-8"), "the first to see that it lost the job")

    job = finished(client, job_id)
    assert job.status == "succeeded", job.error
    told = story(client, job_id)
    assert steps(told) == list(range(1, EPOCH * EPOCHS + 1)), "each step is told once, in order"
    assert len(resumptions(told)) == 1
    assert [event.message for event in told].count("The job has successfully completed") == 1
    with db.read() as tx:
        assert tx.execute(select(func.count()).select_from(outbox)).scalar_one() == 1, "its end is told once"
    assert len(client.fine_tuning.jobs.retrieve(job_id).result_files) == 1
    assert first.poll() is None, "and the first works on"
