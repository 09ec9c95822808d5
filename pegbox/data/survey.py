"""One file, read through once. The check, the upload and the job all read it here, so they say the same of it.

Every row is in exactly one place: used, or refused for a reason that is named.
"""

import hashlib
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pegbox.data.count import Count, TokenCounter
from pegbox.data.formats import Conversation, Preference, PromptCompletion, Record
from pegbox.data.guide import error_classes
from pegbox.data.quality.base import Check, Context
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.digests import digests
from pegbox.data.quality.findings import MAX_LINES
from pegbox.data.quality.items import Item, item, plain_item
from pegbox.data.report import Distribution, FileFacts
from pegbox.data.rows import Problem, Row, read_rows
from pegbox.data.template import Template
from pegbox.errors import RenderError

NAMED_PROBLEMS = 100
UNREADABLE = "unreadable"
EMPTY = "nothing left to learn"
_ROLL = 8_192  # rows between two looks at memory
_BINS = 24
_SAMPLE = 192  # rows
_SAMPLED_CHARACTERS = 200_000  # longer rows are not sampled: memory stays bounded


@dataclass(frozen=True, slots=True)
class Target:
    """The base model that a file is to tune."""

    name: str
    folder: Path  # in hub layout
    template: Template
    limit: int  # tokens an example
    formats: tuple[str, ...] = ()  # that it is tuned on; empty: any
    price: float = 0.0  # a million training tokens


@dataclass(slots=True)
class Survey:
    """What was read. Figures grow row by row; columns lie on disk."""

    corpus: Corpus
    blank_lines: int = 0
    bad: int = 0
    problems: list[Problem] = field(default_factory=list)  # of the first bad rows
    classes: Counter[str] = field(default_factory=Counter)  # the guide's error classes
    formats: dict[str, None] = field(default_factory=dict)  # in order of appearance
    used: int = 0
    empty: list[int] = field(
        default_factory=list
    )  # examples whose every trained token (an answer's, of a pair) was cut
    empty_lines: list[int] = field(default_factory=list)  # their lines; the first MAX_LINES
    missing_system: int = 0
    missing_user: int = 0
    cut_rows: int = 0  # longer than the limit
    cut_lines: list[int] = field(default_factory=list)  # their lines; the first MAX_LINES
    cut_trained: int = 0  # trained tokens lost by that
    kept: int = 0  # tokens of used rows, after cutting
    kept_trained: int = 0
    tokens: int = 0
    trained: int = 0
    sample: list[Record] = field(default_factory=list)  # of used rows, drawn at random
    next_draw: tuple[int, int] = (0, 0)  # the used row to draw next, from 0, and its place in the sample
    digests: Column = field(default_factory=Column)  # of each row's text as it stands; 0: not used
    row_tokens: Column = field(default_factory=lambda: Column("I"))
    row_trained: Column = field(default_factory=lambda: Column("I"))
    row_messages: Column = field(default_factory=lambda: Column("I"))

    @property
    def rows(self) -> int:
        return self.corpus.read

    def roll(self) -> None:
        self.corpus.roll()
        for column in (self.digests, self.row_tokens, self.row_trained, self.row_messages):
            column.roll()


def survey(
    file: BinaryIO,
    *,
    method: str,
    which: str,
    target: Target | None,
    context: Context,
    checks: Sequence[Check] = (),
    keep: bool = False,
    with_digests: bool = False,
    tick: Callable[[int, int], None] = lambda *_: None,
) -> Survey:
    """Read a file through.

    `checks` see every good row; `keep` fills the corpus, to come back to them. `tick` is told now and then how many
    bytes are done, and of how many. When the context's time is over, rows are only read and counted.
    """
    found = Survey(Corpus(file, method, which, context))
    last_line = 0
    size = os.fstat(file.fileno()).st_size
    draws = _draws()
    found.next_draw = next(draws)
    for row, count in _counted(read_rows(file, method), target):
        found.corpus.read += 1
        found.blank_lines += row.line - last_line - 1
        last_line = row.line
        problem = row.problem or _take(found, row, count, target)
        if problem is not None:
            found.bad += 1
            value = problem.value
            found.classes.update({"invalid_json": 1} if value is None else error_classes(value))
            if len(found.problems) < NAMED_PROBLEMS:
                found.problems.append(problem)
        else:
            _sample(found, row, draws)
        if problem is None and (keep or checks):
            seen = plain_item(row) or item(row.example, row.line, row.record)  # type: ignore[arg-type]
            _keep(found.corpus, seen, row.offset, count)
            for check in checks:
                check.see(seen)
        if with_digests:
            used = problem is None and not (found.empty and found.empty[-1] == row.example)
            found.digests.append(_digest(row.text) if used else 0)
        if not found.corpus.read % _ROLL:
            found.roll()
            tick(row.offset, size)
            if context.deadline.over:  # no check will have time to speak: what is left is only read and counted
                checks, keep = (), False
    return found


