"""The engine against transformers and PEFT themselves, and its promise that adapters never mix."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from pegbox.data.template import load_template
from pegbox.engines.base import AdapterRef, Delta, Engine, Generation, Sampling
from pegbox.engines.hosted import HostedEngine
from pegbox.engines.torch import TorchEngine
from pegbox.engines.writer import Piece, write
from pegbox.errors import EngineError

PROMPT = [1, 40, 50, 60, 70, 80]


def make_adapter(base: Path, folder: Path, seed: int) -> AdapterRef:
    """An adapter that changes the model a lot."""
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.5)
    model.save_pretrained(folder)
    return AdapterRef(f"ft:tiny:org::{folder.name}", str(folder))


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(tiny_model, root / f"a{i}", seed=i) for i in range(4)]


@pytest.fixture(scope="module")
def hosted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedEngine]:
    log = tmp_path_factory.mktemp("log") / "engine.txt"
    engine = HostedEngine(tiny_model, log, threads=1, loaded_adapters=2)  # fewer than the adapters: they churn
    yield engine
    engine.close()


def generation(adapter: AdapterRef | None = None, **changes: object) -> Generation:
    values = {"prompt": PROMPT, "max_tokens": 8, "stop_ids": frozenset(), "sampling": Sampling(temperature=0)}
    return Generation(adapter=adapter, **{**values, **changes})  # type: ignore[arg-type]


def tokens(deltas: Iterator[Delta]) -> list[int]:
    return [delta.token for delta in deltas if delta.token is not None]


def reference_logprobs(base: Path, adapter: AdapterRef | None, ids: list[int]) -> list[float]:
    """A cold model with one adapter, or none, and no engine of ours."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    with torch.inference_mode():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))]


def logprobs(engine: Engine, adapter: AdapterRef | None, ids: list[int]) -> list[float]:
    return [score.logprob for score in engine.score(ids, adapter) if score is not None]


def test_greedy_tokens_equal_transformers_generate(tiny_model: Path, hosted: HostedEngine) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    out = model.generate(
        input_ids=torch.tensor([PROMPT]), attention_mask=torch.ones(1, len(PROMPT)), max_new_tokens=20,
        do_sample=False, eos_token_id=None, pad_token_id=2,
    )  # fmt: skip
    assert tokens(hosted.stream(generation(max_tokens=20))) == out[0, len(PROMPT) :].tolist()


def test_adapters_never_mix(tiny_model: Path, hosted: HostedEngine, adapters: list[AdapterRef]) -> None:
    """Four adapters and the base in random order, in an engine that holds two: each answers as a cold model with
    that adapter alone would, and the base stays the base."""
    ids = [*PROMPT, 90, 91, 92]
    expected = {a and a.name: reference_logprobs(tiny_model, a, ids) for a in [None, *adapters]}
    assert len({tuple(values) for values in expected.values()}) == 5, "all differ from one another"
    order = random.Random(0).choices([None, *adapters], k=40)
    for adapter in order:
        assert logprobs(hosted, adapter, ids) == pytest.approx(expected[adapter and adapter.name], abs=1e-4)


def test_open_generations_take_turns_and_do_not_mix(hosted: HostedEngine, adapters: list[AdapterRef]) -> None:
    alone = [tokens(hosted.stream(generation(a, max_tokens=12))) for a in [None, *adapters]]
    streams = [hosted.stream(generation(a, max_tokens=12)) for a in [None, *adapters]]
    together: list[list[int]] = [[] for _ in streams]
    for _ in range(12):
        for i, stream in enumerate(streams):
            token = next(stream).token
            assert token is not None
            together[i].append(token)
    assert together == alone


def test_base_is_bit_for_bit_the_base_after_an_adapter(hosted: HostedEngine, adapters: list[AdapterRef]) -> None:
    before = logprobs(hosted, None, PROMPT)
    logprobs(hosted, adapters[0], PROMPT)
    assert logprobs(hosted, None, PROMPT) == before


def test_unload_and_load_again(hosted: HostedEngine, adapters: list[AdapterRef]) -> None:
    before = logprobs(hosted, adapters[0], PROMPT)
    hosted.unload(adapters[0].name)
    hosted.unload("never loaded")
    assert logprobs(hosted, adapters[0], PROMPT) == before


def test_missing_adapter_is_an_error_and_the_engine_lives(hosted: HostedEngine, tmp_path: Path) -> None:
    gone = AdapterRef("ft:tiny:org::gone", str(tmp_path / "gone"))
    with pytest.raises(EngineError, match="ft:tiny:org::gone can't be loaded"):
        list(hosted.stream(generation(gone)))
    with pytest.raises(EngineError, match="can't be loaded"):
        hosted.score(PROMPT, gone)
    assert tokens(hosted.stream(generation()))


def test_closed_stream_stops_generating(hosted: HostedEngine) -> None:
    stream = hosted.stream(generation(max_tokens=400))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(tokens(hosted.stream(generation(max_tokens=3)))) == 3


def test_dead_process_is_an_error_not_a_hang(tiny_model: Path, tmp_path: Path) -> None:
    engine = HostedEngine(tiny_model, tmp_path / "log.txt", threads=1, loaded_adapters=1)
    stream = engine.stream(generation(max_tokens=400))
    next(stream)
    engine.close()
    with pytest.raises(EngineError, match="ended with status -9"):
        list(stream)
    assert not engine.alive


