"""The first half of a job: check its files, resolve every "auto", lay out the run directory.

Whatever is wrong with the data ends here, as a failed job that names every bad example.
"""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from pegbox import durable
from pegbox.catalog.models import BaseModel
from pegbox.catalog.target import target_of
from pegbox.data import reading
from pegbox.data.check import Looked, headlines, look
from pegbox.data.epochs import epochs_for
from pegbox.data.estimate import estimate
from pegbox.data.quality.codes import Severity
from pegbox.data.report import Estimate
from pegbox.data.rows import read_rows
from pegbox.data.survey import EMPTY, NAMED_PROBLEMS, UNREADABLE, Survey, Target
from pegbox.data.views.words import in_file
from pegbox.errors import JobFailure
from pegbox.files import File
from pegbox.jobs import foresee, methods, records, reports, submit
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk, patience
from pegbox.queue import store
from pegbox.queue.lease import Lease
from pegbox.queue.states import QueuedJob, Status
from pegbox.queue.store import Event
from pegbox.receipt.accounts import Account, Accounts
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.storage.tables import tunings
from pegbox.train.recipe import (
    BETA,
    Recipe,
    auto_beta,
    auto_multiplier,
    auto_warmup,
    batch_size_for,
    learning_rate_for,
)
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import steps_per_epoch
from pegbox.wire.fine_tuning import EARLY_STOP_KEY, WEIGHTS_KEY, ResolvedHyperparameters

HOLDOUT_KEY = "pegbox.holdout"  # metadata of a job; "off" trains on every row
# A weight's, at the worst moment: a checkpoint with the optimizer's moments in the making beside the one before, and
# the weights of the newest that users may ask and of the best.
_WHOLE_BYTES = 12 + 12 + 4 + 4


@dataclass(frozen=True, slots=True)
class Base:
    """What the job tunes."""

    model: BaseModel
    target: Target  # the same, as the data desk sees it; its folder is where the weights lie
    adapter_folder: Path | None = None  # train on from this
    key: str | None = None  # where the store has the folder, if that is a whole tuned model


@dataclass(frozen=True, slots=True)
class Source:
    """One of the job's files, open."""

    which: str  # "training" or "validation"
    file: File
    content: BinaryIO


def prepare(desk: Desk, settings: Settings, job: QueuedJob, lease: Lease) -> None:
    """The queue's handler for jobs in `validating_files`. Raises JobFailure."""
    with desk.db.read() as tx:
        tuning = records.find(tx, Scope(job.project_id), job.id)
    assert tuning is not None, "a queued job has its tuning row"
    base = _base(desk, tuning)
    _see_that_it_fits(base.model, submit.weights(tuning.request), settings)
    beat = _sparsely(lease.beat)
    run = RunDir(settings.root / "runs" / job.id)
    with ExitStack() as stack:
        sources = _sources(desk, tuning, stack)
        method = tuning.request.tunes_by
        for source in sources:
            methods.suits(source.content, method, which=source.which, file_id=source.file.id)
        looked = look(
            [(source.which, source.content) for source in sources], target=base.target, method=method,
            seconds=settings.check_seconds, with_digests=True, tick=lambda *_: beat(),
        )  # fmt: skip
        reports.keep(desk, tuning.scope, settings, looked, [source.file for source in sources], base.model, base.target)
        _refuse(looked, settings)
        shutil.rmtree(run.path, ignore_errors=True)  # an earlier attempt that did not come to its end
        run.create()
        held = _hold_out(looked, tuning, settings)
        _lay_out(run, looked, sources, held, beat)

    training = looked.training
    can_validate = looked.validation is not None or len(held) > 0
    recipe = _resolve(tuning, base, training, len(held), settings, patience(tuning.request) if can_validate else None)
    recipe.save(run.recipe_path)
    expected = _expect(run, recipe, looked, base, settings)
    told = [
        *_events(training),
        *(_events(looked.validation) if looked.validation else []),
        *_finding_events(looked),
        *_holdout_events(training, held),
        *_early_stop_events(tuning, recipe),
        *_weights_events(recipe, base.model),
        _plan_event(recipe, training, base, expected, share=(training.used - len(held)) / training.used),
        Event("validated", "Files validated, moving job to queued state"),
    ]
    shown = ResolvedHyperparameters(
        n_epochs=recipe.n_epochs,
        batch_size=recipe.batch_size,
        learning_rate_multiplier=recipe.learning_rate_multiplier,
        beta=recipe.beta if recipe.method == "dpo" else None,
    )
    durable.sync_tree(run.path, "run")
    with desk.db.write() as tx:
        store.hold(tx, job)
        row = update(tunings).where(tunings.c.job_id == job.id)
        tx.execute(row.values(hyperparameters=shown.model_dump()))
        store.tell(tx, job.id, *told)
        store.move(tx, job, Status.QUEUED)


