"""The first half of a job: check its files, resolve every "auto", lay out the run directory.

Whatever is wrong with the data ends here, as a failed job that names every bad example.
"""

import hashlib
import shutil
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from sqlalchemy import update

from pegbox.data.epochs import auto_epochs
from pegbox.data.render import examples, truncate
from pegbox.data.rows import Problem, Row, read_rows
from pegbox.data.template import Template, load_template
from pegbox.errors import JobFailure, RenderError
from pegbox.jobs import records
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.states import QueuedJob, Status
from pegbox.queue.store import Event
from pegbox.queue.worker import Lease
from pegbox.settings import Settings
from pegbox.storage.tables import tunings
from pegbox.train.recipe import Recipe, auto_batch_size, auto_multiplier, auto_warmup, base_learning_rate
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import steps_per_epoch
from pegbox.wire.fine_tuning import ResolvedHyperparameters

_NAMED_PROBLEMS = 100
HOLDOUT_FROM = 200  # rows
_HOLDOUT_SHARE = 0.1
_HOLDOUT_ROWS = (20, 500)
HOLDOUT_KEY = "pegbox.holdout"  # metadata of a job; "off" trains on every row


@dataclass(frozen=True, slots=True)
class Base:
    """What the job tunes."""

    name: str
    folder: Path
    fingerprint: str
    hidden_size: int
    formats: tuple[str, ...]
    limit: int  # tokens an example
    price: float  # a million training tokens
    adapter_folder: Path | None  # train on from this


@dataclass(slots=True)
class Survey:
    """One file, read through once. Every example is in exactly one of: used, empty, bad."""

    examples: int = 0
    blank_lines: int = 0
    bad: int = 0
    problems: list[Problem] = field(default_factory=list)  # of the first bad ones
    cut_rows: int = 0  # longer than the limit
    cut_trained: int = 0  # trained tokens lost by that
    empty: list[int] = field(default_factory=list)  # examples whose every trained token was cut off
    tokens: int = 0  # of used examples, after cutting
    trained: int = 0  # of these, those that loss is taken on
    used: int = 0
    digests: "array[int]" = field(default_factory=lambda: array("Q"))  # of each example's text; 0: not used
    formats: set[str] = field(default_factory=set)

    def uses(self, example: int) -> bool:
        return self.digests[example - 1] != 0


def prepare(desk: Desk, settings: Settings, job: QueuedJob, lease: Lease) -> None:
    """The queue's handler for jobs in `validating_files`. Raises JobFailure."""
    with desk.db.read() as tx:
        tuning = records.find(tx, job.id)
    assert tuning is not None, "a queued job has its tuning row"
    base = _base(desk, tuning)
    template = load_template(base.folder)
    beat = _sparsely(lease.beat)

    training = _survey(desk, "training", tuning.request.training_file, template, base, beat)
    validation = None
    if tuning.request.validation_file is not None:
        validation = _survey(desk, "validation", tuning.request.validation_file, template, base, beat)
        _same_format(training, validation)
    _enough(training, settings.min_examples)

    run = RunDir(settings.root / "runs" / job.id)
    shutil.rmtree(run.path, ignore_errors=True)  # an earlier attempt that did not come to its end
    run.create()
    held = _hold_out(training, tuning, settings)
    with _content(desk, "training", tuning.request.training_file) as content:
        _copy_rows(content, run.train_data, lambda i: training.uses(i) and i not in held, beat)
        if held:
            _copy_rows(content, run.valid_data, held.__contains__, beat)
    if validation is not None and tuning.request.validation_file is not None:
        with _content(desk, "validation", tuning.request.validation_file) as content:
            _copy_rows(content, run.valid_data, validation.uses, beat)

    recipe = _resolve(tuning, base, training.used - len(held), min(training.formats), settings)
    recipe.save(run.recipe_path)
    told = [
        *_events("training", training),
        *(_events("validation", validation) if validation else []),
        *_holdout_events(training, held),
        _plan_event(recipe, training, base, share=(training.used - len(held)) / training.used),
        Event("validated", "Files validated, moving job to queued state"),
    ]
    shown = ResolvedHyperparameters(
        n_epochs=recipe.n_epochs,
        batch_size=recipe.batch_size,
        learning_rate_multiplier=recipe.learning_rate_multiplier,
    )
    with desk.db.write() as tx:
        store.hold(tx, job)
        row = update(tunings).where(tunings.c.job_id == job.id)
        tx.execute(row.values(hyperparameters=shown.model_dump()))
        store.tell(tx, job.id, *told)
        store.move(tx, job, Status.QUEUED)


