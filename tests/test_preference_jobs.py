"""Preference tuning around the trainer: what is refused, counted, chosen, written into the run and told."""

import csv
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ServerMaker, chat_row, finished, messages, rows, upload, write_jsonl
from openai import OpenAI

from pegbox.cli.curves import draw
from pegbox.cli.metrics import curve, point
from pegbox.cli.progress import figures
from pegbox.data.count import TokenCounter
from pegbox.data.formats import parse_row
from pegbox.data.render import examples
from pegbox.data.template import load_template
from pegbox.jobs.execute import step_metrics_csv
from pegbox.jobs.follow import step_event
from pegbox.jobs.foresee import load
from pegbox.train.recipe import Recipe, auto_preference_batch_size, base_learning_rate, preference_learning_rate
from pegbox.train.rundir import StepMetrics

EXAMPLES = Path(__file__).parents[1] / "examples" / "preferences"


def pair(asked: str, better: str, worse: str, word: str = "output") -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": asked}]},
        f"preferred_{word}": [{"role": "assistant", "content": better}],
        f"non_preferred_{word}": [{"role": "assistant", "content": worse}],
    }


def pairs(n: int, word: str = "output") -> list[object]:
    return [pair(f"Question {i}?", f"Gladly: {i}.", "No.", word) for i in range(n)]


def dpo(**hyperparameters: object) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def told(client: OpenAI, job_id: str, start: str, seconds: float = 60) -> dict[str, Any]:
    """The data of the event that begins so, once it is there. What becomes of the job afterwards is not looked at."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in client.fine_tuning.jobs.list_events(job_id, limit=100):
            if event.message.startswith(start):
                return event.data or {}
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status == "failed":
            assert any(m.startswith("Files validated") for m in messages(client, job_id)), job.error
        time.sleep(0.05)
    raise AssertionError(f"{job_id} never said {start!r}: {messages(client, job_id)}")


@pytest.fixture
def quiet(new_server: ServerMaker):
    """A server of the test's own, whose runs can be looked into."""
    return new_server()


def recipe_of(server: Any, job_id: str) -> Recipe:
    told(server.client(), job_id, "Files validated")
    return Recipe.load(server.data_dir / "runs" / job_id / "recipe.json")


# --- files of the wrong kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "train", "valid", "param", "said"),
    [
        ("dpo", rows(12), None, "training_file", ("fine-tune-chat", "supervised", "dpo")),
        ("dpo", [{"prompt": "a", "completion": "b"}] * 12, None, "training_file",
         ("fine-tune-completion", "supervised", "dpo")),
        ("dpo", pairs(12), rows(3), "validation_file", ("fine-tune-chat", "supervised", "dpo")),
        ("supervised", pairs(12), None, "training_file", ("fine-tune-preference", "dpo", "supervised")),
        ("supervised", pairs(12, "completion"), None, "training_file", ("fine-tune-preference", "dpo", "supervised")),
        ("supervised", rows(12), pairs(3), "validation_file", ("fine-tune-preference", "dpo", "supervised")),
    ],
)  # fmt: skip
def test_a_file_of_the_other_kind_fails_the_job_in_the_api_s_words(
    client: OpenAI, tmp_path: Path, method: str, train: list[object], valid: list[object] | None, param: str,
    said: tuple[str, str, str],
) -> None:  # fmt: skip
    files = {"training_file": upload(client, write_jsonl(tmp_path / "t.jsonl", train))}
    if valid:
        files["validation_file"] = upload(client, write_jsonl(tmp_path / "v.jsonl", valid))
    job = client.fine_tuning.jobs.create(model="tiny", method={"type": method}, **files)
    job = finished(client, job.id, seconds=60)
    kind, wanted, given = said
    which = param.removesuffix("_file")
    assert (job.status, job.error.code, job.error.param) == ("failed", "invalid_training_file", param)
    assert job.error.message.startswith(
        f"The job failed due to an invalid {which} file. Invalid file format. Input file {files[param]} is in the {kind} "
        f"format, but the specified fine-tuning job is not using '{wanted}' as the training method (provided "
        f"method={given}). "
    )


def test_bad_pairs_are_named_one_by_one(client: OpenAI, tmp_path: Path) -> None:
    lines = pairs(12)
    lines[3] = {**pair("a", "b", "c"), "non_preferred_output": []}
    lines[7] = chat_row("a", "b")
    job = client.fine_tuning.jobs.create(
        model="tiny", method={"type": "dpo"}, training_file=upload(client, write_jsonl(tmp_path / "t.jsonl", lines))
    )
    job = finished(client, job.id, seconds=60)
    assert job.status == "failed"
    assert "2 of 12 examples are bad" in job.error.message
    assert "Example 4, non_preferred_output: must be a list of one assistant message (line 4)" in job.error.message
    assert "Example 8: the row is for a supervised job" in job.error.message