# --- what is tuned, and on what ------------------------------------------------------------------------------


def _base(desk: Desk, tuning: Tuning) -> Base:
    adapter = desk.adapters.find(tuning.scope, tuning.request.model)
    resolved = desk.catalog.find(adapter.base if adapter else tuning.request.model)
    if resolved is None:
        raise JobFailure("model_not_found", f"The model {tuning.model} is no longer here.", param="model")
    target = target_of(resolved)
    if adapter is None:
        return Base(resolved.base, target)
    target = replace(target, formats=(adapter.format,))
    if adapter.model_folder:
        target = replace(target, folder=desk.adapters.folder(adapter.model_folder))
    return Base(resolved.base, target, None if adapter.is_whole else desk.adapters.path(adapter), adapter.model_folder)


def _see_that_it_fits(model: BaseModel, weights: str, settings: Settings) -> None:
    """Raises JobFailure where the disk has no room for the whole models that a job with all weights keeps."""
    needed, free = _WHOLE_BYTES * model.parameters, shutil.disk_usage(settings.root).free
    if weights == "all" and free < needed:
        raise JobFailure(
            "insufficient_disk",
            f"To learn all {model.parameters:,} weights takes {needed / 1e9:,.1f} GB of disk while it runs, but "
            f"{free / 1e9:,.1f} GB are free where the data directory is. Free some, take a smaller base, or leave out "
            f"{WEIGHTS_KEY} to train an adapter.",
        )


def _sources(desk: Desk, tuning: Tuning, stack: ExitStack) -> list[Source]:
    """Raises JobFailure for a file that was deleted."""
    request = tuning.request
    named = [("training", request.training_file), ("validation", request.validation_file)]
    sources = []
    for which, file_id in named:
        if file_id is None:
            continue
        file = desk.files.find(tuning.scope, file_id)
        content = desk.files.open(file) if file else None
        if file is None or content is None:
            raise JobFailure("file_not_found", f"The {which} file {file_id} was deleted.", param=f"{which}_file")
        sources.append(Source(which, file, stack.enter_context(content)))
    return sources


# --- what can't be trained on --------------------------------------------------------------------------------


def _refuse(looked: Looked, settings: Settings) -> None:
    """Raises JobFailure if any row is bad, or if there are too few."""
    training, validation = looked.training, looked.validation
    for survey in (training, validation):
        if survey is not None and survey.bad:
            raise _bad_rows(survey)
    if validation is not None:
        if not validation.used:
            raise JobFailure("invalid_n_examples", "Validation file has 0 example(s)", param="validation_file")
        _same_format(training, validation)
    if training.rows < settings.min_examples:
        text = f"Training file has {training.rows} example(s), but must have at least {settings.min_examples} examples"
        raise JobFailure("invalid_n_examples", text, param="training_file")
    if not training.used:
        text = "Every example is longer than the model can see, with all that is to be learnt cut off; shorten them"
        raise JobFailure("invalid_training_file", text, param="training_file")


