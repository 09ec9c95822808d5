"""Pause and resume through the stock client: what is answered, what the process table shows, what comes out."""

import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest
from conftest import Server, finished, rows, upload_bytes
from following import children, gone, jsonl, resumptions, steps, story, wait_for, wait_for_step
from openai import OpenAI

EPOCH, EPOCHS = 80, 4  # long enough that a pause comes in the middle, however fast the trainer is
STEPS = EPOCH * EPOCHS


@pytest.fixture(scope="module")
def running(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "data", tiny_catalog).start()
    yield server
    server.close()


@pytest.fixture
def client(running: Server) -> Iterator[OpenAI]:
    """Strict validation refuses the two words that the stock client's type does not list; by default it is off."""
    made = running.client(_strict_response_validation=False)
    yield made
    for job in made.fine_tuning.jobs.list(limit=100):
        if job.finished_at is None:
            made.fine_tuning.jobs.cancel(job.id)


def start_job(client: OpenAI, n: int = EPOCH, epochs: int = EPOCHS, **options: object) -> str:
    """A step an example."""
    hyperparameters = {"n_epochs": epochs, "batch_size": 1}
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=upload_bytes(client, jsonl(rows(n))),
        hyperparameters=hyperparameters,  # type: ignore[arg-type]
        seed=7,
        **options,  # type: ignore[arg-type]
    )
    return job.id


def status(client: OpenAI, job_id: str) -> str:
    return client.fine_tuning.jobs.retrieve(job_id).status


def wait_for_status(client: OpenAI, job_id: str, wanted: str) -> None:
    wait_for(lambda: status(client, job_id) == wanted, f"{job_id} to be {wanted}")


def told(client: OpenAI, job_id: str) -> list[str]:
    return [event.message for event in story(client, job_id)]


def paused_at(client: OpenAI, job_id: str) -> list[int]:
    events = story(client, job_id)
    return [event.data["step"] for event in events if event.message.startswith("Job paused at step")]  # type: ignore[index]


def adapter(running: Server, job_id: str, step: int = STEPS) -> bytes:
    folder = running.data_dir / "blobs" / "adapters" / job_id / f"step-{step:06d}"
    return (folder / "adapter_model.safetensors").read_bytes() + (folder / "adapter_config.json").read_bytes()


def frozen_trainer(running: Server) -> psutil.Process:
    """The trainer in the middle of a step, which it does not finish."""
    (trainer,) = children(running, "pegbox.train")
    trainer.send_signal(signal.SIGSTOP)
    return trainer


