"""All weights learnt, against stock transformers and torch: gradients, steps, resumed runs, what is written."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from conftest import rows
from safetensors.torch import load_file
from test_exactness import CASES, DEPTHS, naive_logp
from test_training import RunMaker, conversations, new_run
from transformers import AutoConfig, AutoModelForCausalLM

from pegbox.data.render import Example
from pegbox.train import loop
from pegbox.train.batches import alone, micro_batches
from pegbox.train.head import log_probs
from pegbox.train.loop import train
from pegbox.train.machine import Machine, RefusedError, settle
from pegbox.train.methods.base import Score
from pegbox.train.model import on_trie, trainable
from pegbox.train.optim import FlatModel, make_optimizer, step
from pegbox.train.recipe import learning_rate_for
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import examples_of, steps_per_epoch
from pegbox.train.samples import read_samples
from pegbox.train.scoring import find_the_way, say
from pegbox.train.whole import as_base, load_whole

__all__ = ["new_run"]  # a fixture


@pytest.fixture(scope="module")
def untied(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head of its own."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    shutil.copytree(tiny_model, folder)
    config = AutoConfig.from_pretrained(tiny_model)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["tied", "untied"])
def base(request: pytest.FixtureRequest, tiny_model: Path, untied: Path) -> Path:
    return tiny_model if request.param == "tied" else untied


def stock(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def ready(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, FlatModel]:
    model = load_whole(folder)
    flat = FlatModel(trainable(model), dtype)
    samples = alone(DEPTHS[3])
    assert find_the_way(model, flat, micro_batches(samples, 99), micro_batches(samples, 99, together=False)) is None
    assert on_trie(model)
    return model, flat


def all_examples() -> list[Example]:
    return [*DEPTHS[4], *CASES["several turns"], *CASES["untrained ends"], *CASES["longer than a stretch"]]


@pytest.mark.parametrize("budget", [1, 40, 1000])
def test_gradients_of_every_weight(base: Path, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.train.head.TILE_BYTES", 4 * 259 * 7)  # so that there are several tiles
    examples = all_examples()
    n = sum(sum(e.trained[1:]) for e in examples)
    theirs = stock(base)
    (-torch.stack([naive_logp(theirs, e) for e in examples]).sum() / n).backward()
    ours, flat = ready(base)
    for batch in micro_batches(alone(examples), budget):
        (-say(ours, batch).logps.sum() / n).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    assert sorted(expected) == list(trainable(ours))
    assert flat.values.numel() == sum(g.numel() for g in expected.values())
    for name, p in trainable(ours).items():
        gradient = flat.piece(p).gradient
        assert (gradient - expected[name]).norm() <= 1e-5 * expected[name].norm(), name


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tile_bytes", [1, 4 * 2 * 11, 2**20])
def test_a_head_that_learns_is_cross_entropy(tile_bytes: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.train.head.TILE_BYTES", tile_bytes)
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 11, bias=bias)
    targets, weights = torch.randint(0, 11, (7,)), torch.randn(7)
    mine = torch.randn(7, 6).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    logps, hits = log_probs(head, mine, targets)
    (logps * weights).sum().backward()
    found = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    logits = head(theirs)
    expected = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    (expected * weights).sum().backward()
    torch.testing.assert_close(logps, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(found, [p.grad for p in head.parameters()])
    assert torch.equal(hits, logits.argmax(-1) == targets)


def test_bf16_stays_near_fp32(base: Path) -> None:
    """Computed in bf16, summed, stepped and kept in fp32: a step too small for bf16 is not lost."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model, flat = ready(base, dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
        for batch in micro_batches(alone(all_examples()), 60):
            (-say(model, batch).logps.sum() / 20).backward()
        assert flat.gradient.dtype == torch.float32
        found[dtype] = flat.gradient.clone()
        before = flat.values.clone()
        optimizer = make_optimizer(flat, namedtuple("Choice", "learning_rate")(1e-6))  # type: ignore[arg-type]  # noqa: PYI024
        step(optimizer, flat, 1e-6)
        moved = (flat.values - before).abs()
        assert moved.max() == pytest.approx(1e-6, rel=0.1)
        assert not flat.gradient.any()
        assert torch.equal(flat.working, flat.values.to(dtype))
    assert torch.nn.functional.cosine_similarity(*found.values(), dim=0) > 0.999