def test_pairs_are_for_chat_models_only(client: OpenAI, tmp_path: Path) -> None:
    """A model tuned on completions is asked by completions: no pair of chat answers can make it better."""
    plain = [{"prompt": f"{i}:", "completion": " yes"} for i in range(10)]
    parent = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, write_jsonl(tmp_path / "p.jsonl", plain)),
        hyperparameters={"n_epochs": 1, "batch_size": 10},
    )  # fmt: skip
    parent = finished(client, parent.id)
    job = client.fine_tuning.jobs.create(
        model=parent.fine_tuned_model, method={"type": "dpo"},
        training_file=upload(client, write_jsonl(tmp_path / "t.jsonl", pairs(12))),
    )  # fmt: skip
    job = finished(client, job.id, seconds=60)
    assert job.status == "failed"
    assert "is in preference format, but this model is tuned on completion rows" in job.error.message


# --- rows, counted ---------------------------------------------------------------------------------------------


def test_both_answers_count(client: OpenAI, tmp_path: Path) -> None:
    """By hand, in bytes and ChatML's marks: `<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n` is 21 tokens, an
    answer its letters and the mark that ends it. One row's question fills the context, so it is refused."""
    lines = [*[pair("hi", "yes!", "no") for _ in range(11)], pair("x" * 600, "yes!", "no")]
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", lines))
    job = client.fine_tuning.jobs.create(model="tiny", method={"type": "dpo"}, training_file=file)
    data = told(client, job.id, "Training file:")
    assert {k: data[k] for k in ("examples", "used", "refused", "tokens", "trained_tokens", "trained_tokens_lost")} == {
        "examples": 12, "used": 11, "refused": 1, "tokens": 11 * (21 + 5 + 21 + 3), "trained_tokens": 11 * (5 + 3),
        "trained_tokens_lost": 5 + 3,
    }  # fmt: skip
    assert told(client, job.id, "1 training examples were refused, because cutting left nothing of an answer: 12")


@pytest.mark.parametrize("limit", [0, 512, 60, 21, 22])
def test_a_pair_keeps_both_answers_or_goes(tiny_model: Path, limit: int) -> None:
    template = load_template(tiny_model)
    record = parse_row(pair("hi", "a" * 100, "no"), "dpo")
    count = TokenCounter(template, limit).count_record(record)
    long, short = (len(example.tokens) for example in examples(record, template))
    assert (count.tokens, count.longest, count.trained) == (long + short, long, 101 + 3)
    if limit == 21:  # the question alone
        assert (count.kept, count.kept_trained) == (0, 0)
    else:
        most = limit or 10**6
        kept = [min(long, most), min(short, most)]
        assert (count.kept, count.kept_trained) == (sum(kept), sum(kept) - 2 * 21)


# --- what is chosen, and what the trainer is given ----------------------------------------------------------------


def test_every_auto_is_a_number_with_a_reason(quiet: Any, tmp_path: Path) -> None:
    client = quiet.client()
    train, valid = (upload(client, EXAMPLES / f"{name}.jsonl") for name in ("train", "valid"))
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini", training_file=train, validation_file=valid, method={"type": "dpo"}, seed=5
    )
    recipe = recipe_of(quiet, job.id)
    assert (recipe.method, recipe.format, recipe.seed, recipe.adapter_folder) == ("dpo", "chat", 5, None)
    assert (recipe.n_epochs, recipe.batch_size, recipe.beta, recipe.learning_rate_multiplier) == (3, 2, 0.1, 1.0)
    assert recipe.learning_rate == pytest.approx(base_learning_rate(64)[0] / 10, rel=0.05)
    assert set(recipe.reasons) == {"n_epochs", "batch_size", "learning_rate_multiplier", "learning_rate", "beta"}
    plan = told(client, job.id, "Plan:")
    assert (plan["method"], plan["beta"], plan["reasons"]) == ("dpo", 0.1, recipe.reasons)
    assert plan["estimate"]["computed_per_epoch"] < plan["estimate"]["tokens_per_epoch"], "prompts are shared"
    job = client.fine_tuning.jobs.retrieve(job.id)
    numbers = {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 1.0, "beta": 0.1}
    assert job.method.to_dict() == {"type": "dpo", "dpo": {"hyperparameters": numbers}}
    assert job.hyperparameters.to_dict() == numbers


@pytest.mark.parametrize("word", ["output", "completion"])
def test_a_wish_is_heeded_and_both_spellings_are_taken(quiet: Any, tmp_path: Path, word: str) -> None:
    client = quiet.client()
    lines = pairs(12, word)
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, write_jsonl(tmp_path / "t.jsonl", lines)),
        method=dpo(beta=0.5, n_epochs=2), hyperparameters={"batch_size": 3},
    )  # fmt: skip
    recipe = recipe_of(quiet, job.id)
    assert (recipe.beta, recipe.n_epochs, recipe.batch_size) == (0.5, 2, 3)
    assert recipe.reasons["beta"] == recipe.reasons["batch_size"] == "asked for"


