"""The trainer's gradients against example-by-example transformers and PEFT, for tries of every shape."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel

from pegbox.data.render import Example
from pegbox.train import losses
from pegbox.train.batches import alone, micro_batches
from pegbox.train.head import log_probs
from pegbox.train.lora import use_own_linear
from pegbox.train.methods.dpo import Dpo
from pegbox.train.model import attach_adapter, load_base, trainable, use_trie
from pegbox.train.optim import FlatAdapter
from pegbox.train.recipe import Recipe
from pegbox.train.samples import Sample
from pegbox.train.scoring import find_the_way, say

VOCABULARY = 40  # few tokens, so that texts begin alike by chance


@pytest.fixture(scope="module")
def pair(tiny_model: Path) -> tuple[PeftModel, PeftModel, FlatAdapter]:
    """The same model and adapter twice: stock PEFT, and ours with its flat adapter."""
    recipe = Recipe(
        job_id="", base="", base_folder=str(tiny_model), base_fingerprint="", seed=1, n_epochs=1, batch_size=1,
        learning_rate=0.0, learning_rate_multiplier=1.0, warmup_steps=1, max_tokens=512, threads=1,
    )  # fmt: skip
    models = [attach_adapter(load_base(tiny_model), recipe) for _ in range(2)]
    for model in models:
        for p in trainable(model).values():  # B is zero at first, and then A has no gradient
            torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(p.numel()))
    adapter = FlatAdapter(trainable(models[1]))
    use_own_linear(models[1], adapter)
    use_trie(models[1], on=True)
    return models[0], models[1], adapter


def naive_logp(model: PeftModel, example: Example) -> torch.Tensor:
    """Sum of the log-probabilities of an example's trained tokens, by stock transformers and PEFT."""
    logits = model(input_ids=torch.tensor([example.tokens])).logits[0].float()
    logps = logits[:-1].log_softmax(-1).gather(1, torch.tensor(example.tokens[1:])[:, None])[:, 0]
    return logps[torch.tensor(example.trained[1:], dtype=torch.bool)].sum()


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in trainable(model).items() if p.grad is not None}


def forget(model: PeftModel) -> None:
    for p in trainable(model).values():
        if p.grad is not None:
            p.grad.zero_()


