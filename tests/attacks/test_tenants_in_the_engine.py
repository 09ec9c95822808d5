"""Row 11 of the attack table: what one project or adapter made an engine compute, no other gets to see."""

import ast
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import pegbox
from pegbox.engines.base import AdapterRef, Delta, Generation, Sampling
from pegbox.engines.host import generation_from
from pegbox.engines.hosted import _plain
from pegbox.engines.torch import TorchEngine

PROMPT = list(range(3, 43))  # long enough to be worth remembering
N = 10


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """Three that answer the same prompt in three ways."""
    made = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp(f"adapter{seed}")
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), config)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.5)
        model.save_pretrained(folder)
        made.append(AdapterRef(f"ft:tiny:org::{seed}", str(folder)))
    return made


def generation(adapter: AdapterRef | None, memory: str = "", prompt: Iterable[int] = PROMPT) -> Generation:
    return Generation(
        prompt=list(prompt), max_tokens=N, stop_ids=frozenset(), adapter=adapter, memory=memory,
        sampling=Sampling(temperature=0), top_logprobs=3,
    )  # fmt: skip


def cold(base: Path, adapter: AdapterRef | None) -> list[tuple[int, float, list[float]]]:
    """Tokens, their log-probabilities and the likeliest three's, from a model that has seen nothing else."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    ids, found = list(PROMPT), []
    with torch.inference_mode():
        for _ in range(N):
            logprobs = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            token = int(logprobs.argmax())
            found.append((token, float(logprobs[token]), logprobs.topk(3).values.tolist()))
            ids.append(token)
    return found


def test_the_same_prompt_at_the_same_time_to_different_adapters(tiny_model: Path, adapters: list[AdapterRef]) -> None:
    """All in one engine, two projects each, in rounds: the first computes the prompts, the next go on from them."""
    everyone = [None, *adapters]
    expected = [cold(tiny_model, adapter) for adapter in everyone]
    assert len({tuple(token for token, _, _ in one) for one in expected}) == len(everyone), "all differ"
    engine = TorchEngine(tiny_model, threads=1, loaded_adapters=2)  # fewer than adapters: they come and go, too
    for _ in range(3):
        together = engine.together()
        said: dict[str, list[Delta]] = {}
        for i, adapter in enumerate(everyone):
            for project in ("a", "b"):
                together.add(f"{i} {project}", generation(adapter, project))
        while together:
            for key, told in together.step():
                assert isinstance(told, Delta), told
                said.setdefault(key, []).append(told)
        assert len(said) == 2 * len(everyone)
        for key, deltas in said.items():
            wanted = expected[int(key.split()[0])]
            scored = [(d.token, d.score) for d in deltas if d.token is not None and d.score is not None]
            assert [token for token, _ in scored] == [token for token, _, _ in wanted], key
            assert [s.logprob for _, s in scored] == pytest.approx([logprob for _, logprob, _ in wanted], abs=1e-4)
            for (_, score), (_, _, top) in zip(scored, wanted, strict=True):
                assert [logprob for _, logprob in score.top] == pytest.approx(top, abs=1e-4)


@pytest.fixture
def fed(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TorchEngine, list[int]]:
    """An engine, and how many tokens each prompt cost it."""
    engine, counted = TorchEngine(tiny_model, threads=1, loaded_adapters=3), []
    forward = engine._base.forward

    def counting(*args: object, **kwargs: object) -> object:
        if (n := kwargs["input_ids"].shape[1]) > 1:  # type: ignore[attr-defined]
            counted.append(n)
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine._base, "forward", counting)
    return engine, counted


def test_a_prompt_is_remembered_for_its_project_alone(fed: tuple[TorchEngine, list[int]]) -> None:
    """Else the time to the first token tells whether another project asked something that begins alike."""
    engine, counted = fed
    longer = [*PROMPT, 50, 51]
    for memory, prompt in (("a", PROMPT), ("b", PROMPT), ("a", longer), ("b", longer), ("c", longer), ("c", longer)):
        list(engine.stream(generation(None, memory, prompt)))
    assert counted == [40, 40, 2, 2, 42], "each pays for its own first time; only its own is gone on from"


def test_a_prompt_is_remembered_for_its_adapter_alone(
    fed: tuple[TorchEngine, list[int]], adapters: list[AdapterRef]
) -> None:
    engine, counted = fed
    for adapter in (None, adapters[0], adapters[1], None, adapters[0]):
        list(engine.stream(generation(adapter, "a")))
    assert counted == [40, 40, 40]


def test_with_an_adapter_its_prompts_go_whoever_asked(
    fed: tuple[TorchEngine, list[int]], adapters: list[AdapterRef]
) -> None:
    """A name that comes again may stand for other weights."""
    engine, counted = fed
    for memory in ("a", "b"):
        list(engine.stream(generation(adapters[0], memory)))
    engine.unload(adapters[0].name)
    for memory in ("a", "b"):
        list(engine.stream(generation(AdapterRef(adapters[0].name, adapters[1].folder), memory)))
    assert counted == [40] * 4


def test_numbers_tell_nothing_of_a_strangers_prompts(tiny_model: Path) -> None:
    """Going on from what is remembered changes an answer's last bits: bit for bit, it was not."""
    longer = [*PROMPT, 50, 51, 52]
    alone = list(TorchEngine(tiny_model, threads=1, loaded_adapters=1).stream(generation(None, "b", longer)))
    engine = TorchEngine(tiny_model, threads=1, loaded_adapters=1)
    for prompt in (PROMPT, longer[:-1], longer):
        list(engine.stream(generation(None, "a", prompt)))
    assert list(engine.stream(generation(None, "b", longer))) == alone


def test_every_request_says_whose_it_is() -> None:
    """The routes make generations in two places; each names the project, and the pipe carries it."""
    calls = [
        (path.name, {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for path in sorted((Path(pegbox.__file__).parent / "api").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Generation"
    ]
    assert {name for name, _ in calls} == {"chat.py", "completions.py"}
    assert all(given.get("memory") == "project.project_id" for _, given in calls), calls
    sent = generation(AdapterRef("ft:a", "/a"), "proj_1")
    assert asdict(generation_from(json.loads(json.dumps(_plain(sent))))) == asdict(sent)
