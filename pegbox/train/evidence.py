"""What a finished run can show for itself. The server holds it against the data and the engine (`pegbox/receipt`)."""

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from pegbox import __version__
from pegbox.data.render import Example, truncate
from pegbox.data.render import examples as rendered
from pegbox.data.rows import read_rows
from pegbox.data.template import Template, load_template
from pegbox.train.attested import Counts, Evidence, Part, Sample, Stop
from pegbox.train.batches import Batch, alone
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import WHOLE_FILES, RunDir
from pegbox.train.samples import Sample as Learnt
from pegbox.train.scoring import say

SAMPLE_ROWS = 8
SAMPLE_TOKENS = 1_024  # of all sampled rows; one alone may be longer
STOP_ROWS = 64
STOP_TOKENS = 2_048
Cut = Callable[[Sequence[Learnt]], list[Batch]]
Untuned = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class _File:
    """One of the run's files, as the trainer holds it."""

    name: str  # "train" or "valid"
    examples: Sequence[Example]
    rows: list[int]  # for each example its row, from 0; -1: in no row
    counts: Counts


def gather(
    run: RunDir,
    recipe: Recipe,
    model: torch.nn.Module,
    cut: Cut,
    samples: Mapping[str, Sequence[Learnt]],
    *,
    step: int,
    untuned: Untuned,
) -> Evidence:
    """Look at the model as it is now, which is as it was saved after `step`; nothing is changed.

    Inside `untuned()` it is the base. `cut` makes batches as the loop does; `samples` are those of the files "train"
    and "valid". Of a preference the chosen answer is looked at.
    """
    began = time.monotonic()
    template = load_template(Path(recipe.base_folder))
    examples = {name: [each for one in group for each in one.examples[:1]] for name, group in samples.items()}
    train = _file("train", run.train_data, recipe, template, examples["train"])
    valid = _file("valid", run.valid_data, recipe, template, examples["valid"])
    name = f"step-{step:06d}"
    scored, before, after = _scores(run, step)
    return Evidence(
        step=step,
        checkpoint=name,
        train=train.counts,
        valid=valid.counts,
        stop=_stop(model, untuned, cut, (valid, train), template, recipe.max_tokens),
        samples=_samples(model, untuned, cut, (valid, train)),
        scored=scored,
        before=before,
        after=after,
        method=recipe.method,
        dtype=_dtype(model),
        threads=torch.get_num_threads(),
        seed=recipe.seed,
        seconds=round(time.monotonic() - began, 2),
        versions={"pegbox": __version__, **{name: version(name) for name in ("torch", "transformers", "peft")}},
        hashes=_hashes(run, run.checkpoints / name, template),
    )


# --- which row an example is of ------------------------------------------------------------------------------


def _file(name: str, path: Path, recipe: Recipe, template: Template, examples: Sequence[Example]) -> _File:
    rows = list(_rows_of(path, recipe, template, examples))
    rows += [-1] * (len(examples) - len(rows))
    parts = Counter(row for row in rows if row >= 0)
    counts = Counts(
        rows=len(parts),
        examples=len(examples),
        split=sum(n > 1 for n in parts.values()),
        strangers=rows.count(-1),
        tokens=sum(len(example.tokens) for example in examples),
        trained=sum(example.n_trained for example in examples),
        cut=sum(len(example.tokens) >= recipe.max_tokens for example in examples),
    )
    return _File(name, examples, rows, counts)


def _rows_of(path: Path, recipe: Recipe, template: Template, examples: Sequence[Example]) -> Iterator[int]:
    """The row of each example, in order, as far as they are found: rows are rendered anew and held to the tokens."""
    if not path.exists():
        return
    at = 0
    with path.open("rb") as file:
        for index, row in enumerate(read_rows(file, recipe.method)):
            made = rendered(row.record, template) if row.record else []
            for example in made[:1] if recipe.method == "dpo" else made:
                short = truncate(example, recipe.max_tokens)
                if short.n_trained and at < len(examples) and examples[at].tokens == short.tokens:
                    yield index
                    at += 1


# --- a few rows, token by token ------------------------------------------------------------------------------


def _samples(model: torch.nn.Module, untuned: Untuned, cut: Cut, files: Sequence[_File]) -> list[Sample]:
    """Rows spread evenly over the file, short ones first: those held out, then those trained."""
    picked: list[tuple[_File, int, list[Example]]] = []
    budget = SAMPLE_TOKENS
    for file in files:
        of_row: dict[int, list[Example]] = {}
        for row, example in zip(file.rows, file.examples, strict=True):
            if row >= 0:
                of_row.setdefault(row, []).append(example)
        sizes = {row: sum(len(example.tokens) for example in parts) for row, parts in of_row.items()}
        for row in _spread(sizes, SAMPLE_ROWS - len(picked), budget if picked else max(budget, _least(sizes))):
            picked.append((file, row, of_row[row]))
            budget -= sizes[row]
    examples = [part for _, _, parts in picked for part in parts]
    tuned = _log_probs(model, cut, examples)
    with untuned():
        base = _log_probs(model, cut, examples)
    figures = iter(zip(examples, tuned, base, strict=True))
    return [Sample(file.name, row, [_part(*next(figures)) for _ in parts]) for file, row, parts in picked]


