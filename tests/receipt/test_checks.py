"""Sabotage, one pain after another: a run is trained for real, something is broken for real, a check names it."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CHATML, chat_row, rows, write_jsonl

from pegbox.data.formats import parse_row
from pegbox.data.render import Example, examples
from pegbox.data.template import Template, load_template
from pegbox.engines.base import AdapterRef, Engine, TokenScore
from pegbox.engines.torch import TorchEngine
from pegbox.errors import EngineError
from pegbox.receipt.accounts import Account, Accounts
from pegbox.receipt.case import Case, sampled_rows
from pegbox.receipt.engine_checks import TOLERANCES
from pegbox.receipt.examine import examine
from pegbox.receipt.record import Check, Receipt, load, save
from pegbox.receipt.token_checks import KNOWN_TO_STOP, LABELLED, SURE_TO_STOP
from pegbox.train import loop
from pegbox.train.evidence import sha256
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.train.samples import Sample

STOP = 2
Mask = Callable[[Example], Example]


class Bench:
    """Trains tiny runs and makes their cases."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.engine = TorchEngine(model, threads=1, loaded_adapters=4)
        self.made = 0

    def run(self, made: Sequence[object], *, model: Path | None = None, **choices: object) -> RunDir:
        self.made += 1
        run = RunDir(self.folder / f"run{self.made}")
        run.create()
        write_jsonl(run.train_data, list(made))
        values = {
            "job_id": f"ftjob-{self.made}", "base": "tiny", "base_folder": str(model or self.model), "base_fingerprint": "",
            "seed": 3, "n_epochs": 3, "batch_size": 4, "learning_rate": 5e-3, "learning_rate_multiplier": 1.0,
            "warmup_steps": 2, "max_tokens": 512, "threads": 1,
        }  # fmt: skip
        Recipe(**{**values, **choices}).save(run.recipe_path)
        assert loop.train(run).outcome == "succeeded"
        return run

    def case(self, run: RunDir, **changes: object) -> Case:
        evidence = run.evidence()
        assert evidence is not None
        adapter = run.checkpoints / evidence.checkpoint
        template = load_template(self.model)
        made = [json.loads(line) for line in run.train_data.read_text("utf-8").splitlines()]
        counted = sum(e.n_trained for row in made for e in examples(parse_row(row), template))
        values = {
            "recipe": run.recipe(), "evidence": evidence, "accounts": Accounts(Account(len(made), len(made), trained=counted)),
            "rows": sampled_rows(run, evidence, range(1, len(made) + 1)), "template": template,
            "engine": lambda: nullcontext(self.engine), "adapter": AdapterRef(run.path.name, str(adapter)),
            "adapter_sha256": sha256(adapter / "adapter_model.safetensors"),
        }  # fmt: skip
        return Case(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bench(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("receipts"), tiny_model)
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def good(bench: Bench) -> RunDir:
    """Rows of one turn and of two, one with a turn that is not learnt."""
    several = [
        {"messages": [
            {"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": "one two", "weight": i % 2},
            {"role": "user", "content": "もう一度"}, {"role": "assistant", "content": "はい。"},
        ]} for i in range(6)
    ]  # fmt: skip
    return bench.run([*rows(8), *several])


def statuses(receipt: Receipt) -> dict[str, str]:
    return {check.name: check.status for check in receipt.checks}


def not_passed(receipt: Receipt) -> dict[str, str]:
    return {name: status for name, status in statuses(receipt).items() if status != "passed"}


def named(receipt: Receipt, name: str) -> Check:
    return next(check for check in receipt.checks if check.name == name)


def masked(monkeypatch: pytest.MonkeyPatch, change: Mask) -> None:
    """The trainer learns from changed masks."""
    read = loop.read_samples

    def changed(*args: object, **kwargs: object) -> list[Sample]:
        return [replace(one, examples=tuple(map(change, one.examples))) for one in read(*args, **kwargs)]  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "read_samples", changed)