def _bad_rows(survey: Survey) -> JobFailure:
    """The failure that names them: all of the first hundred, and how many there are."""
    which = survey.corpus.which
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
        head += f" {survey.bad} of {survey.rows} examples are bad."
    return JobFailure(code, f"{head} Invalid file format. " + "\n".join(lines), param=f"{which}_file")


def _same_format(training: Survey, validation: Survey) -> None:
    if training.formats and validation.formats != training.formats:
        theirs, ours = next(iter(validation.formats)), next(iter(training.formats))
        text = f"The validation file is in {theirs} format, but the training file is in {ours} format."
        raise JobFailure("invalid_file_format", text, param="validation_file")


# --- which rows are held out ---------------------------------------------------------------------------------


def _hold_out(looked: Looked, tuning: Tuning, settings: Settings) -> NDArray[np.intp]:
    """Examples (from 0) to validate on where no file says which: a seeded tenth, equal rows kept on one side."""
    off = (tuning.request.metadata or {}).get(HOLDOUT_KEY) == "off" or not settings.holdout
    room = foresee.held_out(looked.training.used)
    if looked.validation is not None or off or not room:
        return np.array([], dtype=np.intp)
    digests = looked.training.digests.load()
    texts, copies = np.unique(digests[digests != 0], return_counts=True)
    chosen: list[int] = []
    for i in np.random.default_rng(tuning.seed).permutation(len(texts)):
        if copies[i] <= room:
            chosen.append(texts[i])
            room -= int(copies[i])
        if not room:
            break
    return np.flatnonzero(np.isin(digests, chosen))


def _lay_out(
    run: RunDir, looked: Looked, sources: list[Source], held: NDArray[np.intp], beat: Callable[[], None]
) -> None:
    used = looked.training.digests.load() != 0
    trained = used.copy()
    trained[held] = False
    run.lines_path.write_text(json.dumps((np.flatnonzero(trained) + 1).tolist()), "utf-8")
    _accounts(looked, len(held)).save(run.path)
    _copy_rows(sources[0].content, run.train_data, trained, beat)
    if len(held):
        _copy_rows(sources[0].content, run.valid_data, used & ~trained, beat)
    if looked.validation is not None:
        _copy_rows(sources[1].content, run.valid_data, looked.validation.digests.load() != 0, beat)


def _accounts(looked: Looked, held: int) -> Accounts:
    def account(survey: Survey, held_out: int) -> Account:
        refused = {reason: n for reason, n in ((UNREADABLE, survey.bad), (EMPTY, len(survey.empty))) if n}
        return Account(
            survey.rows, survey.used, refused, held_out, survey.cut_rows, survey.cut_trained, survey.kept_trained
        )

    return Accounts(account(looked.training, held), account(looked.validation, 0) if looked.validation else None)


def _copy_rows(content: BinaryIO, target: Path, wanted: NDArray[np.bool_], beat: Callable[[], None]) -> None:
    """The rows that are wanted, byte for byte as the user wrote them (bar BOM and CR)."""
    content.seek(0)
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for row in read_rows(content):
            beat()
            if wanted[row.example - 1]:
                out.write(row.text + "\n")


# --- every "auto" becomes a number ---------------------------------------------------------------------------


