"""Generations that go on together, against transformers' own, one at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from pegbox.engines.base import Delta, Generation, Sampling
from pegbox.engines.together import Together
from pegbox.engines.torch import TorchEngine

GREEDY = Sampling(temperature=0)
PROMPTS = [[1, 40, 50, 60], [1, 7], list(range(30, 75)), [1, 40, 50, 61, 9, 9, 9], [*range(30, 70), 3, 4], [5] * 20]


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model each of whose tokens sees the eight before it: its caches can't be put side by side."""
    folder = tmp_path_factory.mktemp("windowed")
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8, max_position_embeddings=256,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def generation(prompt: list[int], max_tokens: int, sampling: Sampling = GREEDY) -> Generation:
    return Generation(prompt=prompt, max_tokens=max_tokens, stop_ids=frozenset(), sampling=sampling)


def alone(folder: Path, prompt: list[int], n: int) -> list[int]:
    """By `generate`, in a model of its own."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    out = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=n,
        do_sample=False, eos_token_id=None, pad_token_id=2,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


def run(together: Together, into: dict[str, list[int]], steps: int = 1000) -> Iterator[str]:
    """Step on; the keys of those that end."""
    while together and steps:
        steps -= 1
        for key, told in list(together.step()):
            assert isinstance(told, Delta), told
            if told.finish:
                yield key
            else:
                assert told.token is not None
                into.setdefault(key, []).append(told.token)


@pytest.mark.parametrize("kind", ["tiny_model", "windowed"])
def test_as_alone_whoever_comes_and_goes(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    together = TorchEngine(folder, threads=1, loaded_adapters=1).together()
    lengths = [12, 30, 5, 20, 17, 9]
    made: dict[str, list[int]] = {}
    ended: list[str] = []
    for i, (prompt, n) in enumerate(zip(PROMPTS, lengths, strict=True)):
        together.add(str(i), generation(prompt, n))
        ended += run(together, made, steps=3)
    ended += run(together, made)
    assert sorted(ended) == [str(i) for i in range(len(PROMPTS))]
    for i, (prompt, n) in enumerate(zip(PROMPTS, lengths, strict=True)):
        assert made[str(i)] == alone(folder, prompt, n), i


def test_one_that_is_dropped_harms_nobody(tiny_model: Path) -> None:
    together = TorchEngine(tiny_model, threads=1, loaded_adapters=1).together()
    for i, prompt in enumerate(PROMPTS):
        together.add(str(i), generation(prompt, 12))
    made: dict[str, list[int]] = {}
    list(run(together, made, steps=4))
    together.drop("2")  # the longest: the others' padding goes with it
    together.drop("never there")
    list(run(together, made, steps=2))
    together.drop("0")
    list(run(together, made))
    for i in (1, 3, 4, 5):
        assert made[str(i)] == alone(tiny_model, PROMPTS[i], 12)
    assert [len(made["2"]), len(made["0"])] == [4, 6]


def test_seeds_count_as_alone(tiny_model: Path) -> None:
    engine = TorchEngine(tiny_model, threads=1, loaded_adapters=1)
    how = [Sampling(temperature=1.3, top_p=0.9, seed=seed, presence_penalty=0.5) for seed in range(6)]
    single = [
        [d.token for d in engine.stream(generation(p, 10, s)) if d.token is not None]
        for p, s in zip(PROMPTS, how, strict=True)
    ]
    together = engine.together()
    for i, (prompt, sampling) in enumerate(zip(PROMPTS, how, strict=True)):
        together.add(str(i), generation(prompt, 10, sampling))
    made: dict[str, list[int]] = {}
    list(run(together, made))
    assert [made[str(i)] for i in range(6)] == single


def test_a_known_beginning_is_not_computed_again(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(tiny_model, threads=1, loaded_adapters=1)
    fed: list[int] = []
    forward = engine._base.forward

    def counted(*args: object, **kwargs: object) -> object:
        fed.append(kwargs["input_ids"].numel())  # type: ignore[attr-defined]
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine._base, "forward", counted)
    beginning = list(range(3, 63))
    for ending in ([70, 71], [80, 81, 82], [70, 71], []):
        prompt = [*beginning, *ending]
        tokens = [d.token for d in engine.stream(generation(prompt, 6)) if d.token is not None]
        assert tokens == alone(tiny_model, prompt, 6)
    assert [n for n in fed if n != 1] == [62, 3]
    assert len(fed) == 2 + 4 * 5 + 1, "of five more tokens each, and the last of the prompt that another begins with"


def test_memory_of_prompts_is_bounded(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(tiny_model, threads=1, loaded_adapters=1)
    monkeypatch.setattr("pegbox.engines.together._REMEMBERED_BYTES", 100_000)
    for first in range(20):
        list(engine.stream(generation([first + 3] * 60, 1)))
    kept = engine._prompts._known
    assert 0 < len(kept) < 20
    assert kept[-1].tokens[0] == 22, "the newest stay"
    assert sum(one.bytes for one in kept) <= 100_000
