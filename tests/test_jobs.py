"""A job's life on the tiny model, through the stock client: what is told, what is resolved, what can be used."""

import time
from pathlib import Path

import openai
import pytest
from conftest import Server, ServerMaker, chat_row, finished, messages, rows, upload, write_jsonl
from openai import OpenAI


def events_data(client: OpenAI, job_id: str, start: str) -> dict[str, object]:
    found = [e for e in client.fine_tuning.jobs.list_events(job_id, limit=100) if e.message.startswith(start)]
    assert len(found) == 1, found
    assert isinstance(found[0].data, dict)
    return found[0].data


@pytest.fixture(scope="module")
def succeeded(client: OpenAI, tmp_path_factory: pytest.TempPathFactory):
    """220 rows, nothing else given: everything is chosen by the server."""
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "train.jsonl", [*rows(210), *rows(10)])
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini", training_file=upload(client, path), suffix="My Köln Test", seed=11
    )
    assert job.status == "validating_files"
    assert job.fine_tuned_model is None
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    return job


def test_every_auto_is_a_number_with_a_reason(client: OpenAI, succeeded) -> None:
    chosen = succeeded.hyperparameters
    assert (chosen.n_epochs, chosen.batch_size, chosen.learning_rate_multiplier) == (3, 7, 1.0)
    assert succeeded.method.supervised.hyperparameters.n_epochs == 3
    reasons = events_data(client, succeeded.id, "Plan:")["reasons"]
    assert set(reasons) == {"n_epochs", "batch_size", "learning_rate_multiplier", "learning_rate"}


def test_names_and_fields_of_a_succeeded_job(succeeded) -> None:
    base, org, suffix, ident = succeeded.fine_tuned_model.removeprefix("ft:").split(":")
    assert (base, org, suffix) == ("smollm2-135m-instruct", "pegbox", "my-k-ln-test")
    assert len(ident) == 8
    assert succeeded.model == "smollm2-135m-instruct"
    assert succeeded.seed == 11
    assert succeeded.error is None
    assert succeeded.estimated_finish is None
    assert succeeded.finished_at >= succeeded.created_at
    assert succeeded.user_provided_suffix == "My Köln Test"


def test_events_tell_the_story_in_order(client: OpenAI, succeeded) -> None:
    told = messages(client, succeeded.id)
    assert told[0] == f"Created fine-tuning job: {succeeded.id}"
    assert told[1] == f"Validating training file: {succeeded.training_file}"
    assert told[-2] == f"New fine-tuned model created: {succeeded.fine_tuned_model}"
    assert told[-1] == "The job has successfully completed"
    validated, started = (
        told.index("Files validated, moving job to queued state"),
        told.index("Fine-tuning job started"),
    )
    assert validated < started
    step_zero = next(i for i, text in enumerate(told) if text.startswith("Step 0, the base model"))
    first = next(i for i, text in enumerate(told) if text.startswith("Step 1/87: training loss="))
    assert started < step_zero < first


def test_a_tenth_is_held_out_with_equal_rows_on_one_side(client: OpenAI, server: Server, succeeded) -> None:
    """Rows 211-220 repeat rows 1-10; 22 of 220 are held out."""
    held = events_data(client, succeeded.id, "No validation file was given")
    assert held == {"held_out": 22, "trained": 198}
    metrics = [e.data for e in client.fine_tuning.jobs.list_events(succeeded.id, limit=100) if e.type == "metrics"]
    assert {m["step"] for m in metrics if "full_valid_loss" in m} == {29, 58, 87}


def test_rows_are_accounted_for(client: OpenAI, succeeded) -> None:
    data = events_data(client, succeeded.id, "Training file:")
    assert data["examples"] == data["used"] + data["refused"] == 220
    assert data["trained_tokens"] < data["tokens"]
    assert succeeded.trained_tokens == pytest.approx(data["tokens"] * 3 * 0.9, rel=0.02)


def test_checkpoints_are_one_an_epoch_and_each_answers(client: OpenAI, succeeded) -> None:
    listed = client.fine_tuning.jobs.checkpoints.list(succeeded.id).data
    assert [c.step_number for c in listed] == [87, 58, 29]
    names = {c.fine_tuned_model_checkpoint for c in listed}
    assert len(names | {succeeded.fine_tuned_model}) == 4
    for checkpoint in listed:
        name = checkpoint.fine_tuned_model_checkpoint
        assert name.endswith(f":ckpt-step-{checkpoint.step_number}")
        assert checkpoint.metrics.full_valid_loss is not None
        answer = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Hello"}], max_tokens=3, temperature=0
        )
        assert answer.usage.completion_tokens <= 3