def _resolve(tuning: Tuning, base: Base, training: Survey, held: int, settings: Settings, wait: int | None) -> Recipe:
    n = training.used - held
    method, asked = tuning.request.tunes_by, tuning.request.asked()
    reasons: dict[str, str] = {}

    def choose(name: str, wish: object, auto: tuple[float, str]) -> float:
        if isinstance(wish, (int, float)):
            reasons[name] = "asked for"
            return wish
        reasons[name] = auto[1]
        return auto[0]

    epochs = int(choose("n_epochs", asked.n_epochs, epochs_for(method, training.used)))
    batch = int(choose("batch_size", asked.batch_size, batch_size_for(method, n, epochs)))
    multiplier = choose("learning_rate_multiplier", asked.learning_rate_multiplier, auto_multiplier())
    learns = submit.weights(tuning.request)
    rate, reasons["learning_rate"] = learning_rate_for(method, base.model.hidden_size, learns)
    beta = choose("beta", asked.beta, auto_beta()) if method == "dpo" else BETA
    return Recipe(
        job_id=tuning.id,
        base=base.model.name,
        base_folder=str(base.target.folder),
        base_fingerprint=base.model.fingerprint,
        method=method,
        beta=beta,
        base_key=base.key,
        weights=learns,
        format="chat" if method == "dpo" else min(training.formats),
        adapter_folder=str(base.adapter_folder) if base.adapter_folder else None,
        seed=tuning.seed,
        n_epochs=epochs,
        batch_size=batch,
        learning_rate=rate * multiplier,
        learning_rate_multiplier=multiplier,
        warmup_steps=auto_warmup(steps_per_epoch(n, batch) * epochs),
        max_tokens=base.target.limit,
        patience=wait,
        threads=settings.cpu_threads,
        dtype=settings.dtype,
        reasons=reasons,
    )


# --- what the user is told -----------------------------------------------------------------------------------


def _events(survey: Survey) -> list[Event]:
    """Row accounting, which sums: read = used + refused; and whatever was not taken whole."""
    which = survey.corpus.which
    refused = len(survey.empty)
    data: dict[str, object] = {
        "file": which, "examples": survey.rows, "used": survey.used, "refused": refused,
        "blank_lines": survey.blank_lines, "truncated": survey.cut_rows,
        "trained_tokens_lost": survey.cut_trained, "tokens": survey.kept, "trained_tokens": survey.kept_trained,
    }  # fmt: skip
    text = (
        f"{which.capitalize()} file: {survey.rows} examples read, {survey.used} used, {refused} refused; "
        f"{survey.kept:,} tokens, of which {survey.kept_trained:,} are learnt"
    )
    told = [Event(f"rows:{which}", text, data=data)]
    if survey.cut_rows:
        share = survey.cut_trained / (survey.cut_trained + survey.kept_trained or 1)
        text = (
            f"{survey.cut_rows} of {survey.rows} {which} examples are longer than the limit and were cut at the "
            f"end; {survey.cut_trained:,} tokens to learn ({share:.1%}) were lost"
        )
        told.append(Event(f"cut:{which}", text, level="warn", data=data))
    if survey.empty:
        named = ", ".join(map(str, survey.empty[:NAMED_PROBLEMS]))
        left = "nothing of an answer" if survey.corpus.method == "dpo" else "nothing to learn"
        text = f"{refused} {which} examples were refused, because cutting left {left}: {named}"
        told.append(Event(f"refused:{which}", text, level="warn", data={"examples": survey.empty[:NAMED_PROBLEMS]}))
    if survey.blank_lines:
        told.append(Event(f"blank:{which}", f"{survey.blank_lines} blank lines in the {which} file were passed over"))
    return told


def _holdout_events(training: Survey, held: NDArray[np.intp]) -> list[Event]:
    if not len(held):
        return []
    text = (
        f"No validation file was given: {len(held)} of {training.used} examples are held out to validate on, "
        f'{training.used - len(held)} are trained. Metadata {{"{HOLDOUT_KEY}": "off"}} trains on all.'
    )
    return [Event("holdout", text, data={"held_out": len(held), "trained": training.used - len(held)})]


def _early_stop_events(tuning: Tuning, recipe: Recipe) -> list[Event]:
    if recipe.patience:
        text = f"Early stopping is on: {recipe.patience} epochs without a better full validation loss end it"
        return [Event("patience", f"{text}, and the best checkpoint becomes the model")]
    if patience(tuning.request):
        text = f'"{EARLY_STOP_KEY}" has no effect, because no rows are held out: give a validation_file'
        return [Event("patience", text, level="warn")]
    return []