def test_a_tenth_is_held_out_with_equal_pairs_on_one_side(quiet: Any, tmp_path: Path) -> None:
    client = quiet.client()
    lines = [*pairs(210), *pairs(10)]
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, write_jsonl(tmp_path / "t.jsonl", lines)), method={"type": "dpo"}
    )
    assert told(client, job.id, "No validation file was given") == {"held_out": 22, "trained": 198}


def test_a_tuned_model_is_trained_on_from(quiet: Any, tmp_path: Path) -> None:
    """The usual order: answers first, then preferences. The run begins at the tuned model's adapter."""
    client = quiet.client()
    parent = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, write_jsonl(tmp_path / "s.jsonl", rows(10))),
        hyperparameters={"n_epochs": 1, "batch_size": 10},
    )  # fmt: skip
    parent = finished(client, parent.id)
    job = client.fine_tuning.jobs.create(
        model=parent.fine_tuned_model, method={"type": "dpo"},
        training_file=upload(client, write_jsonl(tmp_path / "t.jsonl", pairs(12))),
    )  # fmt: skip
    recipe = recipe_of(quiet, job.id)
    assert (recipe.method, recipe.format, job.model) == ("dpo", "chat", parent.fine_tuned_model)
    assert recipe.adapter_folder is not None
    assert (Path(recipe.adapter_folder) / "adapter_model.safetensors").exists()


def test_the_estimate_counts_the_reference_and_shares_the_prompts(tiny_model: Path, tmp_path: Path) -> None:
    """By hand: a prompt of 21 tokens, answers of 5 and 3. A pair by itself in a batch is 21 + 5 + 3: the
    prompt is computed once."""
    from pegbox.data.check import look
    from pegbox.data.survey import Target

    target = Target("tiny", tiny_model, load_template(tiny_model), limit=512)
    train = write_jsonl(tmp_path / "t.jsonl", [pair("hi", "yes!", "no")] * 12)
    valid = write_jsonl(tmp_path / "v.jsonl", [pair("ho", "sure", "no")] * 3)
    with train.open("rb") as rows_, valid.open("rb") as held:
        looked = look([("t", rows_), ("v", held)], target=target, method="dpo", quick=True)
    assert looked.validation is not None
    made = load(looked.training, looked.validation, target, holdout=True, epochs=2, batch_size=1)
    share = (21 + 4 + 2) / (2 * 21 + 5 + 3)  # the last token of an answer is predicted, never read
    assert made.tokens_per_epoch == 12 * 50
    assert made.computed_per_epoch == round(12 * 50 * share)
    looks = (24 // 10 + 2) * 3 * 50  # at steps 10 and 20 and at each epoch's end, all three pairs
    assert made.scored == round((12 * 50 + 3 * 50 * (1 + 2) + looks) * share)
    alone = load(looked.training, None, target, holdout=True, epochs=2, batch_size=1)
    assert alone.scored == alone.computed_per_epoch, "the reference's look is step 0"


@pytest.mark.parametrize(
    ("pairs_", "epochs", "size"), [(10, 10, 2), (40, 3, 2), (200, 3, 12), (5_000, 2, 16), (1, 1, 1)]
)
def test_auto_batch_size_of_pairs(pairs_: int, epochs: int, size: int) -> None:
    """pairs * epochs div 50, at most 16."""
    assert auto_preference_batch_size(pairs_, epochs)[0] == size


def test_auto_learning_rate_of_pairs() -> None:
    """A tenth: 1e-4 for SmolLM2-135M, which is 576 wide."""
    assert preference_learning_rate(576)[0] == pytest.approx(1e-4, rel=0.05)


# --- what is told of its steps ------------------------------------------------------------------------------------


def metrics(step: int, **more: float) -> StepMetrics:
    return StepMetrics(
        step, 9, 0.65, 0.5, train_reward_margin=0.25, train_reward_accuracy=0.75, train_chosen_reward=0.2,
        train_rejected_reward=-0.05, trained_tokens=9, **more,
    )  # fmt: skip


def test_a_step_s_line_begins_as_it_always_did() -> None:
    event = step_event(metrics(3))
    assert event.message == "Step 3/9: training loss=0.65, training reward accuracy=0.75, training reward margin=0.25"
    assert event.data == {
        "step": 3, "total_steps": 9, "train_loss": 0.65, "train_mean_token_accuracy": 0.5, "train_reward_margin": 0.25,
        "train_reward_accuracy": 0.75, "train_chosen_reward": 0.2, "train_rejected_reward": -0.05,
    }  # fmt: skip
    whole = step_event(
        metrics(3, valid_loss=0.6, full_valid_loss=0.61, valid_reward_accuracy=1, full_valid_reward_accuracy=0.9)
    )
    assert whole.message.startswith("Step 3/9: training loss=0.65, validation loss=0.60, full validation loss=0.61, ")
    assert whole.message.endswith("validation reward accuracy=1.00, full validation reward accuracy=0.90")


def test_the_result_file_has_the_rewards_after_the_documented_columns() -> None:
    content = step_metrics_csv(
        [metrics(1), metrics(2, valid_loss=0.6, valid_reward_margin=0.3, valid_reward_accuracy=1)]
    )
    lines = content.decode().splitlines()
    assert lines[0] == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,train_reward_margin,train_reward_accuracy,"
        "train_chosen_reward,train_rejected_reward,valid_reward_margin,valid_reward_accuracy,full_valid_reward_margin,"
        "full_valid_reward_accuracy"
    )
    assert lines[1] == "1,0.65000,0.50000,,,0.25000,0.75000,0.20000,-0.05000,,,,"
    assert lines[2] == "2,0.65000,0.50000,0.60000,,0.25000,0.75000,0.20000,-0.05000,0.30000,1.00000,,"


