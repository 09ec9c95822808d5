"""What a run attests, against transformers and PEFT asked one row at a time."""

import hashlib
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import rows
from peft import PeftModel
from test_training import RunMaker, conversations, new_run
from transformers import AutoModelForCausalLM

from pegbox.train import loop
from pegbox.train.loop import train
from pegbox.train.machine import Machine
from pegbox.train.rundir import RunDir
from pegbox.train.samples import read_samples

__all__ = ["new_run"]  # a fixture


def log_probs(model: torch.nn.Module, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)


def tuned_model(run: RunDir, tiny_model: Path) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return PeftModel.from_pretrained(base, max(run.checkpoints.glob("step-*")))


def test_evidence_by_hand(new_run: RunMaker, tiny_model: Path) -> None:
    """Eight rows that share a system prompt, so their batches share beginnings: each figure is still the row's own."""
    run = new_run("run", rows(12), rows(5), n_epochs=2)
    train(run)
    found = run.evidence()
    assert found is not None
    assert (found.train.rows, found.train.examples, found.train.strangers, found.valid.rows) == (12, 12, 0, 5)
    assert [s.file for s in found.samples] == sorted((s.file for s in found.samples), reverse=True), (
        "held-out rows first"
    )
    assert {s.file for s in found.samples} == {"train", "valid"}
    assert len(found.samples) <= 8
    model = tuned_model(run, tiny_model)
    for sample in found.samples:
        (part,) = sample.parts
        assert 2 in [part.tokens[i] for i in part.trained], "the stop token is learnt"
        with_adapter = log_probs(model, part.tokens)
        with model.disable_adapter():
            without = log_probs(model, part.tokens)
        for at, tuned, base in zip(part.trained, part.tuned, part.base, strict=True):
            assert tuned == pytest.approx(float(with_adapter[at - 1, part.tokens[at]]), abs=1e-4)
            assert base == pytest.approx(float(without[at - 1, part.tokens[at]]), abs=1e-4)
    assert (found.dtype, found.threads, found.seed, found.method) == ("float32", 1, 3, "supervised")
    assert found.versions["torch"] == torch.__version__
    for path in (
        run.recipe_path,
        run.train_data,
        run.valid_data,
        run.checkpoints / found.checkpoint / "adapter_model.safetensors",
    ):
        assert found.hashes[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.scored == "validation"
    assert found.before == run.notes()[0][0].data["full_valid_loss"]
    assert found.after == run.curve()[-1].full_valid_loss


def test_the_probability_of_stopping_by_hand(new_run: RunMaker, tiny_model: Path) -> None:
    run = new_run("run", rows(6), n_epochs=2)
    train(run)
    found = run.evidence()
    assert found is not None
    stop, model = found.stop, tuned_model(run, tiny_model)
    assert (stop.ends, stop.labelled) == (6, 6)
    learnt = [sample.examples[0] for sample in read_samples(run, run.recipe(), valid=False)]
    lengths = sorted(len(e.tokens) for e in learnt)
    short = [e for e in learnt if len(e.tokens) <= lengths[3]]
    assert stop.measured == len(short)
    tuned = [math.exp(float(log_probs(model, e.tokens)[-2, 2])) for e in short]
    with model.disable_adapter():
        base = [math.exp(float(log_probs(model, e.tokens)[-2, 2])) for e in short]
    assert stop.tuned == pytest.approx(sum(tuned) / len(tuned), abs=1e-4)
    assert stop.base == pytest.approx(sum(base) / len(base), abs=1e-4)
    assert (found.scored, found.before) == ("training", run.notes()[0][0].data["full_train_loss"])


def test_a_resumed_run_attests_the_same(new_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    # The recipe says how much memory was free, and its hash is attested.
    monkeypatch.setattr(loop, "this_machine", lambda: Machine("cpu", 8 * 2**30))
    whole = new_run("whole", conversations(8), conversations(4), n_epochs=2)
    train(whole)
    broken = new_run("broken", conversations(8), conversations(4), n_epochs=2)
    report = broken.report

    def stop_at_three(metrics) -> None:
        report(metrics)
        if metrics.step == 3:
            broken.request_stop()

    monkeypatch.setattr(broken, "report", stop_at_three)
    assert train(broken).outcome == "stopped"
    assert broken.evidence() is None
    broken.clear()
    assert train(broken).resumed
    assert train(broken).resumed, "and once more, with nothing left to do"
    ours, theirs = broken.evidence(), whole.evidence()
    assert ours is not None
    assert theirs is not None
    assert {k: v for k, v in asdict(ours).items() if k != "seconds"} == {
        k: v for k, v in asdict(theirs).items() if k != "seconds"
    }


def test_trained_on_from_another_adapter_the_base_is_the_base(new_run: RunMaker, tiny_model: Path) -> None:
    first = new_run("first", rows(8), n_epochs=2)
    train(first)
    folder = max(first.checkpoints.glob("step-*"))
    second = new_run("second", rows(8), n_epochs=1, adapter_folder=str(folder))
    train(second)
    found = second.evidence()
    assert found is not None
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    (part,) = found.samples[0].parts
    at = part.trained[0]
    assert part.base[0] == pytest.approx(float(log_probs(base, part.tokens)[at - 1, part.tokens[at]]), abs=1e-4)