def _spread(sizes: dict[int, int], wanted: int, budget: int) -> list[int]:
    """At most `wanted` keys whose sizes sum to at most the budget: no larger than the median, evenly spread."""
    if wanted <= 0 or not sizes:
        return []
    median = sorted(sizes.values())[len(sizes) // 2]
    fitting = [key for key, size in sizes.items() if size <= min(median, budget)]
    wanted = min(wanted, len(fitting), max(1, budget // median))
    chosen = [fitting[i * len(fitting) // wanted] for i in range(wanted)]
    kept = []
    for key in chosen:
        if sizes[key] <= budget:
            kept.append(key)
            budget -= sizes[key]
    return kept


def _least(sizes: dict[int, int]) -> int:
    """So that one row is looked at, however long all are."""
    return min(sizes.values(), default=0)


def _part(example: Example, tuned: list[float], base: list[float]) -> Part:
    trained = [at for at in range(1, len(example.tokens)) if example.trained[at]]
    return Part(example.tokens, trained, tuned, base)


@torch.inference_mode()
def _log_probs(model: torch.nn.Module, cut: Cut, examples: Sequence[Example]) -> list[list[float]]:
    """Of each example's trained tokens, in order: batches may share beginnings, so owners say whose each one is."""
    out: list[list[float]] = [[] for _ in examples]
    for batch in cut(alone(examples)):
        for owner, value in zip(batch.owners.tolist(), say(model, batch).logps.tolist(), strict=True):
            out[batch.samples[owner]].append(value)
    return out


# --- where answers end ---------------------------------------------------------------------------------------


def _stop(
    model: torch.nn.Module, untuned: Untuned, cut: Cut, files: Sequence[_File], template: Template, limit: int
) -> Stop:
    stops = template.stop_ids
    train = files[-1].examples
    whole = [example for example in train if _end(example, stops, limit) is not None]
    asked: list[Example] = []  # an answer once for each token that ends one; the trie computes it once
    measured = 0
    budget = STOP_TOKENS
    for file in files:
        found = [_end(example, stops, limit) for example in file.examples]
        sizes = {i: end + 1 for i, end in enumerate(found) if end is not None}
        for i in _spread(sizes, STOP_ROWS - measured, budget if asked else max(budget, _least(sizes))):
            text = file.examples[i].tokens[: sizes[i] - 1]
            asked += [Example([*text, stop], [*(False for _ in text), True]) for stop in sorted(stops)]
            measured += 1
            budget -= sizes[i]
    tuned = _probability(model, cut, asked, measured)
    with untuned():
        base = _probability(model, cut, asked, measured)
    labelled = sum(example.tokens[_last(example)] in stops for example in whole)
    return Stop(len(whole), labelled, measured, tuned, base)


def _end(example: Example, stops: frozenset[int], limit: int) -> int | None:
    """The position after the last answer's words, where the model is to stop; None where the answer was cut."""
    last = _last(example)
    if not last or not stops:
        return None
    if example.tokens[last] in stops:
        return last
    return None if last + 1 >= limit else last + 1


def _last(example: Example) -> int:
    """The last position that is learnt; 0 where nothing is."""
    return max((i for i, trained in enumerate(example.trained) if trained), default=0)


def _probability(model: torch.nn.Module, cut: Cut, asked: Sequence[Example], places: int) -> float | None:
    """The mean over the places of the probability that one of the asked tokens stands there."""
    logps = (value for values in _log_probs(model, cut, asked) for value in values)
    return math.fsum(map(math.exp, logps)) / places if places else None


# --- the rest ------------------------------------------------------------------------------------------------


def _scores(run: RunDir, step: int) -> tuple[str, float | None, float | None]:
    """What was scored, before and after `step`: the curve has both, also where the run was resumed."""
    curve = [m for m in run.curve() if m.step <= step]
    first = next((note.data for note in run.notes()[0] if note.key == "step:0" and note.data), {})
    last = [m.full_valid_loss for m in curve if m.full_valid_loss is not None]
    if last:
        return "validation", _number(first.get("full_valid_loss")), last[-1]
    epochs = max(1, run.recipe().n_epochs)
    tail = [m.train_loss for m in curve[-max(1, len(curve) // epochs) :]]
    return "training", _number(first.get("full_train_loss")), sum(tail) / len(tail)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _dtype(model: torch.nn.Module) -> str:
    """What most of the frozen weights are in, or of all if none is frozen: "float32", "bfloat16"."""
    sizes: dict[str, int] = {}
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen or model.parameters():
        kind = str(parameter.dtype).removeprefix("torch.")
        sizes[kind] = sizes.get(kind, 0) + parameter.numel()
    return max(sizes, key=sizes.__getitem__, default="float32")


def _hashes(run: RunDir, checkpoint: Path, template: Template) -> dict[str, str]:
    made = (checkpoint / "adapter_model.safetensors", checkpoint / WHOLE_FILES[0])
    found = {path.name: path for path in (run.recipe_path, run.train_data, run.valid_data, *made) if path.exists()}
    out = {name: sha256(path) for name, path in found.items()}
    return {**out, "chat_template": hashlib.sha256((template.source or "").encode()).hexdigest()}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