def test_a_job_paused_twice_gives_the_model_of_an_undisturbed_one(running: Server, client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    undisturbed = start_job(client)
    assert finished(client, undisturbed).status == "succeeded"

    # --- paused: no process, no memory ---------------------------------------------------------------------
    job_id = start_job(client)
    wait_for_step(client, job_id, 3)
    trainers = children(running, "pegbox.train")
    assert len(trainers) == 1
    started = next(event for event in story(client, job_id) if event.message == "Fine-tuning job started")
    job = jobs.pause(job_id)
    assert (job.id, job.status, job.estimated_finish, job.finished_at) == (job_id, "pausing", None, None)
    wait_for_status(client, job_id, "paused")
    assert children(running, "pegbox.train") == []
    assert not any(psutil.pid_exists(trainer.pid) for trainer in trainers)
    job = jobs.pause(job_id)
    assert (job.status, job.estimated_finish, job.finished_at, job.error) == ("paused", None, None, None)
    assert jobs.list(limit=1).data[0].status == "paused"
    events = story(client, job_id)
    (step,) = paused_at(client, job_id)
    assert steps(events) == list(range(1, step + 1)), "all that was trained is told"
    assert [event.message for event in events if "paus" in event.message] == [
        "Job is pausing: the step in hand is finished and saved first",
        f"Job paused at step {step}",
    ]

    # --- it holds up nobody, and stays paused over a power cut ---------------------------------------------
    running.kill()
    running.start()
    assert finished(client, start_job(client, n=10, epochs=1)).status == "succeeded"
    assert status(client, job_id) == "paused"
    assert story(client, job_id) == events

    # --- resumed, and paused once more ---------------------------------------------------------------------
    assert jobs.resume(job_id).status == "queued"
    wait_for_step(client, job_id, step + 3)
    assert jobs.resume(job_id).status == "running", "nothing to do"
    assert jobs.pause(job_id).status == "pausing"
    wait_for_status(client, job_id, "paused")
    assert jobs.resume(job_id).status == "queued"
    job = finished(client, job_id)
    assert job.status == "succeeded", job.error

    events = story(client, job_id)
    first, second = paused_at(client, job_id)
    assert first < second
    assert resumptions(events) == [first, second]
    assert told(client, job_id).count("Job resumed, moving job to queued state") == 2
    assert [event for event in events if event.message == "Fine-tuning job started"] == [started]
    assert steps(events) == list(range(1, STEPS + 1)), "each step once, in order"
    assert adapter(running, job_id) == adapter(running, undisturbed)
    assert job.trained_tokens == jobs.retrieve(undisturbed).trained_tokens
    for ask in (jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError, match="already completed") as caught:
            ask(job_id)
        assert caught.value.code == "invalid_job_state"
    assert "Traceback" not in running.log.read_text("utf-8")


def test_a_pause_that_a_killed_server_left_half_done_is_finished(running: Server, client: OpenAI) -> None:
    job_id = start_job(client)
    wait_for_step(client, job_id, EPOCH + 3)
    trainer = frozen_trainer(running)
    assert client.fine_tuning.jobs.pause(job_id).status == "pausing"
    with pytest.raises(openai.BadRequestError, match="still pausing"):
        client.fine_tuning.jobs.resume(job_id)
    running.kill()
    wait_for(lambda: gone([trainer]), "the trainer to follow its server", 10)
    running.start()
    wait_for_status(client, job_id, "paused")
    (step,) = paused_at(client, job_id)
    assert step == EPOCH, "the end of the first epoch"
    last = story(client, job_id)[-1]
    assert (last.level, last.message) == (
        "warn",
        f"Job paused at step {EPOCH}, its last checkpoint: the server ended before a newer one was saved",
    )
    client.fine_tuning.jobs.resume(job_id)
    job = finished(client, job_id)
    assert job.status == "succeeded", job.error
    assert steps(story(client, job_id)) == list(range(1, STEPS + 1))


def test_a_trainer_that_dies_while_pausing_costs_the_steps_since_its_checkpoint(
    running: Server, client: OpenAI
) -> None:
    job_id = start_job(client, epochs=2)
    wait_for_step(client, job_id, 3)
    trainer = frozen_trainer(running)
    client.fine_tuning.jobs.pause(job_id)
    trainer.kill()
    wait_for_status(client, job_id, "paused")
    last = story(client, job_id)[-1]
    assert (last.level, last.data) == ("warn", {"step": 0})
    assert "the training process died" in last.message
    client.fine_tuning.jobs.resume(job_id)
    assert finished(client, job_id).status == "succeeded"


def test_a_server_that_is_stopped_while_pausing_finishes_the_pause_at_its_next_start(
    running: Server, client: OpenAI
) -> None:
    job_id = start_job(client)
    wait_for_step(client, job_id, 3)
    client.fine_tuning.jobs.pause(job_id)
    running.stop()
    running.start()
    wait_for_status(client, job_id, "paused")
    (step,) = paused_at(client, job_id)
    assert steps(story(client, job_id)) == list(range(1, step + 1))
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"


def test_cancel_of_a_pausing_and_of_a_paused_job_works_at_once(running: Server, client: OpenAI) -> None:
    pausing = start_job(client)
    wait_for_step(client, pausing, 1)
    trainer = frozen_trainer(running)
    client.fine_tuning.jobs.pause(pausing)
    job = client.fine_tuning.jobs.cancel(pausing)
    assert job.status == "cancelled"
    assert job.finished_at is not None
    wait_for(lambda: gone([trainer]), "the trainer to end", 10)

    paused = start_job(client)
    wait_for_step(client, paused, 1)
    client.fine_tuning.jobs.pause(paused)
    wait_for_status(client, paused, "paused")
    assert client.fine_tuning.jobs.cancel(paused).status == "cancelled"
    for ask in (client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume, client.fine_tuning.jobs.cancel):
        with pytest.raises(openai.BadRequestError, match="already completed"):
            ask(paused)


def test_a_waiting_job_is_paused_at_once_any_number_of_times(running: Server, client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    busy = start_job(client, epochs=50)
    wait_for_step(client, busy, 1)
    job_id = start_job(client, n=10, epochs=1)
    wait_for_status(client, job_id, "queued")
    for _ in range(2):
        assert jobs.pause(job_id).status == "paused"
        assert jobs.pause(job_id).status == "paused"
        assert jobs.resume(job_id).status == "queued"
        assert jobs.resume(job_id).status == "queued"
    words = [text.split(",")[0] for text in told(client, job_id)]
    assert words.count("Job paused while it waited in the queue") == words.count("Job resumed") == 2
    jobs.cancel(busy)
    wait_for_status(client, job_id, "running")


def test_a_job_paused_before_its_files_were_checked_has_them_checked_when_resumed(
    running: Server, client: OpenAI
) -> None:
    file_id = upload_bytes(client, jsonl(rows(4_000)))
    job_id = client.fine_tuning.jobs.create(model="tiny", training_file=file_id).id
    assert client.fine_tuning.jobs.pause(job_id).status == "paused"
    other = start_job(client, n=10, epochs=1)
    wait_for(lambda: status(client, other) != "validating_files", "another job's files to be checked")
    assert status(client, job_id) == "paused"
    assert not any("Files validated" in text for text in told(client, job_id))
    assert client.fine_tuning.jobs.resume(job_id).status == "validating_files"
    wait_for(lambda: status(client, job_id) in ("queued", "running"), "the end of validation")
    assert told(client, job_id).count("Files validated, moving job to queued state") == 1
    client.fine_tuning.jobs.cancel(job_id)
    assert "Traceback" not in running.log.read_text("utf-8")