def _weights_events(recipe: Recipe, model: BaseModel) -> list[Event]:
    if recipe.weights == "adapter":
        return []
    text = (
        f"All {model.parameters:,} weights are learnt, not an adapter. Each checkpoint is a whole model "
        f"({4 * model.parameters / 1e9:,.1f} GB), so only the newest and the best are kept"
    )
    return [Event("weights", text, data={"weights": "all", "parameters": model.parameters})]


def _finding_events(looked: Looked) -> list[Event]:
    """The gravest findings, a line each, and how many more there are. Bad and cut rows have events of their own."""
    told = []
    shown = headlines(looked)
    for finding in (one for one in shown if one.code not in reading.CODES):
        level: Literal["info", "warn", "error"] = "error" if finding.severity == Severity.ERROR else "warn"
        lines = f" Lines {', '.join(map(str, finding.lines[:10]))}." if finding.lines else ""
        data: dict[str, object] = {
            "code": finding.code, "kind": finding.kind, "severity": str(finding.severity), "file": finding.file,
            "count": finding.count, "share": finding.share, "lines": list(finding.lines[:NAMED_PROBLEMS]),
        }  # fmt: skip
        key = f"finding:{finding.file}:{finding.code}:{finding.kind}"
        text = f"{finding.code}{in_file(finding)}: {finding.text}{lines} {finding.fix}"
        told.append(Event(key, text, level=level, data=data))
    more = len(looked.findings) - len(shown)
    text = f"Data report: {len(shown)} things to mend, {more} to know; the whole is at /v1/files/FILE/report"
    not_run: dict[str, object] = {"not_run": dict(looked.not_run)}
    return [*told, Event("report", text, data=not_run)]


def _expect(run: RunDir, recipe: Recipe, looked: Looked, base: Base, settings: Settings) -> Estimate:
    """What the job will take; its work is kept with the run, to learn from when it has ended."""
    load = foresee.load(
        looked.training, looked.validation, base.target,
        holdout=settings.holdout, epochs=recipe.n_epochs, batch_size=recipe.batch_size,
    )  # fmt: skip
    run.expect(load.work)
    return estimate(
        load, foresee.machine(settings, base.model, recipe.weights), micro_batch_tokens=recipe.micro_batch_tokens
    )


def _plan_event(recipe: Recipe, training: Survey, base: Base, expected: Estimate, share: float) -> Event:
    tokens = round(training.kept * share) * recipe.n_epochs
    price = base.target.price
    cost = f", estimated cost {tokens / 1e6 * price:.2f}" if price else ""
    beta = f"beta {recipe.beta:g} ({recipe.reasons['beta']}), " if recipe.method == "dpo" else ""
    text = (
        f"Plan: {recipe.n_epochs} epochs ({recipe.reasons['n_epochs']}), batch size {recipe.batch_size} "
        f"({recipe.reasons['batch_size']}), learning rate {recipe.learning_rate:g} "
        f"({recipe.reasons['learning_rate']}, times {recipe.learning_rate_multiplier:g}), "
        f"{beta}about {tokens:,} tokens{cost}; about {expected.seconds / 60:.0f} minutes "
        f"({expected.seconds_low / 60:.0f} to {expected.seconds_high / 60:.0f}). {expected.basis}"
    )
    data: dict[str, object] = {
        "n_epochs": recipe.n_epochs, "batch_size": recipe.batch_size, "learning_rate": recipe.learning_rate,
        "learning_rate_multiplier": recipe.learning_rate_multiplier, "reasons": recipe.reasons,
        "estimate": asdict(expected), **({"method": "dpo", "beta": recipe.beta} if beta else {}),
    }  # fmt: skip
    return Event("plan", text, data=data)


def _sparsely(beat: Callable[[], object], seconds: float = 1.0) -> Callable[[], None]:
    """Call at every row, act once a second."""
    due = time.monotonic() + seconds

    def maybe() -> None:
        nonlocal due
        if time.monotonic() >= due:
            beat()
            due = time.monotonic() + seconds

    return maybe
