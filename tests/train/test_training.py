"""The trainer against an independent loop: PEFT and transformers, one example at a time, no packing, no tricks."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import rows, write_jsonl
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pegbox.train import checkpoint
from pegbox.train.batches import micro_batches
from pegbox.train.loop import train
from pegbox.train.lora import use_own_linear
from pegbox.train.model import attach_adapter, load_base, trainable, use_trie
from pegbox.train.optim import FlatAdapter, learning_rate, make_optimizer
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import examples_of, steps_per_epoch
from pegbox.train.samples import read_samples
from pegbox.train.scoring import say

RunMaker = Callable[..., RunDir]


@pytest.fixture
def new_run(tiny_model: Path, tmp_path: Path) -> RunMaker:
    """A run directory as the server lays it out: `new_run("name", rows, n_epochs=2)`."""

    def make(name: str, train_rows: list[object], valid_rows: list[object] | None = None, **choices: object) -> RunDir:
        run = RunDir(tmp_path / name)
        run.create()
        write_jsonl(run.train_data, train_rows)
        if valid_rows:
            write_jsonl(run.valid_data, valid_rows)
        values = {
            "job_id": "ftjob-test", "base": "tiny", "base_folder": str(tiny_model), "base_fingerprint": "",
            "seed": 3, "n_epochs": 3, "batch_size": 4, "learning_rate": 5e-3, "learning_rate_multiplier": 1.0,
            "warmup_steps": 2, "max_tokens": 512, "threads": 1, "dtype": "float32",
        }  # fmt: skip
        Recipe(**{**values, **choices}).save(run.recipe_path)
        return run

    return make


def conversations(n: int) -> list[object]:
    """Rows of many shapes: several turns, weights, no system message, Japanese, one-token answers."""
    out: list[object] = []
    for i in range(n):
        messages: list[dict[str, object]] = [{"role": "system", "content": "Be brief." * (i % 3 + 1)}] if i % 2 else []
        messages += [{"role": "user", "content": f"Question {i}? " + "word " * (i % 7)}]
        messages += [{"role": "assistant", "content": f"Answer {i}", "weight": i % 2}]
        messages += [
            {"role": "user", "content": "もう一度"},
            {"role": "assistant", "content": "y" if i % 5 else "はい。" * 4},
        ]
        out.append({"messages": messages})
    return out


def naive_losses(run: RunDir, recipe: Recipe) -> list[float]:
    """Step losses of the plainest possible loop. Tokens come from transformers' own chat template; which of them
    are learnt is worked out here anew, from the marks of ChatML."""
    tokenizer = AutoTokenizer.from_pretrained(recipe.base_folder)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    examples = []
    for line in run.train_data.read_text("utf-8").splitlines():
        messages = json.loads(line)["messages"]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        labels = [-100] * len(ids)
        opens = [i for i, token in enumerate(ids) if token == start]
        header = len(tokenizer.encode("assistant\n", add_special_tokens=False))
        for message, at in zip(messages, opens[-len(messages) :], strict=True):
            if message["role"] == "assistant" and message.get("weight", 1):
                stop = ids.index(end, at)
                for i in range(at + 1 + header, stop + 1):
                    labels[i] = ids[i]
        examples.append((torch.tensor([ids]), torch.tensor([labels])))
    torch.manual_seed(recipe.seed)
    base = AutoModelForCausalLM.from_pretrained(recipe.base_folder, dtype=torch.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules="all-linear"
    )
    model = get_peft_model(base, config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    losses = []
    total = steps_per_epoch(len(examples), recipe.batch_size) * recipe.n_epochs
    for step in range(1, total + 1):
        batch = [examples[i] for i in examples_of(step, len(examples), recipe.batch_size, recipe.seed)]
        n = sum(int((labels[0, 1:] != -100).sum()) for _, labels in batch)
        loss_sum = 0.0
        for ids, labels in batch:
            logits = model(input_ids=ids).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum")
            (loss / n).backward()
            loss_sum += loss.item()
        losses.append(loss_sum / n)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = (
            recipe.learning_rate * min(1.0, step / recipe.warmup_steps) * (total - step + 1) / total
        )
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("made", [conversations, rows])  # rows: with one system prompt, which is computed once
def test_step_losses_equal_a_naive_loop(new_run: RunMaker, made: Callable[[int], list[object]]) -> None:
    run = new_run("run", made(42), batch_size=4, n_epochs=3)
    train(run)
    ours = [m.train_loss for m in run.curve()]
    theirs = naive_losses(run, run.recipe())
    assert len(ours) == len(theirs) == 33
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 1e-4
    assert ours[-1] < ours[0] - 0.5, "it learns at all"


@pytest.mark.parametrize("made", [conversations, rows])
@pytest.mark.parametrize("budget", [1, 300, 100_000])
def test_gradients_do_not_depend_on_micro_batches(
    new_run: RunMaker, budget: int, made: Callable[[int], list[object]]
) -> None:
    """One micro-batch of eight equals eight of one: the loss is a mean over the step's tokens, not of means. And a
    beginning that rows share is computed once or in every row: the gradients are the same."""
    run = new_run("run", made(8))
    recipe = run.recipe()
    samples = read_samples(run, recipe, valid=False)
    n = sum(sample.n_trained for sample in samples)

    def gradients(tokens: int, *, together: bool) -> dict[str, torch.Tensor]:
        model = attach_adapter(load_base(recipe.base_folder), recipe)
        for p in trainable(model).values():  # B is zero at first, and then A has no gradient
            torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(p.numel()))
        use_trie(model, on=together)
        if together:
            assert use_own_linear(model, FlatAdapter(trainable(model))) == 14
        for batch in micro_batches(samples, tokens, together=together):
            (-say(model, batch).logps.sum() / n).backward()
        return {name: p.grad for name, p in trainable(model).items()}  # type: ignore[misc]

    reference, ours = gradients(10_000_000, together=False), gradients(budget, together=True)
    for name, expected in reference.items():
        assert (ours[name] - expected).norm() < 1e-5 * expected.norm(), name


def test_same_seed_same_file_other_seed_other_file(new_run: RunMaker) -> None:
    def adapter(name: str, **choices: object) -> bytes:
        run = new_run(name, conversations(12), n_epochs=1, **choices)
        # Another process each time, so that hash seeds and memory layout differ.
        subprocess.run([sys.executable, "-m", "pegbox.train", str(run.path)], check=True, capture_output=True)
        folder = max(run.checkpoints.glob("step-*"))
        return b"".join((folder / file).read_bytes() for file in checkpoint.ADAPTER_FILES)

    first = adapter("a")
    assert adapter("b") == first
    assert adapter("c", seed=4) != first


def test_stopped_and_resumed_run_equals_the_undisturbed_one(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = new_run("undisturbed", conversations(12), n_epochs=3)
    train(undisturbed)
    broken = new_run("broken", conversations(12), n_epochs=3)
    report = broken.report

    def stop_at_five(metrics: object) -> None:
        report(metrics)  # type: ignore[arg-type]
        if metrics.step == 5:  # type: ignore[attr-defined]
            broken.request_stop()

    monkeypatch.setattr(broken, "report", stop_at_five)
    assert train(broken).outcome == "stopped"
    broken.clear()
    resumed = train(broken)
    assert resumed.outcome == "succeeded"
    assert resumed.trained_tokens == train_tokens(undisturbed)

    def figures(run: RunDir) -> list[tuple[int, float]]:
        return [(m.step, m.train_loss) for m in run.curve()]

    assert figures(broken) == figures(undisturbed)
    last = max(undisturbed.checkpoints.glob("step-*")).name
    ours = load_file(broken.checkpoints / last / "adapter_model.safetensors")
    theirs = load_file(undisturbed.checkpoints / last / "adapter_model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def train_tokens(run: RunDir) -> int:
    return run.curve()[-1].trained_tokens


def test_damaged_checkpoint_is_not_resumed_from(new_run: RunMaker) -> None:
    run = new_run("run", conversations(8), n_epochs=2)
    train(run)
    newest = max(run.checkpoints.glob("step-*"))
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    recipe = run.recipe()
    model = attach_adapter(load_base(recipe.base_folder), recipe)
    adapter = FlatAdapter(trainable(model))
    assert checkpoint.resume(run, adapter, make_optimizer(adapter, recipe)).step == 2  # of 4: the epoch before


def test_adapter_opens_in_peft_and_gives_the_same_logits(new_run: RunMaker, tiny_model: Path) -> None:
    run = new_run("run", conversations(8), n_epochs=2)
    train(run)
    folder = max(run.checkpoints.glob("step-*"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, folder)
    recipe = replace(run.recipe(), adapter_folder=str(folder))
    ours = attach_adapter(load_base(tiny_model), recipe)
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        assert torch.equal(theirs(input_ids=ids).logits, ours(input_ids=ids).logits)
        assert not torch.equal(theirs(input_ids=ids).logits, load_base(tiny_model)(input_ids=ids).logits)


def test_training_on_starts_where_the_adapter_ended(new_run: RunMaker) -> None:
    first = new_run("first", conversations(8), conversations(8), n_epochs=3)
    train(first)
    folder = max(first.checkpoints.glob("step-*"))
    second = new_run("second", conversations(8), conversations(8), n_epochs=1, adapter_folder=str(folder))
    train(second)
    start = second.notes()[0][0]
    assert start.data is not None
    assert start.data["full_valid_loss"] == pytest.approx(first.curve()[-1].full_valid_loss, abs=1e-6)
    assert "trained on from" in start.message


def test_step_zero_is_the_base_model_by_hand(new_run: RunMaker, tiny_model: Path) -> None:
    """Loss and accuracy of the untouched base over the held-out rows, against a sum worked out row by row."""
    run = new_run("run", rows(8), rows(5), n_epochs=1)
    train(run)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    nll, right, n = 0.0, 0, 0
    for sample in read_samples(run, run.recipe(), valid=True):
        (example,) = sample.examples
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([example.tokens])).logits[0].log_softmax(-1)
        for i in range(1, len(example.tokens)):
            if example.trained[i]:
                nll -= float(logprobs[i - 1, example.tokens[i]])
                right += int(logprobs[i - 1].argmax()) == example.tokens[i]
                n += 1
    data = run.notes()[0][0].data
    assert data is not None
    assert data["full_valid_loss"] == pytest.approx(nll / n, rel=1e-5)
    assert data["full_valid_mean_token_accuracy"] == pytest.approx(right / n)
    assert data["tokens"] == n


def test_validation_comes_when_it_should(new_run: RunMaker) -> None:
    run = new_run("run", rows(44), rows(6), batch_size=4, n_epochs=2)
    train(run)
    curve = {m.step: m for m in run.curve()}
    assert [s for s, m in curve.items() if m.valid_loss is not None] == [10, 11, 20, 22]
    assert [s for s, m in curve.items() if m.full_valid_loss is not None] == [11, 22]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000011", "step-000022"]


def test_learning_rate_rises_and_falls_in_lines(new_run: RunMaker) -> None:
    recipe = new_run("run", rows(2), learning_rate=1.0, warmup_steps=4).recipe()
    assert [learning_rate(s, 10, recipe) for s in (1, 2, 4, 5, 10)] == pytest.approx([0.25, 0.45, 0.7, 0.6, 0.1])


def test_cut_rows_learn_only_what_is_left(new_run: RunMaker) -> None:
    run = new_run("run", [{"prompt": "a" * 10, "completion": "b" * 10}], max_tokens=15)
    (sample,) = read_samples(run, run.recipe(), valid=False)
    (example,) = sample.examples
    assert len(example.tokens) == 15
    assert example.trained == [False] * 10 + [True] * 5


def test_a_recipe_with_an_unknown_key_is_refused(new_run: RunMaker) -> None:
    run = new_run("run", rows(2))
    values = json.loads(run.recipe_path.read_text("utf-8"))
    run.recipe_path.write_text(json.dumps({**values, "learning_rte": 1}), "utf-8")
    with pytest.raises(ValueError, match="learning_rte"):
        run.recipe()


def test_half_a_line_is_dropped_before_the_next_one(new_run: RunMaker) -> None:
    run = new_run("run", rows(4), n_epochs=1)
    (run.path / "metrics.jsonl").write_text('{"step": 1, "total', "utf-8")
    train(run)
    assert [m.step for m in run.curve()] == [1]


def test_diverging_run_says_so(new_run: RunMaker) -> None:
    run = new_run("run", rows(8), learning_rate=1e30, warmup_steps=1)
    result = train(run)
    assert result.outcome == "failed"
    assert result.code == "training_diverged"
    assert "learning_rate_multiplier" in str(result.message)