def test_the_norm_of_many_numbers() -> None:
    """Where the plain fp32 norm is a hundredth off."""
    flat = FlatModel({"a": torch.nn.Parameter(torch.zeros(1))})
    flat.values.grad = None
    flat.values = torch.zeros(50_000_000)
    flat.values.grad = torch.rand(50_000_000, generator=torch.Generator().manual_seed(0))
    assert flat.norm().item() == pytest.approx(flat.gradient.double().norm().item(), rel=1e-5)


def test_five_steps_are_those_of_a_plain_loop(new_run: RunMaker, base: Path) -> None:
    choices = {"base_folder": str(base), "weights": "all", "learning_rate": 1e-3}
    run = new_run("run", conversations(20), n_epochs=1, **choices)
    train(run)
    recipe = run.recipe()
    samples = [sample.examples[0] for sample in read_samples(run, recipe, valid=False)]
    model = stock(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    total = steps_per_epoch(len(samples), recipe.batch_size)
    losses = []
    for at in range(1, total + 1):
        chosen = [samples[i] for i in examples_of(at, len(samples), recipe.batch_size, recipe.seed)]
        n = sum(e.n_trained for e in chosen)
        loss = -torch.stack([naive_logp(model, e) for e in chosen]).sum() / n
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1, at / 2) * (total - at + 1) / total
        optimizer.step()
        optimizer.zero_grad()
    assert total == 5
    assert [m.train_loss for m in run.curve()] == pytest.approx(losses, abs=1e-5)
    made, began = stock(run.checkpoints / "step-000005"), stock(base)
    for (name, ours), theirs, first in zip(
        made.named_parameters(), model.parameters(), began.parameters(), strict=True
    ):
        assert (ours - theirs).norm() <= 1e-4 * (theirs - first).norm() + 1e-6 * theirs.norm(), name