def test_the_result_file_has_the_curve(client: OpenAI, succeeded) -> None:
    (file_id,) = succeeded.result_files
    file = client.files.retrieve(file_id)
    assert (file.filename, file.purpose) == ("step_metrics.csv", "fine-tune-results")
    lines = client.files.content(file_id).text.splitlines()
    assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(1, 88)]
    first, tenth = lines[1].split(","), lines[10].split(",")
    assert first[3:] == ["", ""]
    assert all(float(cell) >= 0 for cell in tenth)
    assert float(lines[-1].split(",")[1]) < float(first[1])


def test_training_on_from_a_tuned_model_and_from_a_checkpoint(client: OpenAI, succeeded, tmp_path: Path) -> None:
    file = upload(client, write_jsonl(tmp_path / "more.jsonl", rows(20)))
    checkpoint = client.fine_tuning.jobs.checkpoints.list(succeeded.id).data[-1].fine_tuned_model_checkpoint
    for parent in (succeeded.fine_tuned_model, checkpoint):
        job = client.fine_tuning.jobs.create(model=parent, training_file=file, hyperparameters={"n_epochs": 1})
        assert job.model == parent
        job = finished(client, job.id)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model.startswith("ft:smollm2-135m-instruct:pegbox::")
        start = next(text for text in messages(client, job.id) if text.startswith("Step 0"))
        assert "the adapter trained on from" in start


def test_a_model_is_deleted_and_its_checkpoints_stay(client: OpenAI, tmp_path: Path) -> None:
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(10)))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters={"n_epochs": 1})
    job = finished(client, job.id)
    assert client.models.delete(job.fine_tuned_model).deleted
    assert job.fine_tuned_model not in {m.id for m in client.models.list()}
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id).data
    client.chat.completions.create(
        model=checkpoint.fine_tuned_model_checkpoint, messages=[{"role": "user", "content": "a"}], max_tokens=1
    )


def test_three_newest_checkpoints_and_the_best_are_kept(client: OpenAI, tmp_path: Path) -> None:
    """Validation rows that contradict the training rows: the first epoch is the best on them."""
    train = write_jsonl(tmp_path / "train.jsonl", [chat_row(f"Say {i}", "yes yes yes") for i in range(12)])
    valid = write_jsonl(tmp_path / "valid.jsonl", [chat_row(f"Say {i}", "0123456789") for i in range(4)])
    job = client.fine_tuning.jobs.create(
        model="tiny",
        seed=1,
        training_file=upload(client, train),
        validation_file=upload(client, valid),
        hyperparameters={"n_epochs": 7, "batch_size": 2, "learning_rate_multiplier": 3},
    )
    job = finished(client, job.id)
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    losses = {e.data["step"]: e.data["full_valid_loss"] for e in events if e.data and "full_valid_loss" in e.data}
    best = min((s for s in losses if s), key=lambda step: losses[step])
    listed = [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(job.id)]
    assert listed == sorted({42, 36, 30, best}, reverse=True)
    assert best < 30, losses
    assert f"Validating training file: {job.training_file} and validation file: {job.validation_file}" in messages(
        client, job.id
    )
    (named,) = [e for e in events if e.message.startswith("Best checkpoint")]
    assert f": step {best}, ft:tiny:" in named.message
    assert f" ({losses[best]:.3f}); the final model is of step 42 ({losses[42]:.3f})" in named.message
    assert named.level == ("warn" if losses[42] > 1.02 * losses[best] else "info"), losses


def test_early_stopping_publishes_the_best_epoch_of_a_real_run(client: OpenAI, tmp_path: Path) -> None:
    """Whatever the number of epochs it took: the model answers as its best checkpoint does."""
    train = write_jsonl(tmp_path / "train.jsonl", [chat_row(f"Say {i}", "yes yes yes") for i in range(12)])
    valid = write_jsonl(tmp_path / "valid.jsonl", [chat_row(f"Say {i}", "0123456789") for i in range(4)])
    job = client.fine_tuning.jobs.create(
        model="tiny",
        seed=1,
        training_file=upload(client, train),
        validation_file=upload(client, valid),
        hyperparameters={"n_epochs": 6, "batch_size": 2, "learning_rate_multiplier": 3},
        metadata={"pegbox.early_stop": "1"},
    )
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    assert job.hyperparameters.n_epochs == 6, "what was asked for"
    listed = client.fine_tuning.jobs.checkpoints.list(job.id).data
    best, last = min(listed, key=lambda c: c.metrics.full_valid_loss), listed[0]
    assert best.step_number < last.step_number

    def likelihoods(model: str) -> list[float]:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Say 3"}], max_tokens=4, temperature=0, logprobs=True
        )
        return [token.logprob for token in answer.choices[0].logprobs.content]

    assert likelihoods(job.fine_tuned_model) == likelihoods(best.fine_tuned_model_checkpoint)
    assert likelihoods(job.fine_tuned_model) != likelihoods(last.fine_tuned_model_checkpoint)