# --- what is tuned -------------------------------------------------------------------------------------------


def _base(desk: Desk, tuning: Tuning) -> Base:
    adapter = desk.adapters.find(tuning.request.model)
    resolved = desk.catalog.find(adapter.base if adapter else tuning.request.model)
    if resolved is None:
        raise JobFailure("model_not_found", f"The model {tuning.model} is no longer here.", param="model")
    model = resolved.base
    return Base(
        name=model.name,
        folder=Path(model.folder),
        fingerprint=model.fingerprint,
        hidden_size=model.hidden_size,
        formats=(adapter.format,) if adapter else resolved.formats,
        limit=resolved.context,
        price=model.price,
        adapter_folder=desk.adapters.path(adapter) if adapter else None,
    )


# --- what is in the files ------------------------------------------------------------------------------------


def _survey(desk: Desk, which: str, file_id: str, template: Template, base: Base, beat: Callable[[], None]) -> Survey:
    """Read a file through. Raises JobFailure if any of its rows is bad."""
    survey = Survey()
    last_line = 0
    with _content(desk, which, file_id) as content:
        for row in read_rows(content):
            beat()
            survey.examples += 1
            survey.digests.append(0)
            survey.blank_lines += row.line - last_line - 1
            last_line = row.line
            problem = row.problem or _take(survey, row, template, base)
            if problem is not None:
                survey.bad += 1
                if len(survey.problems) < _NAMED_PROBLEMS:
                    survey.problems.append(problem)
    if survey.bad:
        raise _bad_rows(which, survey)
    if not survey.used and which == "validation":
        raise JobFailure("invalid_n_examples", "Validation file has 0 example(s)", param="validation_file")
    return survey


def _content(desk: Desk, which: str, file_id: str) -> BinaryIO:
    """Raises JobFailure for a file that was deleted, be it while the job reads it."""
    file = desk.files.find(file_id)
    try:
        if file is not None:
            return desk.files.path(file).open("rb")
    except FileNotFoundError:
        pass
    raise JobFailure("file_not_found", f"The {which} file {file_id} was deleted.", param=f"{which}_file")


def _take(survey: Survey, row: Row, template: Template, base: Base) -> Problem | None:
    """Count one parsed row; or say what is wrong with it after all."""
    assert row.record is not None, "a row without a problem has a record"
    record = row.record
    survey.formats.add(record.format)
    if record.format not in base.formats:
        wanted = " or ".join(base.formats)
        text = f"is in {record.format} format, but this model is tuned on {wanted} rows"
        return Problem(row.example, row.line, "", text, is_format=True)
    if len(survey.formats) > 1:
        text = f"is in {record.format} format, unlike the rows before it; use one format in a file"
        return Problem(row.example, row.line, "", text, is_format=True)
    try:
        whole = examples(record, template)
    except RenderError as error:
        return Problem(row.example, row.line, "", str(error), is_format=False)
    cut = [truncate(example, base.limit) for example in whole]
    lost = sum(e.n_trained for e in whole) - sum(e.n_trained for e in cut)
    survey.cut_rows += any(len(e.tokens) > base.limit for e in whole)
    survey.cut_trained += lost
    kept = [example for example in cut if example.n_trained]
    if not kept:
        survey.empty.append(row.example)
        return None
    survey.tokens += sum(len(e.tokens) for e in kept)
    survey.trained += sum(e.n_trained for e in kept)
    survey.used += 1
    digest = hashlib.sha256(row.text.strip().encode()).digest()
    survey.digests[row.example - 1] = int.from_bytes(digest[:8]) or 1
    return None


