"""What each row of a job cost the model, epoch by epoch: which rows are hard, and which look wrong.

Read from the run directory, which keeps the losses after the rows themselves are gone; the text comes from the user's
training file, for as long as it is there.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Literal

from pegbox.data import strict_json
from pegbox.data.formats import Conversation, FormatError, Preference, PromptCompletion, parse_row
from pegbox.data.lines import read_lines
from pegbox.data.quality.text import excerpt
from pegbox.errors import NotFound
from pegbox.jobs import submit
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.train.rundir import RowLosses, RunDir

Order = Literal["hardest", "easiest", "suspect", "line"]
FAR = 3.5  # modified z-scores beyond it are outliers: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993)
_TIMES = 1.25  # and the loss is at least so many times the median,
_NATS = 0.1  # and so much above it: where all losses are nearly equal, an outlier means nothing
_LEAST_LOSS = 0.01  # nats; below it a row is known by heart, and how well does not matter
_UNMOVED = 0.8  # of its first loss, that a row never learnt still costs
_FELL = 0.6  # of theirs, that the others cost by then
_FEW = 8  # rows that a median is worth something of


@dataclass(frozen=True, slots=True)
class RowStory:
    """One training row. Losses are nats a trained token (a pair, for dpo), the mean of each epoch."""

    example: int  # the user's number for it, from 1
    losses: tuple[float, ...]  # by epoch
    far: float  # modified z-score of the last loss among all rows', on a log scale
    never_learnt: bool  # its loss stayed while the others' fell
    looks_mislabelled: bool  # it still costs far more than the rest at the end
    line: int | None = None  # in the user's file; None where that is gone
    asked: str | None = None  # an excerpt, redacted
    answer: str | None = None

    @property
    def first(self) -> float:
        return self.losses[0]

    @property
    def last(self) -> float:
        return self.losses[-1]


@dataclass(frozen=True, slots=True)
class RowsReport:
    """All rows of a job, of which `shown` are told in full."""

    job_id: str
    epochs: int
    rows: int
    never_learnt: int
    looks_mislabelled: int
    shown: list[RowStory]


def find(desk: Desk, scope: Scope, settings: Settings, job_id: str, order: Order, limit: int) -> RowsReport:
    """Raises NotFound for a job that isn't there, or that has trained no row yet."""
    tuning = submit.get(desk, scope, job_id)
    run = RunDir(settings.root / "runs" / tuning.id)
    told = stories(run.row_losses(), run.lines())
    if not told:
        text = f"{job_id} is {tuning.job.status} and has no losses of single rows; they come with its first step."
        raise NotFound(text, param="fine_tune_id", code="rows_not_found")
    return RowsReport(
        job_id=tuning.id,
        epochs=max(len(story.losses) for story in told),
        rows=len(told),
        never_learnt=sum(story.never_learnt for story in told),
        looks_mislabelled=sum(story.looks_mislabelled for story in told),
        shown=_with_text(desk, tuning, arrange(told, order)[:limit]),
    )


def stories(told: Iterable[RowLosses], lines: Sequence[int]) -> list[RowStory]:
    """Of every row that was trained, in the order of the file."""
    seen: dict[int, dict[int, list[float]]] = {}  # row → epoch → its losses (a split row has several)
    for step in told:
        for row, loss in zip(step.rows, step.losses, strict=True):
            seen.setdefault(row, {}).setdefault(step.epoch, []).append(loss)
    by_row = {
        row: tuple(statistics.fmean(epochs[epoch]) for epoch in sorted(epochs)) for row, epochs in sorted(seen.items())
    }
    far = _far([losses[-1] for losses in by_row.values()])
    usual = statistics.median(losses[-1] for losses in by_row.values()) if by_row else 0.0
    fallen = statistics.median(_left(losses) for losses in by_row.values()) if by_row else 1.0
    many = len(by_row) >= _FEW
    return [
        RowStory(
            example=lines[row] if row < len(lines) else row + 1,
            losses=losses,
            far=score,
            never_learnt=many and len(losses) > 1 and fallen <= _FELL and _left(losses) >= _UNMOVED,
            looks_mislabelled=many and score > FAR and losses[-1] >= max(_TIMES * usual, usual + _NATS),
        )
        for (row, losses), score in zip(by_row.items(), far, strict=True)
    ]


def arrange(told: Sequence[RowStory], order: Order) -> list[RowStory]:
    """Hardest and easiest by the last loss; suspect: what looks mislabelled first, then what was never learnt."""
    if order == "line":
        return sorted(told, key=lambda story: story.example)
    if order == "easiest":
        return sorted(told, key=lambda story: (story.last, story.example))
    if order == "hardest":
        return sorted(told, key=lambda story: (-story.last, story.example))
    found = [story for story in told if story.looks_mislabelled or story.never_learnt]
    return sorted(found, key=lambda story: (not story.looks_mislabelled, -story.far, story.example))


def _far(losses: Sequence[float]) -> list[float]:
    """Modified z-scores: distances from the median in units of the median distance, so that no outlier hides another.

    On a log scale, because losses are skewed: most rows are known well and a tail is not. Where half of the rows or
    more are equal, the mean distance is the unit.
    """
    if not losses:
        return []
    logs = [log(max(loss, _LEAST_LOSS)) for loss in losses]
    middle = statistics.median(logs)
    apart = [abs(value - middle) for value in logs]
    unit = statistics.median(apart) / 0.6745 or statistics.fmean(apart) * 1.253314
    return [(value - middle) / unit if unit else 0.0 for value in logs]


def _left(losses: tuple[float, ...]) -> float:
    """The share of its first loss that a row still costs."""
    return losses[-1] / max(losses[0], _LEAST_LOSS)


# --- the rows' text ------------------------------------------------------------------------------------------


def _with_text(desk: Desk, tuning: Tuning, shown: list[RowStory]) -> list[RowStory]:
    file = desk.files.find(tuning.scope, tuning.request.training_file)
    content = desk.files.open(file) if file else None
    if content is None:
        return shown
    wanted = {story.example for story in shown}
    found: dict[int, tuple[int, str, str]] = {}
    with content:
        example = 0
        for line in read_lines(content):
            if line.text is not None and (not line.text or line.text.isspace()):
                continue
            example += 1
            if example in wanted and line.text is not None:
                found[example] = (line.number, *_said(line.text))
            if len(found) == len(wanted):
                break
    return [_told(story, found.get(story.example)) for story in shown]


def _told(story: RowStory, found: tuple[int, str, str] | None) -> RowStory:
    return story if found is None else replace(story, line=found[0], asked=found[1], answer=found[2])


def _said(text: str) -> tuple[str, str]:
    """Excerpts of what was asked last, and of the answer that is learnt."""
    try:
        value = strict_json.loads(text)
        pair = isinstance(value, dict) and "input" in value
        record = parse_row(value, "dpo" if pair else "supervised")
    except (strict_json.JSONError, FormatError):  # never in a file that was trained on
        return "", ""
    if isinstance(record, PromptCompletion):
        return excerpt(record.prompt), excerpt(record.completion)
    if isinstance(record, Preference):
        return excerpt(record.prompt.messages[-1].content or ""), excerpt(record.chosen.content or "")
    assert isinstance(record, Conversation), "no job trains on anything else"
    last = max(i for i, message in enumerate(record.messages) if message.role == "assistant" and message.trained)
    asked = next((m.content for m in record.messages[:last][::-1] if m.role == "user"), "")
    return excerpt(asked or ""), excerpt(record.messages[last].content or "")