@pytest.mark.parametrize(("metadata", "env"), [({"pegbox.holdout": "off"}, {}), (None, {"PEGBOX_HOLDOUT": "false"})])
def test_the_hold_out_can_be_turned_off(
    new_server: ServerMaker, tmp_path: Path, metadata: dict[str, str] | None, env: dict[str, str]
) -> None:
    client = new_server(**env).client()
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(200)))
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file, metadata=metadata, hyperparameters={"n_epochs": 1, "batch_size": 50}
    )
    job = finished(client, job.id)
    told = messages(client, job.id)
    assert not any("held out" in text for text in told)
    assert any("full training loss=" in text for text in told)


@pytest.mark.parametrize("wish", ["0", "11", "two", "", " 2", "2.0", "٢"])
def test_an_early_stop_that_is_no_number_of_epochs_is_refused(client: OpenAI, tmp_path: Path, wish: str) -> None:
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(10)))
    with pytest.raises(openai.BadRequestError, match='from "1" to "10"') as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file=file, metadata={"pegbox.early_stop": wish})
    assert (caught.value.param, caught.value.code) == ("metadata.pegbox.early_stop", "invalid_value")


def test_an_early_stop_without_held_out_rows_has_no_effect_and_is_told_so(client: OpenAI, tmp_path: Path) -> None:
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(10)))
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file, metadata={"pegbox.early_stop": "1"}, hyperparameters={"n_epochs": 2}
    )
    assert finished(client, job.id).status == "succeeded"
    told = messages(client, job.id)
    assert any(text.startswith('"pegbox.early_stop" has no effect') for text in told)
    assert not any(text.startswith("Best checkpoint") for text in told)


def test_same_seed_gives_the_same_curve_and_jobs_wait_their_turn(client: OpenAI, tmp_path: Path) -> None:
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(12)))
    jobs = [client.fine_tuning.jobs.create(model="tiny", training_file=file, seed=seed) for seed in (5, 5, 6)]
    curves = [client.files.content(finished(client, job.id).result_files[0]).text for job in jobs]
    assert curves[0] == curves[1] != curves[2]


def test_an_answer_uses_the_adapter_and_leaves_the_base_alone(client: OpenAI, server: Server, tmp_path: Path) -> None:
    """By log-probabilities, over HTTP: base before, adapter, base after."""
    pairs = [{"prompt": f"{i}:", "completion": " yes"} for i in range(12)]
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", pairs))
    job = client.fine_tuning.jobs.create(
        model="babbage-002", training_file=file, hyperparameters={"n_epochs": 5, "learning_rate_multiplier": 5}
    )
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error

    loose = server.client(_strict_response_validation=False)  # the first token has no log-probability: null

    def scores(model: str) -> list[float]:
        out = loose.completions.create(model=model, prompt="3: yes", max_tokens=0, echo=True, logprobs=1)
        return out.choices[0].logprobs.token_logprobs[1:]

    before = scores("babbage-002")
    tuned = scores(job.fine_tuned_model)
    assert scores("babbage-002") == before
    assert all(a > b + 0.5 for a, b in zip(tuned[1:], before[1:], strict=True)), "the completion became likelier"


def test_an_ended_run_keeps_no_rows_of_the_user(new_server: ServerMaker, tmp_path: Path) -> None:
    """Succeeded, failed and cancelled alike; what was cancelled while queued is tidied at the next start."""
    server = new_server()
    client = server.client()
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(40)))
    long = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters={"n_epochs": 50})
    queued = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters={"n_epochs": 1})
    data = {job.id: server.data_dir / "runs" / job.id / "data" for job in (long, queued)}
    deadline = time.monotonic() + 60
    while client.fine_tuning.jobs.retrieve(queued.id).status != "queued" and time.monotonic() < deadline:
        time.sleep(0.1)
    while client.fine_tuning.jobs.retrieve(long.id).status != "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert data[long.id].exists()
    assert data[queued.id].exists()
    for job in (queued, long):
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    while data[long.id].exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not data[long.id].exists()
    server.stop()
    server.start()
    assert not data[queued.id].exists()
    assert (server.data_dir / "runs" / long.id / "recipe.json").exists()


def test_an_integration_that_has_no_effect_is_said(client: OpenAI, tmp_path: Path) -> None:
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(2)))
    wandb = [{"type": "wandb", "wandb": {"project": "p"}}]
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, integrations=wandb)  # type: ignore[arg-type]
    assert job.integrations[0].wandb.project == "p"
    assert any("Weights & Biases" in text for text in messages(client, job.id))
    finished(client, job.id)