def assert_same(theirs: PeftModel, ours: PeftModel) -> None:
    expected, found = gradients(theirs), gradients(ours)
    whole = torch.cat([g.flatten() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        # A tensor whose own gradient is next to nothing is held to the whole's.
        assert (found[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), 1e-2 * whole), name


def check(pair: tuple[PeftModel, PeftModel, FlatAdapter], examples: list[Example], budget: int) -> None:
    theirs, ours, _ = pair
    forget(theirs)
    forget(ours)
    n = sum(sum(e.trained[1:]) for e in examples)
    expected = [naive_logp(theirs, e) for e in examples]
    (-torch.stack(expected).sum() / n).backward()
    found = {}
    for batch in micro_batches(alone(examples), budget):
        logps = say(ours, batch).logps
        (-logps.sum() / n).backward()
        sums = losses.of_examples(logps.detach(), batch.owners, batch.examples)
        found |= dict(zip(batch.samples, sums.tolist(), strict=True))
    for i, e in enumerate(expected):
        assert abs(found.get(i, 0.0) - e.item()) < 1e-4 * max(1.0, abs(e.item()))
    assert_same(theirs, ours)


def text(*tokens: int, trained: str = "") -> Example:
    """`trained`: a letter a token, "x" where it is learnt; by default all but the first."""
    marks = trained or "." + "x" * (len(tokens) - 1)
    return Example(list(tokens), [mark == "x" for mark in marks])


DEPTHS = {
    1: [text(1, 2, 3), text(4, 5, 6)],
    2: [text(1, 2, 3, 4), text(1, 2, 5, 6)],
    3: [text(1, 2, 3, 4), text(1, 2, 3, 5), text(1, 7, 8)],
    4: [text(1, 2, 3, 4, 5), text(1, 2, 3, 4, 6), text(1, 2, 3, 7), text(1, 2, 8), text(9, 1)],
}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("budget", [1, 6, 1000])
def test_tries_of_every_depth(pair: tuple[PeftModel, PeftModel, FlatAdapter], depth: int, budget: int) -> None:
    check(pair, DEPTHS[depth], budget)


CASES = {
    "several turns": [text(1, 2, 3, 4, 5, 6, trained="..x..x"), text(1, 2, 3, 4, 7, 8, trained="..x.xx")],
    "weights of nought": [text(1, 2, 3, 4, trained="...x"), text(1, 2, 3, 4, 5, trained=".....")],
    "one token": [text(1, 2), text(1), text(3, 4)],
    "the same text twice": [text(1, 2, 3), text(1, 2, 3)],
    "one inside another": [text(1, 2, 3, 4, 5), text(1, 2, 3)],
    "untrained ends": [text(1, 2, 3, 4, 5, trained=".x..."), text(1, 2, 3, 9, trained=".xx.")],
    "longer than a stretch": [text(*[i % 37 for i in range(300)]), text(*[i % 37 for i in range(200)], 38, 39)],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [4, 1000])
def test_rows_of_every_kind(pair: tuple[PeftModel, PeftModel, FlatAdapter], case: str, budget: int) -> None:
    check(pair, CASES[case], budget)


examples = st.lists(
    st.builds(
        lambda tokens, marks: Example(tokens, [False, *marks[: len(tokens) - 1]]),
        st.lists(st.integers(0, 3), min_size=2, max_size=12),
        st.lists(st.booleans(), min_size=12, max_size=12),
    ),
    min_size=1,
    max_size=6,
).filter(lambda all_: any(any(e.trained) for e in all_))


@settings(max_examples=25)
@given(examples, st.integers(1, 60))
def test_random_tries(pair: tuple[PeftModel, PeftModel, FlatAdapter], found: list[Example], budget: int) -> None:
    check(pair, found, budget)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("budget", [1, 1000])
def test_preferences(pair: tuple[PeftModel, PeftModel, FlatAdapter], budget: int, together: bool) -> None:
    theirs, ours, _ = pair
    forget(theirs)
    forget(ours)
    samples = [
        Sample(0, (text(1, 2, 3, 4, 5, trained="...xx"), text(1, 2, 3, 6, trained="...x")), (-7.0, -3.0)),
        Sample(1, (text(1, 2, 9, 9, trained="..xx"), text(1, 2, 9, 8, 7, trained="..xxx")), (-6.0, -9.5)),
        Sample(2, (text(30, 2, trained=".x"), text(30, 3, trained=".x")), (-3.5, -4.0)),
    ]
    beta = 0.3
    expected = []
    for sample in samples:
        chosen, rejected = (naive_logp(theirs, e) for e in sample.examples)
        margin = beta * ((chosen - sample.reference[0]) - (rejected - sample.reference[1]))
        expected.append(-torch.nn.functional.logsigmoid(margin))
    (torch.stack(expected).sum() / 3).backward()
    method = Dpo(beta)
    found = {}
    use_trie(ours, on=together)
    for batch in micro_batches(samples, budget, together=together):
        measured = method.measure(say(ours, batch), batch, samples)
        (measured.losses.sum() / method.weight(samples)).backward()
        found |= dict(zip(batch.samples, measured.losses.tolist(), strict=True))
    use_trie(ours, on=True)
    assert [found[i] for i in range(3)] == pytest.approx([e.item() for e in expected], rel=1e-5)
    assert_same(theirs, ours)


@pytest.mark.parametrize("tile_bytes", [1, 4 * 2 * 11, 2**20])
def test_the_head_is_cross_entropy(tile_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.train.head.TILE_BYTES", tile_bytes)
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 11).requires_grad_(requires_grad=False)
    targets = torch.randint(0, 11, (7,))
    mine = torch.randn(7, 6).requires_grad_()
    theirs = mine.detach().clone().requires_grad_()
    weights = torch.randn(7)
    logps, hits = log_probs(head, mine, targets)
    (logps * weights).sum().backward()
    expected = -torch.nn.functional.cross_entropy(head(theirs), targets, reduction="none")
    (expected * weights).sum().backward()
    torch.testing.assert_close(logps, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    assert torch.equal(hits, head(theirs).argmax(-1) == targets)


def test_bf16_stays_near_fp32(tiny_model: Path) -> None:
    """The same gradients to bf16's three digits, summed in fp32."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        recipe = Recipe(
            job_id="", base="", base_folder=str(tiny_model), base_fingerprint="", seed=1, n_epochs=1, batch_size=1,
            learning_rate=0.0, learning_rate_multiplier=1.0, warmup_steps=1, max_tokens=512, threads=1,
        )  # fmt: skip
        model = attach_adapter(load_base(tiny_model, dtype), recipe)
        for p in trainable(model).values():
            assert p.dtype == torch.float32
            torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(p.numel()))
        adapter = FlatAdapter(trainable(model), getattr(torch, dtype))
        samples = alone(DEPTHS[4] + CASES["several turns"])
        assert (
            find_the_way(model, adapter, micro_batches(samples, 99), micro_batches(samples, 99, together=False)) is None
        )
        for batch in micro_batches(samples, 1000):
            (-say(model, batch).logps.sum() / 20).backward()
        assert adapter.gradient.dtype == torch.float32
        found[dtype] = adapter.gradient
    cosine = torch.nn.functional.cosine_similarity(found["float32"], found["bfloat16"], dim=0)
    assert cosine > 0.999


def test_a_model_that_answers_otherwise_stays_plain(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(
        job_id="", base="", base_folder=str(tiny_model), base_fingerprint="", seed=1, n_epochs=1, batch_size=1,
        learning_rate=0.0, learning_rate_multiplier=1.0, warmup_steps=1, max_tokens=512, threads=1,
    )  # fmt: skip
    model = attach_adapter(load_base(tiny_model), recipe)
    adapter = FlatAdapter(trainable(model))
    samples = alone(DEPTHS[3])
    monkeypatch.setattr(
        "pegbox.train.scoring.log_probs", lambda *args: (log_probs(*args)[0] - 1.0, log_probs(*args)[1])
    )
    together, singly = micro_batches(samples, 99), micro_batches(samples, 99, together=False)
    why = find_the_way(model, adapter, together, singly)
    assert why == "its predictions would differ by 1 nats"
    monkeypatch.undo()
    expected = [naive_logp(model, sample.examples[0]).item() for sample in samples]
    found = {b.samples[0]: say(model, b).logps.sum().item() for b in singly}
    assert [found[i] for i in range(3)] == pytest.approx(expected)
