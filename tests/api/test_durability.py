"""A server that is killed, stopped or told to cancel: jobs go on or end, no event is lost or told twice, and no process
is left behind."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from conftest import KEY, Server, ServerMaker, chat_row, finished, rows, upload_bytes
from following import children, gone, jsonl, resumptions, steps, story, wait_for, wait_for_step
from openai import OpenAI

HELLO = [{"role": "user", "content": "Hello"}]
EPOCH, EPOCHS = 30, 5
STEPS = EPOCH * EPOCHS


@pytest.fixture
def connect() -> Iterator[Callable[[Server], OpenAI]]:
    made: list[OpenAI] = []

    def to(running: Server) -> OpenAI:
        made.append(running.client())
        return made[-1]

    yield to
    for client in made:
        client.close()


def start_job(client: OpenAI, **options: object) -> str:
    """One that trains for some seconds, a step an example."""
    file_id = upload_bytes(client, jsonl(rows(EPOCH)))
    hyperparameters = {"n_epochs": EPOCHS, "batch_size": 1}
    job = client.fine_tuning.jobs.create(
        model="gpt-3.5-turbo", training_file=file_id, hyperparameters=hyperparameters, seed=7, **options
    )
    return job.id


def test_training_goes_on_after_kill_and_after_stop(new_server: ServerMaker, connect: Callable[[Server], OpenAI]):
    running = new_server(PEGBOX_THREADS="1")
    client = connect(running)
    job_id = start_job(client)
    client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=1
    )  # so that there is an engine to leave behind

    # --- a power cut, after the first epoch's checkpoint ---------------------------------------------------
    before = wait_for_step(client, job_id, EPOCH + 5)
    left = children(running)
    assert {"pegbox.train", "pegbox.engines.host"} <= {word for process in left for word in process.cmdline()}
    running.kill()
    wait_for(lambda: gone(left), "trainer and engine to follow their server", 10)

    running.start()
    wait_for(lambda: resumptions(story(client, job_id)), "the training to resume")
    after_kill = wait_for_step(client, job_id, steps(story(client, job_id))[-1] + 1)
    assert after_kill[: len(before)] == before, "an event was lost or changed"
    (resumed,) = resumptions(after_kill)
    assert resumed in range(EPOCH, STEPS, EPOCH), "it goes on from an epoch's checkpoint"

    # --- an operator's stop --------------------------------------------------------------------------------
    left = children(running)
    running.stop()
    assert gone(left)
    assert running.process is not None
    assert running.process.returncode in (0, -15), "the server did not stop by itself"

    running.start()
    job = finished(client, job_id)
    assert job.status == "succeeded", job.error
    events = story(client, job_id)
    assert events[: len(after_kill)] == after_kill
    assert resumptions(events)[0] == resumed
    assert resumptions(events)[1] >= steps(after_kill)[-1], "a graceful stop saves where it stands"
    assert steps(events) == list(range(1, STEPS + 1)), "each step once, in order"
    told = [event.message for event in events]
    assert len(told) == len(set(told))
    assert told[0] == f"Created fine-tuning job: {job_id}"
    assert told[-2:] == [f"New fine-tuned model created: {job.fine_tuned_model}", "The job has successfully completed"]
    epochs = [event.message for event in events if event.message.startswith("Checkpoint created")]
    assert [int(re.findall(r"\d+", text)[0]) for text in epochs] == [EPOCH * n for n in range(1, EPOCHS + 1)]

    with pytest.raises(openai.BadRequestError, match="already completed") as caught:
        client.fine_tuning.jobs.cancel(job_id)
    assert caught.value.code == "invalid_job_state"


def test_validation_starts_anew_after_kill(new_server: ServerMaker, connect: Callable[[Server], OpenAI]):
    running = new_server(PEGBOX_THREADS="1")
    client = connect(running)
    file_id = upload_bytes(client, jsonl([chat_row(f"Question {i}?", "yes") for i in range(20_000)]))
    job_id = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file_id).id
    time.sleep(0.3)
    assert client.fine_tuning.jobs.retrieve(job_id).status == "validating_files"
    running.kill()
    running.start()
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job_id).status in ("queued", "running"), "the end of validation")
    told = [event.message for event in story(client, job_id)]
    assert len(told) == len(set(told))
    assert any(text.startswith("Training file: 20000 examples read, 20000 used") for text in told)
    client.fine_tuning.jobs.cancel(job_id)


def test_cancel_ends_training_at_once(new_server: ServerMaker, connect: Callable[[Server], OpenAI]):
    running = new_server(PEGBOX_THREADS="1")
    client = connect(running)
    job_id = start_job(client)
    waiting = start_job(client)
    wait_for_step(client, job_id, 3)
    trainers = children(running, "pegbox.train")
    assert len(trainers) == 1, "one job at a time"
    assert client.fine_tuning.jobs.retrieve(waiting).status in ("validating_files", "queued")
    assert client.fine_tuning.jobs.cancel(waiting).status == "cancelled"

    job = client.fine_tuning.jobs.cancel(job_id)
    assert job.status == "cancelled"
    assert job.finished_at is not None
    assert (job.error, job.fine_tuned_model, job.estimated_finish) == (None, None, None)
    wait_for(lambda: gone(trainers), "the trainer to end", 5)
    kept = {"pegbox.data.confined_child"}  # renders chat templates, and stays
    assert [child for child in children(running) if not kept & set(child.cmdline())] == [], "its memory is back"
    events = story(client, job_id)
    last = events[-1]
    assert (last.level, last.message) == ("warn", "Fine tuning process stopping due to job cancellation")
    time.sleep(1)
    assert story(client, job_id) == events, "a cancelled job went on talking"
    assert client.fine_tuning.jobs.retrieve(job_id).status == "cancelled"
    for cancelled in (job_id, waiting):
        with pytest.raises(openai.BadRequestError, match="already completed"):
            client.fine_tuning.jobs.cancel(cancelled)
    assert "Traceback" not in running.log.read_text("utf-8")


def test_a_second_server_on_the_same_data_is_refused(server: Server):
    command = [sys.executable, "-m", "pegbox.cli.main", "serve", "--data-dir", str(server.data_dir), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stderr.strip() == (
        f"pegbox: another pegbox server uses {server.data_dir.resolve()}; stop it, or give this one its own --data-dir"
    )
    with server.http() as http:
        assert http.get("/models").status_code == 200, "the first one goes on"


def test_the_server_is_small_and_starts_quickly(new_server: ServerMaker):
    running = new_server()
    assert running.process is not None
    process = psutil.Process(running.process.pid)
    used = process.cpu_times()
    assert used.user + used.system < 6, "about a second where nothing else runs"
    with running.http() as http:
        assert http.get("/models").status_code == 200
    mapped = {Path(region.path).name for region in process.memory_maps()}
    assert not [name for name in mapped if "torch" in name], "torch belongs in child processes"
    assert process.memory_info().rss < 300 << 20
    assert children(running) == []


def test_a_changed_key_replaces_the_old_one(new_server: ServerMaker):
    running = new_server()
    running.stop()
    running.settings = {**running.settings, "PEGBOX_API_KEY": "sk-another-0123456789"}
    running.start()
    for key, status in ((KEY, 401), ("sk-another-0123456789", 200)):
        answer = httpx.get(f"{running.base_url}/models", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status
        assert key not in running.log.read_text("utf-8")