def killed_and_resumed(run: RunDir, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    report = run.report

    def stop(metrics: object) -> None:
        report(metrics)  # type: ignore[arg-type]
        if metrics.step == after:  # type: ignore[attr-defined]
            run.request_stop()

    monkeypatch.setattr(run, "report", stop)
    assert train(run).outcome == "stopped"
    run.clear()
    assert train(run).resumed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_undisturbed_one(
    new_run: RunMaker, base: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = {"base_folder": str(base), "weights": "all", "learning_rate": 1e-3, "dtype": dtype, "n_epochs": 2}
    whole = new_run("whole", conversations(12), conversations(4), **choices)
    train(whole)
    broken = new_run("broken", conversations(12), conversations(4), **choices)
    killed_and_resumed(broken, monkeypatch, after=4)
    assert [(m.step, m.train_loss) for m in broken.curve()] == [(m.step, m.train_loss) for m in whole.curve()]
    names = sorted(path.name for path in (whole.checkpoints / "step-000006").iterdir())
    for name in names:
        ours, theirs = ((run.checkpoints / "step-000006" / name).read_bytes() for run in (broken, whole))
        assert ours == theirs, name
    evidence = broken.evidence(), whole.evidence()
    assert all(found is not None and found.dtype == dtype for found in evidence)
    assert evidence[0].samples == evidence[1].samples  # type: ignore[union-attr]


def test_a_run_killed_between_steps_by_a_signal(new_run: RunMaker) -> None:
    """Another process, killed where nothing is said in time; what it makes in the end is the same file."""
    choices = {"weights": "all", "learning_rate": 1e-3, "n_epochs": 3, "snapshot_seconds": 0.0}
    whole, killed = (new_run(name, conversations(12), **choices) for name in ("whole", "killed"))
    train(whole)
    child = subprocess.Popen([sys.executable, "-m", "pegbox.train", str(killed.path)], stderr=subprocess.DEVNULL)
    while child.poll() is None and not list(killed.checkpoints.glob("step-*")):
        time.sleep(0.01)
    child.kill()
    child.wait()
    train(killed)
    last = f"step-{whole.curve()[-1].step:06d}"
    made = [(run.checkpoints / last / "model.safetensors").read_bytes() for run in (whole, killed)]
    assert made[0] == made[1]


def test_what_is_written_is_a_model(new_run: RunMaker, base: Path) -> None:
    run = new_run("run", rows(8), rows(4), base_folder=str(base), weights="all", learning_rate=1e-3, n_epochs=2)
    train(run)
    folder = run.checkpoints / "step-000004"
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (base / name).read_bytes()
    tied = json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) == (not tied)
    model, untouched, evidence = stock(folder), stock(base), run.evidence()
    assert evidence is not None
    assert (
        evidence.hashes["model.safetensors"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    )
    for sample in evidence.samples:
        (part,) = sample.parts
        for who, said in ((model, part.tuned), (untouched, part.base)):
            with torch.inference_mode():
                logps = who(input_ids=torch.tensor([part.tokens])).logits[0].log_softmax(-1)
            expected = [float(logps[at - 1, part.tokens[at]]) for at in part.trained]
            assert said == pytest.approx(expected, abs=1e-4)
    assert evidence.after < evidence.before  # type: ignore[operator]


def test_training_on_begins_with_the_whole_model(new_run: RunMaker) -> None:
    first = new_run("first", rows(8), rows(8), weights="all", learning_rate=1e-3)
    train(first)
    folder = str(max(first.checkpoints.glob("step-*")))
    for weights in ("all", "adapter"):
        second = new_run(
            weights,
            rows(8),
            rows(8),
            weights=weights,
            base_folder=folder,
            base_key="adapters/ftjob-1/step-000006",
            n_epochs=1,
        )
        train(second)
        start = second.notes()[0][0]
        assert start.data is not None
        assert start.data["full_valid_loss"] == pytest.approx(first.curve()[-1].full_valid_loss, abs=1e-6)
        assert "the model trained on from" in start.message


def test_only_the_newest_and_the_best_are_kept(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four epochs of one step, their validation losses given: the second is the best."""
    run = new_run("run", rows(4), rows(4), weights="all", n_epochs=4)
    given = iter([4.0, 3.0, 3.0, 2.0, 2.0, 2.5, 2.5, 2.75, 2.75])  # at step 0; at each epoch's end a small look and all
    monkeypatch.setattr(loop, "_evaluate", lambda *_: Score(loss=next(given), weight=1, correct=0, tokens=1))
    train(run)
    assert run.best_step() == 2
    kept = {folder.name: (folder / "state.safetensors").exists() for folder in run.checkpoints.iterdir()}
    assert kept == {"step-000002": False, "step-000004": True}
    assert (run.checkpoints / "step-000002" / "model.safetensors").exists()


def test_stopped_early_the_best_is_attested(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run("run", rows(4), rows(4), weights="all", n_epochs=9, patience=2)
    given = iter([4.0, 3.0, 3.0, 2.0, 2.0, 2.5, 2.5, 2.75, 2.75])
    monkeypatch.setattr(loop, "_evaluate", lambda *_: Score(loss=next(given), weight=1, correct=0, tokens=1))
    assert train(run).step == 4
    evidence = run.evidence()
    assert evidence is not None
    assert evidence.checkpoint == "step-000002"
    weights = run.checkpoints / "step-000002" / "model.safetensors"
    assert evidence.hashes["model.safetensors"] == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_a_full_disk_ends_the_run_in_words(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run("run", rows(8), weights="all", snapshot_seconds=0.0)
    usage = namedtuple("Usage", "total used free")(2**40, 2**40, 2**20)  # noqa: PYI024
    monkeypatch.setattr("pegbox.train.checkpoint.shutil.disk_usage", lambda _: usage)
    result = train(run)
    assert (result.outcome, result.code) == ("failed", "insufficient_disk")
    assert "takes 0.3 GiB of disk, and 0.0 are free" in str(result.message)
    told = [note.message for note in run.notes()[0]]
    assert any(text.startswith("Step 1 could not be saved to go on from: ") for text in told)
    assert not list(run.checkpoints.iterdir())


def test_what_does_not_fit_into_memory_is_refused_early(
    new_run: RunMaker, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 bytes a weight in fp32, 18 in bf16; and two layers' activations of 512 tokens: 1.5 * 2 * (8 * 64 + 3 * 128)
    numbers a token, of which memory may hold 60 %."""
    weights = sum(p.numel() for p in stock(tiny_model).parameters())
    state, least = 16 * weights, int(512 * 1.5 * 2 * (8 * 64 + 3 * 128) * 4 / 0.6)
    recipe = new_run("run", rows(8), weights="all").recipe()
    fits = settle(recipe, Machine("cpu", state + least))
    assert fits.micro_batch_tokens == 512
    with pytest.raises(RefusedError, match=f"all {weights:,} weights takes at least .* GiB .*16 bytes a weight"):
        settle(recipe, Machine("cpu", state + least - 1))
    run = new_run("small", rows(8), weights="all", dtype="bfloat16")
    monkeypatch.setattr(loop, "this_machine", lambda: Machine("cpu", 2**20))
    result = train(run)
    assert (result.outcome, result.code, result.step) == ("failed", "insufficient_memory", 0)
    assert "18 bytes a weight" in str(result.message)
    assert "Leave out pegbox.weights" in str(result.message)


def test_as_base_gives_everything_back(base: Path) -> None:
    model, flat = ready(base)
    first = flat.values.clone()
    flat.values.add_(0.5)
    flat.renew()
    tuned = flat.values.clone()
    with as_base(flat, base):
        assert torch.equal(flat.values, first)
        assert torch.equal(next(iter(model.parameters())), next(iter(stock(base).parameters())))
    assert torch.equal(flat.values, tuned)


def test_preferences_are_against_the_model_at_step_0(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def pair(i: int) -> dict[str, object]:
        say = [{"role": "assistant", "content": text} for text in ("yes", "no way")]
        asked = {"messages": [{"role": "user", "content": f"Is {i} a number?"}]}
        return {"input": asked, "preferred_output": say[:1], "non_preferred_output": say[1:]}

    choices = {"weights": "all", "method": "dpo", "learning_rate": 1e-3, "n_epochs": 2}
    whole, broken = (new_run(name, [pair(i) for i in range(8)], **choices) for name in ("whole", "broken"))
    train(whole)
    killed_and_resumed(broken, monkeypatch, after=3)
    first, last = whole.curve()[0], whole.curve()[-1]
    assert first.train_loss == pytest.approx(0.6931, abs=1e-4), "nothing is preferred yet: ln 2"
    assert last.train_loss < 0.6
    made = [(run.checkpoints / "step-000004" / "model.safetensors").read_bytes() for run in (whole, broken)]
    assert made[0] == made[1]


def test_the_rate_is_a_tenth_of_an_adapters() -> None:
    assert learning_rate_for("supervised", 576)[0] == 1e-3
    assert learning_rate_for("supervised", 576, "all")[0] == 1e-4
    assert learning_rate_for("dpo", 576, "all")[0] == 1e-5
    assert learning_rate_for("supervised", 4096, "all") == (
        3.3e-05,
        "for a model 4096 wide, a tenth of an adapter's, as all weights are learnt",
    )