def test_the_result_file_of_a_supervised_job_is_as_documented() -> None:
    content = step_metrics_csv([StepMetrics(1, 9, 0.65, 0.5)])
    assert content == b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,0.65000,0.50000,,\n"


def test_the_command_line_shows_rewards(tmp_path: Path) -> None:
    found = [step_event(metrics(i, valid_reward_margin=-0.1, valid_reward_accuracy=0.5)).data for i in range(1, 10)]
    points = curve(found)
    assert [p.train_reward_margin for p in points] == [0.25] * 9
    assert figures(points[2]) == "step 3/9  loss 0.650  reward accuracy 75%"
    assert point({"step": 4, "train_reward_margin": 1}) is not None
    draw(tmp_path / "a.png", "a job", points)
    draw(tmp_path / "b.png", "a job", curve([{"step": 1, "train_loss": 1.0}]))
    wide, narrow = (int.from_bytes((tmp_path / f"{name}.png").read_bytes()[16:20]) for name in "ab")
    assert wide > narrow, "a third panel"


# --- the whole way ------------------------------------------------------------------------------------------------


def test_pairs_are_learnt(client: OpenAI, tmp_path: Path) -> None:
    train, valid = (upload(client, EXAMPLES / f"{name}.jsonl") for name in ("train", "valid"))
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=train, validation_file=valid, seed=1,
        method=dpo(beta=0.2, n_epochs=6, batch_size=4, learning_rate_multiplier=9),
    )  # fmt: skip
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    steps = {
        e.data["step"]: e.data for e in client.fine_tuning.jobs.list_events(job.id, limit=100) if e.type == "metrics"
    }
    assert set(steps) == set(range(1, 61))
    assert steps[1]["train_loss"] == pytest.approx(0.6931, abs=1e-3), "before the first step both models are one"
    assert steps[1]["train_reward_margin"] == pytest.approx(0, abs=1e-3)
    last = [steps[i] for i in range(51, 61)]  # an epoch
    assert sum(step["train_reward_accuracy"] for step in last) / 10 > 0.9
    assert sum(step["train_reward_margin"] for step in last) / 10 > 1
    assert steps[60]["full_valid_reward_accuracy"] >= 0.8
    (file_id,) = job.result_files
    table = list(csv.DictReader(client.files.content(file_id).text.splitlines()))
    assert float(table[0]["train_loss"]) == pytest.approx(0.69315, abs=1e-3)
    assert all(float(cell) == float(cell) for row in table for cell in row.values() if cell)
    newest = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    assert newest.metrics.to_dict()["full_valid_reward_accuracy"] == steps[60]["full_valid_reward_accuracy"]
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "Where is it?"}], max_tokens=3
    )
    assert answer.usage.completion_tokens <= 3


def test_preferences_after_answers(client: OpenAI, tmp_path: Path) -> None:
    """The reference is then the tuned model, so the first step's rewards are nothing all the same."""
    parent = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, write_jsonl(tmp_path / "s.jsonl", rows(20))),
        hyperparameters={"n_epochs": 3, "batch_size": 5},
    )  # fmt: skip
    parent = finished(client, parent.id)
    job = client.fine_tuning.jobs.create(
        model=parent.fine_tuned_model, method=dpo(n_epochs=1, batch_size=6),
        training_file=upload(client, write_jsonl(tmp_path / "t.jsonl", pairs(12))),
    )  # fmt: skip
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    first = told(client, job.id, "Step 1/2:")
    assert first["train_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first["train_reward_margin"] == pytest.approx(0, abs=1e-3)