def test_unloadable_base_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="can't be loaded"):
        HostedEngine(tmp_path, tmp_path / "log.txt", threads=1, loaded_adapters=1)


# --- sampling, on the engine without its process -------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> TorchEngine:
    return TorchEngine(tiny_model, threads=1, loaded_adapters=1)


def test_seed_repeats_and_other_seed_differs(engine: TorchEngine) -> None:
    def draw(seed: int | None) -> list[int]:
        return tokens(engine.stream(generation(sampling=Sampling(seed=seed), max_tokens=20)))

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)


def test_logprobs_are_those_of_the_plain_distribution(tiny_model: Path, engine: TorchEngine) -> None:
    how = generation(top_logprobs=3, sampling=Sampling(temperature=1.7, seed=1, frequency_penalty=1.0))
    deltas = [delta for delta in engine.stream(how) if delta.token is not None]
    ids = PROMPT + [delta.token for delta in deltas if delta.token is not None]
    expected = reference_logprobs(tiny_model, None, ids)[len(PROMPT) - 1 :]
    scores = [delta.score for delta in deltas if delta.score is not None]
    assert [score.logprob for score in scores] == pytest.approx(expected, abs=1e-4)
    for score in scores:
        assert len(score.top) == 3
        assert score.top[0][1] >= score.top[1][1] >= score.top[2][1]
        assert score.logprob <= score.top[0][1] + 1e-6


def test_top_p_keeps_the_smallest_set_that_reaches_it(tiny_model: Path, engine: TorchEngine) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.inference_mode():
        p, order = model(input_ids=torch.tensor([PROMPT])).logits[0, -1].softmax(-1).sort(descending=True)
    top_p = float(p[:3].sum()) - 1e-4  # the third crosses the line
    drawn = {
        tokens(engine.stream(generation(sampling=Sampling(top_p=top_p, seed=i), max_tokens=1)))[0] for i in range(60)
    }
    assert drawn == set(order[:3].tolist())


def test_logit_bias_forbids_and_forces(engine: TorchEngine) -> None:
    favourite = tokens(engine.stream(generation(max_tokens=1)))[0]
    banned = Sampling(temperature=0, logit_bias={favourite: -100})
    assert favourite not in tokens(engine.stream(generation(sampling=banned)))
    forced = Sampling(temperature=0, logit_bias={77: 100, 10_000_000: 5})
    assert tokens(engine.stream(generation(sampling=forced))) == [77] * 8


def test_presence_penalty_avoids_repetition(engine: TorchEngine) -> None:
    plain = Sampling(temperature=0, logit_bias={77: 100})
    punished = replace(plain, presence_penalty=2.0, frequency_penalty=2.0, logit_bias={77: 1.0, 78: 1.0})
    assert len(set(tokens(engine.stream(generation(sampling=plain))))) == 1
    assert len(set(tokens(engine.stream(generation(sampling=punished))))) > 4


def test_stop_token_ends_and_is_not_shown(engine: TorchEngine) -> None:
    (first,) = tokens(engine.stream(generation(max_tokens=1)))
    stopped = list(engine.stream(generation(stop_ids=frozenset({first}))))
    assert stopped == [Delta(None, None, "stop")]
    assert list(engine.stream(generation(max_tokens=1)))[-1].finish == "length"


# --- from tokens to text ----------------------------------------------------------------------------------------------


class Recorded:
    """An engine that says what it was told to."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def stream(self, _: Generation) -> Iterator[Delta]:
        for token in self.ids:
            yield Delta(token)
        yield Delta(None, None, "length")


def written(model: Path, text: str, *stops: str, gap: str = "") -> list[Piece]:
    template = load_template(model)
    recorded = Recorded(template.encode(text))
    return list(write(recorded, generation(), template, stops, gap=gap))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["plain words", "日本語🎻です", " leading space", "line\nbreak\n"])
def test_text_comes_out_whole_and_in_whole_characters(tiny_model: Path, text: str) -> None:
    pieces = written(tiny_model, text)
    assert "".join(piece.text for piece in pieces) == text
    assert all("\ufffd" not in piece.text for piece in pieces)
    assert pieces[-1].finish == "length"


@pytest.mark.parametrize(
    ("text", "stops", "expected", "finish"),
    [
        ("one END two", ("END",), "one ", "stop"),
        ("one EN two", ("END",), "one EN two", "length"),  # only the beginning of it
        ("ENEND", ("END",), "EN", "stop"),
        ("a\n\nb", ("\n\n", "b"), "a", "stop"),  # the first to come
        ("END", ("END",), "", "stop"),
        ("one EN", ("END",), "one EN", "length"),  # held back, then given
    ],
)
def test_stop_sequences(tiny_model: Path, text: str, stops: tuple[str, ...], expected: str, finish: str) -> None:
    pieces = written(tiny_model, text, *stops)
    assert "".join(piece.text for piece in pieces) == expected
    assert pieces[-1].finish == finish


@pytest.mark.parametrize(
    ("text", "gap", "expected"),
    [("\n\nword", "\n\n", "word"), ("\nword", "\n\n", "\nword"), ("word", " ", "word"), ("\n", "\n\n", "\n")],
)
def test_the_template_gap_is_left_out(tiny_model: Path, text: str, gap: str, expected: str) -> None:
    assert "".join(piece.text for piece in written(tiny_model, text, gap=gap)) == expected