def test_nothing_broken_nothing_said(bench: Bench, good: RunDir, tmp_path: Path) -> None:
    receipt = examine(bench.case(good))
    assert not_passed(receipt) == {}, receipt
    assert receipt.status == "passed"
    assert len(receipt.checks) == 11
    save(receipt, tmp_path / "receipt.json")
    assert load(tmp_path / "receipt.json") == receipt
    assert load(tmp_path / "none.json") is None


# --- pain 1: other tokens in serving than in training --------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        CHATML.replace("<|im_start|>assistant\n' }}", "<|im_start|>assistant\n ' }}"),
        "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}" + CHATML,
    ],
)
def test_another_template_in_serving(bench: Bench, good: RunDir, source: str) -> None:
    template = replace(load_template(bench.model), source=source)
    receipt = examine(bench.case(good, template=template))
    assert not_passed(receipt).get("token_parity") == "failed"
    assert "example " in named(receipt, "token_parity").text


def test_a_template_that_writes_the_date_is_no_fault(bench: Bench, good: RunDir) -> None:
    """Training may begin before midnight and end after it."""
    source = "{{ '<|im_start|>system\n' + strftime_now('%Y') + '<|im_end|>\n' }}" + CHATML
    receipt = examine(bench.case(good, template=replace(load_template(bench.model), source=source)))
    assert not_passed(receipt) == {"token_parity": "warned"}


# --- pain 2: the stop is not learnt --------------------------------------------------------------------------


def test_a_stop_token_that_is_masked_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_stop(e: Example) -> Example:
        return Example(e.tokens, [t and token != STOP for t, token in zip(e.trained, e.tokens, strict=True)])

    masked(monkeypatch, without_stop)
    receipt = examine(bench.case(bench.run(rows(8))))
    assert not_passed(receipt)["stop_learned"] == "failed"
    assert "0 of 8 answers" in named(receipt, "stop_learned").text
    assert receipt.status == "failed"


def test_one_missing_stop_among_many_is_let_by_two_are_not(bench: Bench, good: RunDir) -> None:
    case = bench.case(good)

    def status(labelled: int) -> str:
        stop = replace(case.evidence.stop, ends=150, labelled=labelled)
        return statuses(examine(replace(case, evidence=replace(case.evidence, stop=stop))))["stop_learned"]

    assert (status(149), status(148)) == ("passed", "failed")


@pytest.mark.parametrize(
    ("base", "tuned", "expected"),
    [(0.9, 0.95, "passed"), (0.9, 0.5, "passed"), (0.9, 0.46, "warned"), (0.9, 0.4, "failed"), (0.01, 0.001, "warned"), (0.0, 0.2, "passed")],
)  # fmt: skip
def test_bars_of_the_probability_to_stop(bench: Bench, good: RunDir, base: float, tuned: float, expected: str) -> None:
    case = bench.case(good)
    stop = replace(case.evidence.stop, base=base, tuned=tuned)
    assert statuses(examine(replace(case, evidence=replace(case.evidence, stop=stop))))["stop_learned"] == expected


# --- pain 3: a wrong mask ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [1, -1])
def test_a_mask_that_is_shifted_by_one(bench: Bench, monkeypatch: pytest.MonkeyPatch, by: int) -> None:
    def shifted(e: Example) -> Example:
        return Example(e.tokens, [*e.trained[-by:], *e.trained[:-by]])

    masked(monkeypatch, shifted)
    receipt = examine(bench.case(bench.run([chat_row(f"Say {i}", "yes sir") for i in range(8)])))
    assert not_passed(receipt)["mask"] == "failed"


def test_a_mask_that_learns_the_question_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    masked(monkeypatch, lambda e: Example(e.tokens, [True] * len(e.tokens)))
    receipt = examine(bench.case(bench.run(rows(8))))
    assert not_passed(receipt)["mask"] == "failed"
    assert not_passed(receipt)["supervised_tokens"] == "failed"


