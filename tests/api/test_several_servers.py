"""Two servers that train nothing, and workers beside them: one data directory, one PostgreSQL database."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from conftest import KEY, Server, finished, rows, upload_bytes
from following import jsonl, resumptions, steps, story, wait_for, wait_for_step

EPOCH, EPOCHS = 30, 8


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def settings(postgres: Callable[[], str], tiny_catalog: Path) -> dict[str, str]:
    return {"PEGBOX_DATABASE_URL": postgres(), "PEGBOX_WORK_JOBS": "false", "PEGBOX_MODELS_DIR": str(tiny_catalog)}


@pytest.fixture
def servers(data_dir: Path, tiny_catalog: Path, settings: dict[str, str]) -> Iterator[list[Server]]:
    made = [Server(data_dir, tiny_catalog, settings).start() for _ in range(2)]
    yield made
    for server in made:
        server.close()


@pytest.fixture
def hire(data_dir: Path, settings: dict[str, str]) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    crew: list[subprocess.Popen[bytes]] = []

    def begin() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "pegbox.cli.main", "worker", "--data-dir", str(data_dir)]
        with (data_dir.parent / "worker.log").open("ab") as log:
            env = {**os.environ, **settings, "PEGBOX_THREADS": "1"}
            crew.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        return crew[-1]

    yield begin
    for worker in crew:
        worker.kill()
        worker.wait()


def test_a_job_goes_from_one_worker_to_the_next_and_its_model_answers_everywhere(
    servers: list[Server], hire: Callable[[], "subprocess.Popen[bytes]"], data_dir: Path
) -> None:
    one, other = (server.client() for server in servers)
    file_id = upload_bytes(one, jsonl(rows(EPOCH)))
    hyperparameters = {"n_epochs": EPOCHS, "batch_size": 1}
    job_id = one.fine_tuning.jobs.create(
        model="gpt-3.5-turbo", training_file=file_id, hyperparameters=hyperparameters, seed=7
    ).id
    assert other.fine_tuning.jobs.retrieve(job_id).status == "validating_files", "nobody works yet"

    first = hire()
    wait_for_step(other, job_id, EPOCH + 3)
    trainers = [p for p in psutil.Process(first.pid).children(recursive=True) if "pegbox.train" in p.cmdline()]
    assert trainers
    first.kill()  # as if its power was cut
    first.wait()
    wait_for(lambda: not any(p.is_running() and p.status() != "zombie" for p in trainers), "the trainer to follow", 10)

    second = hire()
    wait_for(lambda: resumptions(story(one, job_id)), "the training to resume")
    wait_for_step(one, job_id, steps(story(one, job_id))[-1] + 3)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0, (data_dir.parent / "worker.log").read_text("utf-8")
    assert list((data_dir / "owners").iterdir()) != [], "the servers are there still"

    hire()
    job = finished(other, job_id)
    assert job.status == "succeeded", job.error
    assert steps(story(one, job_id)) == list(range(1, EPOCH * EPOCHS + 1)), "each step is told once, in order"
    assert len(resumptions(story(one, job_id))) == 2
    for client in (one, other):
        chat = [{"role": "user", "content": "Hello"}]
        answer = client.chat.completions.create(model=job.fine_tuned_model, messages=chat, max_tokens=2)
        assert answer.model == job.fine_tuned_model
    for server in servers:
        assert "Traceback" not in server.log.read_text("utf-8")
        assert KEY not in server.log.read_text("utf-8")


def test_a_character_that_postgres_can_not_store_breaks_nothing(servers: list[Server]) -> None:
    with servers[0].http() as http:
        for path in ("/fine_tuning/jobs/x%00", "/files/file-%00", "/models/ft:%00", "/files/a%00/content"):
            assert http.get(path).status_code == 404, path
        sent = {"file": ("a\0b.jsonl", jsonl(rows(12)))}
        file_id = http.post("/files", files=sent, data={"purpose": "fine-tune"}).json()["id"]
        body = {"metadata": {"a": "c\0d"}, "model": "gpt-3.5-turbo", "training_file": file_id, "suffix": "x"}
        assert http.post("/fine_tuning/jobs", json=body).status_code == 200
        body["metadata"] = {"a": "x"}
        job_id = http.post("/fine_tuning/jobs", json=body).json()["id"]
        found = http.get("/fine_tuning/jobs", params={"metadata[a]": "x"}).json()["data"]
        assert [job["id"] for job in found] == [job_id]
        assert len(http.get("/fine_tuning/jobs").json()["data"]) == 2
        assert http.get("/files", params={"after": "\0"}).json()["data"] == []


def test_a_worker_beside_a_server_with_sqlite(tmp_path: Path, tiny_catalog: Path) -> None:
    server = Server(tmp_path / "data", tiny_catalog, {"PEGBOX_WORK_JOBS": "false"}).start()
    client = server.client()
    job_id = client.fine_tuning.jobs.create(model="tiny", training_file=upload_bytes(client, jsonl(rows(12)))).id
    command = [sys.executable, "-m", "pegbox.cli.main", "worker", "--data-dir", str(server.data_dir)]
    env = {**os.environ, "PEGBOX_MODELS_DIR": str(tiny_catalog), "PEGBOX_THREADS": "1"}
    worker = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout.readline() == f"pegbox works on the jobs of {server.data_dir.resolve()}, 1 at a time\n"
        assert finished(client, job_id).status == "succeeded"
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
        server.close()
    assert worker.returncode == 0
    assert list((server.data_dir / "owners").iterdir()) == []