def _bad_rows(which: str, survey: Survey) -> JobFailure:
    """The failure that names them: all of the first hundred, and how many there are."""
    code = "invalid_file_format" if survey.problems[0].is_format else "invalid_training_file"
    if code == "invalid_file_format":
        head = f"The job failed due to a file format error in the {which} file."
    else:
        head = f"The job failed due to an invalid {which} file."
    lines = [str(problem) for problem in survey.problems]
    more = survey.bad - len(lines)
    if more:
        lines.append(f"and {more} more")
    if survey.bad > 1:
        head += f" {survey.bad} of {survey.examples} examples are bad."
    return JobFailure(code, f"{head} Invalid file format. " + "\n".join(lines), param=f"{which}_file")


def _same_format(training: Survey, validation: Survey) -> None:
    if training.formats and validation.formats != training.formats:
        theirs, ours = next(iter(validation.formats)), next(iter(training.formats))
        text = f"The validation file is in {theirs} format, but the training file is in {ours} format."
        raise JobFailure("invalid_file_format", text, param="validation_file")


def _enough(training: Survey, least: int) -> None:
    if training.examples < least:
        text = f"Training file has {training.examples} example(s), but must have at least {least} examples"
        raise JobFailure("invalid_n_examples", text, param="training_file")
    if not training.used:
        text = "Every example is longer than the model can see, with all that is to be learnt cut off; shorten them"
        raise JobFailure("invalid_training_file", text, param="training_file")


# --- which rows are held out ---------------------------------------------------------------------------------


def _hold_out(training: Survey, tuning: Tuning, settings: Settings) -> set[int]:
    """Examples to validate on where no file says which: a seeded tenth, equal rows kept on one side."""
    off = (tuning.request.metadata or {}).get(HOLDOUT_KEY) == "off" or not settings.holdout
    if tuning.request.validation_file is not None or off or training.used < HOLDOUT_FROM:
        return set()
    least, most = _HOLDOUT_ROWS
    wanted = min(most, max(least, round(training.used * _HOLDOUT_SHARE)))
    digests = np.array(training.digests, dtype=np.uint64)
    texts, copies = np.unique(digests[digests != 0], return_counts=True)
    chosen: list[int] = []
    room = wanted
    for i in np.random.default_rng(tuning.seed).permutation(len(texts)):
        if copies[i] <= room:
            chosen.append(texts[i])
            room -= int(copies[i])
        if not room:
            break
    return set((np.flatnonzero(np.isin(digests, chosen)) + 1).tolist())


def _copy_rows(content: BinaryIO, target: Path, wanted: Callable[[int], bool], beat: Callable[[], None]) -> None:
    """The rows with these numbers, byte for byte as the user wrote them (bar BOM and CR)."""
    content.seek(0)
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for row in read_rows(content):
            beat()
            if wanted(row.example):
                out.write(row.text + "\n")


# --- every "auto" becomes a number ---------------------------------------------------------------------------


def _resolve(tuning: Tuning, base: Base, n: int, format_: str, settings: Settings) -> Recipe:
    asked = tuning.request.asked()
    reasons: dict[str, str] = {}

    def choose(name: str, wish: object, auto: tuple[float, str]) -> float:
        if isinstance(wish, (int, float)):
            reasons[name] = "asked for"
            return wish
        reasons[name] = auto[1]
        return auto[0]

    epochs = int(choose("n_epochs", asked.n_epochs, auto_epochs(n)))
    batch = int(choose("batch_size", asked.batch_size, auto_batch_size(n, epochs)))
    multiplier = choose("learning_rate_multiplier", asked.learning_rate_multiplier, auto_multiplier())
    rate, reasons["learning_rate"] = base_learning_rate(base.hidden_size)
    return Recipe(
        job_id=tuning.id,
        base=base.name,
        base_folder=str(base.folder),
        base_fingerprint=base.fingerprint,
        format=format_,
        adapter_folder=str(base.adapter_folder) if base.adapter_folder else None,
        seed=tuning.seed,
        n_epochs=epochs,
        batch_size=batch,
        learning_rate=rate * multiplier,
        learning_rate_multiplier=multiplier,
        warmup_steps=auto_warmup(steps_per_epoch(n, batch) * epochs),
        max_tokens=base.limit,
        threads=settings.cpu_threads,
        reasons=reasons,
    )