def test_a_turn_of_weight_0_that_is_learnt(bench: Bench, good: RunDir) -> None:
    """The user's row says that its first answer is context; the trainer learnt it."""
    case = bench.case(good)
    several = next(i for i, row in enumerate(case.rows) if len(row.turns) == 2)
    broken = [replace(row, turns=row.turns[1:]) if i == several else row for i, row in enumerate(case.rows)]
    receipt = examine(replace(case, rows=broken))
    assert "1 answers to learn, but 2 runs" in named(receipt, "mask").text


def test_not_one_token_to_learn(bench: Bench, good: RunDir) -> None:
    case = bench.case(good)
    nothing = replace(case.evidence, train=replace(case.evidence.train, trained=0))
    assert not_passed(examine(replace(case, evidence=nothing)))["supervised_tokens"] == "failed"


def test_little_to_learn_is_warned_of(bench: Bench, good: RunDir) -> None:
    case = bench.case(good)
    assert case.accounts is not None
    little = replace(case.evidence, train=replace(case.evidence.train, tokens=100_000))
    assert not_passed(examine(replace(case, evidence=little))) == {"supervised_tokens": "warned"}


# --- pain 4: silent truncation -------------------------------------------------------------------------------


def test_a_trainer_that_cuts_shorter_than_its_recipe_says(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    masked(monkeypatch, lambda e: Example(e.tokens[:-4], e.trained[:-4]))
    receipt = examine(bench.case(bench.run([chat_row(f"Say {i}", "yes sir yes sir") for i in range(8)])))
    assert {"mask", "row_accounting"} <= not_passed(receipt).keys(), "and its rows are none of the user's"
    assert receipt.status == "failed"


# --- pain 9: the adapter is not applied ----------------------------------------------------------------------


class Deaf:
    """An engine that ignores adapters, as some have done."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def score(self, tokens: Sequence[int], adapter: AdapterRef | None, top: int = 0) -> list[TokenScore | None]:
        return self._engine.score(tokens, None, top)

    def unload(self, adapter: str) -> None:
        pass


def test_an_engine_that_ignores_the_adapter(bench: Bench, good: RunDir) -> None:
    receipt = examine(bench.case(good, engine=lambda: nullcontext(Deaf(bench.engine))))
    assert not_passed(receipt) == {"engine_agrees": "failed", "adapter_applied": "failed"}


def test_another_adapter_in_the_store(bench: Bench, good: RunDir) -> None:
    other = bench.run(rows(8), seed=9)
    evidence = other.evidence()
    assert evidence is not None
    folder = other.checkpoints / evidence.checkpoint
    swapped = {
        "adapter": AdapterRef("other", str(folder)),
        "adapter_sha256": sha256(folder / "adapter_model.safetensors"),
    }
    assert not_passed(examine(bench.case(good, **swapped))) == {"engine_agrees": "failed", "adapter_applied": "failed"}


def test_an_adapter_that_can_not_be_loaded(bench: Bench, good: RunDir, tmp_path: Path) -> None:
    receipt = examine(bench.case(good, adapter=AdapterRef("none", str(tmp_path))))
    assert not_passed(receipt) == {"engine_agrees": "failed", "adapter_applied": "failed"}
    assert "can't be loaded" in named(receipt, "adapter_applied").text


def test_training_that_changed_nothing(bench: Bench) -> None:
    receipt = examine(bench.case(bench.run(rows(8), learning_rate=0.0)))
    assert not_passed(receipt)["adapter_applied"] == "failed"
    assert "larger learning_rate_multiplier" in named(receipt, "adapter_applied").remedy


def test_an_engine_that_does_not_start_is_said_never_silent(bench: Bench, good: RunDir) -> None:
    def no_memory() -> Engine:
        raise EngineError("the engine process ended with status -9 (out of memory?)")

    receipt = examine(bench.case(good, engine=no_memory))
    assert not_passed(receipt) == {"engine_agrees": "warned", "adapter_applied": "warned"}
    found = named(receipt, "engine_agrees")
    assert not found.ran
    assert "out of memory" in found.text


# --- pain 17: two beginnings ---------------------------------------------------------------------------------


def variant(model: Path, folder: Path, source: str) -> Path:
    """The tiny model with another chat template."""
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(source, "utf-8")
    return folder


def test_a_template_that_writes_the_beginning_twice(bench: Bench, tmp_path: Path) -> None:
    model = variant(bench.model, tmp_path / "twice", "{{ bos_token }}{{ bos_token }}" + CHATML)
    run = bench.run(rows(8), model=model)
    receipt = examine(bench.case(run, template=load_template(model)))
    assert not_passed(receipt) == {"single_bos": "failed"}
    once = variant(bench.model, tmp_path / "once", "{{ bos_token }}" + CHATML)
    assert not_passed(examine(bench.case(bench.run(rows(8), model=once), template=load_template(once)))) == {}


def test_a_serving_path_that_adds_a_beginning(bench: Bench, good: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    case = bench.case(good)
    encode = Template.encode
    monkeypatch.setattr(
        Template, "encode", lambda self, text, *, after="": [0, 0] * (not after) + encode(self, text, after=after)
    )
    found = not_passed(examine(case))
    assert found["single_bos"] == "failed"
    assert found["token_parity"] == "failed"


# --- pain 18: reasoning that is dropped ----------------------------------------------------------------------

THINKER = (
    "{% for m in messages %}{% set said = m['content'] %}"
    "{% if m['role'] == 'assistant' and not loop.last %}{% set said = said.split('</think>')[-1] %}{% endif %}"
    "{{'<|im_start|>' + m['role'] + '\n' + said + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_drops_earlier_reasoning(bench: Bench, tmp_path: Path) -> None:
    model = variant(bench.model, tmp_path / "thinker", THINKER)
    talk = [
        {"messages": [
            {"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": "<think>hm</think>one"},
            {"role": "user", "content": "more"}, {"role": "assistant", "content": "<think>so</think>two"},
        ]} for i in range(8)
    ]  # fmt: skip
    run = bench.run(talk, model=model)
    receipt = examine(bench.case(run, template=load_template(model), accounts=None))
    assert not_passed(receipt) == {
        "template_rewrites_turns": "warned", "row_accounting": "warned", "truncation": "warned",
    }  # fmt: skip
    assert named(receipt, "template_rewrites_turns").figures == {"rows": 8, "split": 8, "examples": 16}


# --- what else may be found ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "status"),
    [
        (Account(14, 14), "passed"),
        (Account(15, 14, {"nothing left to learn": 1}), "passed"),
        (Account(15, 14), "failed"),  # a row that is nowhere
        (Account(13, 13), "failed"),  # the trainer had more rows than it was given
        (Account(15, 15, cut=1), "warned"),
        (Account(15, 15), "failed"),
    ],
)
def test_rows_are_balanced(bench: Bench, good: RunDir, account: Account, status: str) -> None:
    case = bench.case(good)
    assert case.accounts is not None
    account = replace(account, trained=case.accounts.training.trained)
    receipt = examine(replace(case, accounts=Accounts(account)))
    assert statuses(receipt)["row_accounting"] == status, named(receipt, "row_accounting")


def test_a_loss_that_grew_is_warned_of(bench: Bench, good: RunDir) -> None:
    case = bench.case(good)
    worse = replace(case.evidence, before=1.0, after=1.5)
    assert not_passed(examine(replace(case, evidence=worse))) == {"learnt": "warned"}


def test_the_document_names_every_check_and_bar(bench: Bench, good: RunDir) -> None:
    text = (Path(__file__).parents[2] / "docs" / "receipt.md").read_text("utf-8")
    for check in examine(bench.case(good)).checks:
        assert f"| `{check.name}` |" in text
    for bar in TOLERANCES["float32"], TOLERANCES["bfloat16"]:
        assert f"{bar.largest} at most, {bar.mean} in the mean" in text
    for value in (SURE_TO_STOP, KNOWN_TO_STOP, f"{LABELLED:.0%}".replace("%", " %")):
        assert str(value) in text