def facts(found: Survey, name: str, size: int) -> FileFacts:
    """The survey, as facts."""
    refused = {reason: n for reason, n in ((UNREADABLE, found.bad), (EMPTY, len(found.empty))) if n}
    return FileFacts(
        name=name,
        which=found.corpus.which,
        method=found.corpus.method,
        formats=tuple(found.formats),
        bytes=size,
        rows=found.rows,
        used=found.used,
        refused=refused,
        blank_lines=found.blank_lines,
        format_errors=dict(sorted(found.classes.items())),
        problems=tuple(found.problems),
        missing_system=found.missing_system,
        missing_user=found.missing_user,
        messages=distribution(found.row_messages),
        tokens=distribution(found.row_tokens),
        assistant_tokens=distribution(found.row_trained),
        total_tokens=found.tokens,
        trained_tokens=found.trained,
        over_limit=found.cut_rows,
        lost_tokens=found.cut_trained,
    )


def distribution(column: Column) -> Distribution | None:
    """Of a column's values; None where it has none. Quantiles are linear between neighbours (numpy's default)."""
    values = column.load()
    if not len(values):
        return None
    p5, median, p95 = (float(v) for v in np.quantile(values, (0.05, 0.5, 0.95)))
    low, high = int(values.min()), int(values.max())
    bins = min(_BINS, high - low + 1)
    counts, edges = np.histogram(values, bins=bins, range=(low, high + 1))
    return Distribution(
        float(low), float(high), float(values.mean()), median, p5, p95,
        tuple(float(edge) for edge in edges), tuple(int(n) for n in counts),
    )  # fmt: skip


def _draws() -> Iterator[tuple[int, int]]:
    """Which good rows go into the sample, and in which place: each with the same chance, however many there are
    (Li's algorithm L, 1994)."""
    draw = random.Random(0)  # noqa: S311 - shuffling is no cryptography
    for i in range(_SAMPLE):
        yield i, i
    weight = math.exp(math.log(draw.random()) / _SAMPLE)
    at = _SAMPLE - 1
    while True:
        at += int(math.log(draw.random()) / math.log(1 - weight)) + 1
        yield at, draw.randrange(_SAMPLE)
        weight *= math.exp(math.log(draw.random()) / _SAMPLE)


def _sample(found: Survey, row: Row, draws: Iterator[tuple[int, int]]) -> None:
    if found.used - 1 < found.next_draw[0] or len(row.text) > _SAMPLED_CHARACTERS or row.record is None:
        return
    place = found.next_draw[1]
    if place < len(found.sample):
        found.sample[place] = row.record
    else:
        found.sample.append(row.record)
    found.next_draw = next(draws)


def _counted(rows: Iterator[Row], target: Target | None) -> Iterator[tuple[Row, Count | RenderError | None]]:
    if target is None:
        return ((row, None) for row in rows)
    return TokenCounter(target.template, target.limit).count(rows)


def _take(found: Survey, row: Row, count: Count | RenderError | None, target: Target | None) -> Problem | None:
    """Count one parsed row; or say what is wrong with it after all."""
    if row.messages is not None:
        format_ = "chat"
        roles: list[str] = [message.role for message in row.messages]
    else:
        record = row.record
        assert record is not None, "a row without a problem has a record"
        format_, roles = record.format, _roles(record)
    found.formats[format_] = None
    spoken = "chat" if format_ == "preference" else format_  # a pair answers a conversation
    if target is not None and target.formats and spoken in ("chat", "completion") and spoken not in target.formats:
        wanted = " or ".join(target.formats)
        text = f"is in {format_} format, but this model is tuned on {wanted} rows"
        return Problem(row.example, row.line, "", text, is_format=True)
    if len(found.formats) > 1:
        text = f"is in {format_} format, unlike the rows before it; use one format in a file"
        return Problem(row.example, row.line, "", text, is_format=True)
    if isinstance(count, RenderError):
        return Problem(row.example, row.line, "", str(count), is_format=False)
    found.row_messages.append(len(roles))
    if format_ != "completion":
        found.missing_system += "system" not in roles and "developer" not in roles
        found.missing_user += "user" not in roles
    if count is not None:
        _add(found, row, count, target.limit if target else 0)
    else:
        found.used += 1
    return None


def _add(found: Survey, row: Row, count: Count, limit: int) -> None:
    found.row_tokens.append(count.tokens)
    found.row_trained.append(count.trained)
    found.tokens += count.tokens
    found.trained += count.trained
    if limit and count.longest > limit:
        found.cut_rows += 1
        if len(found.cut_lines) < MAX_LINES:
            found.cut_lines.append(row.line)
        found.cut_trained += count.trained - count.kept_trained
    if not count.kept_trained and found.corpus.method != "reinforcement":
        found.empty.append(row.example)
        if len(found.empty_lines) < MAX_LINES:
            found.empty_lines.append(row.line)
        return
    found.used += 1
    found.kept += count.kept
    found.kept_trained += count.kept_trained


def _keep(corpus: Corpus, seen: Item, offset: int, count: Count | RenderError | None) -> None:
    corpus.examples.append(seen.example)
    corpus.lines.append(seen.line)
    corpus.offsets.append(offset)
    corpus.tokens.append(count.tokens if isinstance(count, Count) else 0)
    of = digests(seen)
    corpus.systems.append(of.system)
    corpus.prompts.append(of.prompt)
    corpus.answers.append(of.answer)
    corpus.rows.append(of.row)


def _roles(record: Record) -> list[str]:
    if isinstance(record, PromptCompletion):
        return ["user", "assistant"]
    talk = record if isinstance(record, Conversation) else record.prompt
    answer = ["assistant"] if isinstance(record, Preference) else []
    return [message.role for message in talk.messages] + answer


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:8]) or 1