# --- what the user is told -----------------------------------------------------------------------------------


def _events(which: str, survey: Survey) -> list[Event]:
    """Row accounting, which sums: read = used + refused; and whatever was not taken whole."""
    refused = len(survey.empty)
    data: dict[str, object] = {
        "file": which, "examples": survey.examples, "used": survey.used, "refused": refused,
        "blank_lines": survey.blank_lines, "truncated": survey.cut_rows,
        "trained_tokens_lost": survey.cut_trained, "tokens": survey.tokens, "trained_tokens": survey.trained,
    }  # fmt: skip
    text = (
        f"{which.capitalize()} file: {survey.examples} examples read, {survey.used} used, {refused} refused; "
        f"{survey.tokens:,} tokens, of which {survey.trained:,} are learnt"
    )
    told = [Event(f"rows:{which}", text, data=data)]
    if survey.cut_rows:
        share = survey.cut_trained / (survey.cut_trained + survey.trained or 1)
        text = (
            f"{survey.cut_rows} of {survey.examples} {which} examples are longer than the limit and were cut at the "
            f"end; {survey.cut_trained:,} tokens to learn ({share:.1%}) were lost"
        )
        told.append(Event(f"cut:{which}", text, level="warn", data=data))
    if survey.empty:
        named = ", ".join(map(str, survey.empty[:_NAMED_PROBLEMS]))
        text = f"{refused} {which} examples were refused, because cutting left nothing to learn: {named}"
        told.append(Event(f"refused:{which}", text, level="warn", data={"examples": survey.empty[:_NAMED_PROBLEMS]}))
    if survey.blank_lines:
        told.append(Event(f"blank:{which}", f"{survey.blank_lines} blank lines in the {which} file were passed over"))
    return told


def _holdout_events(training: Survey, held: set[int]) -> list[Event]:
    if not held:
        return []
    text = (
        f"No validation file was given: {len(held)} of {training.used} examples are held out to validate on, "
        f'{training.used - len(held)} are trained. Metadata {{"{HOLDOUT_KEY}": "off"}} trains on all.'
    )
    return [Event("holdout", text, data={"held_out": len(held), "trained": training.used - len(held)})]


def _plan_event(recipe: Recipe, training: Survey, base: Base, share: float) -> Event:
    tokens = round(training.tokens * share) * recipe.n_epochs
    cost = f", estimated cost {tokens / 1e6 * base.price:.2f}" if base.price else ""
    text = (
        f"Plan: {recipe.n_epochs} epochs ({recipe.reasons['n_epochs']}), batch size {recipe.batch_size} "
        f"({recipe.reasons['batch_size']}), learning rate {recipe.learning_rate:g} "
        f"({recipe.reasons['learning_rate']}, times {recipe.learning_rate_multiplier:g}), about {tokens:,} tokens{cost}"
    )
    data: dict[str, object] = {
        "n_epochs": recipe.n_epochs, "batch_size": recipe.batch_size, "learning_rate": recipe.learning_rate,
        "learning_rate_multiplier": recipe.learning_rate_multiplier, "reasons": recipe.reasons,
    }  # fmt: skip
    return Event("plan", text, data=data)


def _sparsely(beat: Callable[[], None], seconds: float = 1.0) -> Callable[[], None]:
    """Call at every row, act once a second."""
    due = time.monotonic() + seconds

    def maybe() -> None:
        nonlocal due
        if time.monotonic() >= due:
            beat()
            due = time.monotonic() + seconds

    return maybe
