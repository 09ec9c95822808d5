"""What the user is told before a job is queued: how the rows add up, what was found in them, what was chosen and what
it will take. Each line is an event of the job."""

from dataclasses import asdict
from typing import Literal

from pegbox.catalog.models import BaseModel
from pegbox.data import reading
from pegbox.data.check import Looked, headlines
from pegbox.data.quality.codes import Severity
from pegbox.data.report import Estimate
from pegbox.data.survey import NAMED_PROBLEMS, Survey
from pegbox.data.views.words import duration, in_file
from pegbox.jobs.bases import Base
from pegbox.jobs.layout import HOLDOUT_KEY
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import patience
from pegbox.queue.store import Event
from pegbox.train.recipe import Recipe
from pegbox.wire.fine_tuning import EARLY_STOP_KEY


def announcements(
    tuning: Tuning, base: Base, looked: Looked, held: int, recipe: Recipe, expected: Estimate
) -> list[Event]:
    """In the order in which they are told; `held` of the rows are held out."""
    training = looked.training
    return [
        *_rows(training),
        *(_rows(looked.validation) if looked.validation else []),
        *_findings(tuning, looked),
        *_holdout(training, held),
        *_early_stop(tuning, recipe),
        *_weights(recipe, base.model),
        _plan(recipe, training, base, expected, share=(training.used - held) / training.used),
        Event("validated", "Files validated, moving job to queued state"),
    ]


def _rows(survey: Survey) -> list[Event]:
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


def _holdout(training: Survey, held: int) -> list[Event]:
    if not held:
        return []
    text = (
        f"No validation file was given: {held} of {training.used} examples are held out to validate on, "
        f'{training.used - held} are trained. Metadata {{"{HOLDOUT_KEY}": "off"}} trains on all.'
    )
    return [Event("holdout", text, data={"held_out": held, "trained": training.used - held})]


def _early_stop(tuning: Tuning, recipe: Recipe) -> list[Event]:
    if recipe.patience:
        text = f"Early stopping is on: {recipe.patience} epochs without a better full validation loss end it"
        return [Event("patience", f"{text}, and the best checkpoint becomes the model")]
    if patience(tuning.request):
        text = f'"{EARLY_STOP_KEY}" has no effect, because no rows are held out: give a validation_file'
        return [Event("patience", text, level="warn")]
    return []


def _weights(recipe: Recipe, model: BaseModel) -> list[Event]:
    if recipe.weights == "adapter":
        return []
    text = (
        f"All {model.parameters:,} weights are learnt, not an adapter. Each checkpoint is a whole model "
        f"({4 * model.parameters / 1e9:,.1f} GB), so only the newest and the best are kept"
    )
    return [Event("weights", text, data={"weights": "all", "parameters": model.parameters})]


def _findings(tuning: Tuning, looked: Looked) -> list[Event]:
    """The gravest findings, a line each, and how many more there are. Bad and cut rows have events of their own."""
    told = []
    shown = headlines(looked)
    for finding in (one for one in shown if one.code not in reading.CODES):
        level: Literal["info", "warn", "error"] = "error" if finding.severity == Severity.ERROR else "warn"
        named = ", ".join(map(str, finding.lines[:10]))
        lines = f" Line{'' if len(finding.lines) == 1 else 's'} {named}." if named else ""
        data: dict[str, object] = {
            "code": finding.code, "kind": finding.kind, "severity": str(finding.severity), "file": finding.file,
            "count": finding.count, "share": finding.share, "lines": list(finding.lines[:NAMED_PROBLEMS]),
        }  # fmt: skip
        key = f"finding:{finding.file}:{finding.code}:{finding.kind}"
        text = f"{finding.code}{in_file(finding)}: {finding.text}{lines} {finding.fix}"
        told.append(Event(key, text, level=level, data=data))
    more = len(looked.findings) - len(shown)
    file = tuning.request.training_file
    things = f"{len(shown)} thing{'' if len(shown) == 1 else 's'}"
    text = f"Data report: {things} worth mending, {more} to know; the whole is at /v1/files/{file}/report"
    not_run: dict[str, object] = {"not_run": dict(looked.not_run)}
    return [*told, Event("report", text, data=not_run)]


def _plan(recipe: Recipe, training: Survey, base: Base, expected: Estimate, share: float) -> Event:
    tokens = round(training.kept * share) * recipe.n_epochs
    price = base.target.price
    cost = f", estimated cost {tokens / 1e6 * price:.2f}" if price else ""
    beta = f"beta {recipe.beta:g} ({recipe.reasons['beta']}), " if recipe.method == "dpo" else ""
    text = (
        f"Plan: {recipe.n_epochs} epochs ({recipe.reasons['n_epochs']}), batch size {recipe.batch_size} "
        f"({recipe.reasons['batch_size']}), learning rate {recipe.learning_rate:g} "
        f"({recipe.reasons['learning_rate']}, times {recipe.learning_rate_multiplier:g}), "
        f"{beta}about {tokens:,} tokens{cost}; about {duration(expected.seconds)} "
        f"({duration(expected.seconds_low)} to {duration(expected.seconds_high)}). {expected.basis}"
    )
    data: dict[str, object] = {
        "n_epochs": recipe.n_epochs, "batch_size": recipe.batch_size, "learning_rate": recipe.learning_rate,
        "learning_rate_multiplier": recipe.learning_rate_multiplier, "reasons": recipe.reasons,
        "estimate": asdict(expected), **({"method": "dpo", "beta": recipe.beta} if beta else {}),
    }  # fmt: skip
    return Event("plan", text, data=data)
