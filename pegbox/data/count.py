"""How many tokens rows have: exactly as many as `render.examples` makes of them, many times faster.

Rows with the same roles share one rendering with holes (skeleton.py), and what fills the holes is counted from a table
of words (words.py). Rows for which either does not hold are rendered like any other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from pegbox.data.formats import Preference, Record
from pegbox.data.render import encode, render
from pegbox.data.rows import Row
from pegbox.data.skeleton import Hole, HollowSegment, hollow
from pegbox.data.template import Template
from pegbox.data.words import Pending, WordTable
from pegbox.errors import RenderError

_BLOCK = 1_024  # rows whose new words are encoded together
_KEPT_SHAPES = 1_000
_KEPT_CONTENTS = 2_000


@dataclass(slots=True)
class Count:
    """A row's tokens; not frozen, for speed alone."""

    tokens: int  # of all its examples
    trained: int  # of these, those that loss is taken on
    longest: int  # tokens of its longest example
    kept: int  # what remains after cutting at the limit, of examples that still have something to learn
    kept_trained: int


@dataclass(frozen=True, slots=True)
class _Run:
    """From one mark to the next: a content and the literal text about it."""

    before: str
    message: int
    after: str
    known: dict[str, int] = field(default_factory=dict)  # contents met here (a system prompt, labels) → tokens


@dataclass(frozen=True, slots=True)
class _Segment:
    """What a shape of rows has in common in one segment."""

    fixed: int  # tokens of marks, and of literal text that stands by itself
    runs: tuple[_Run, ...]
    trained: bool


@dataclass(slots=True)
class _Counted:
    """A row's segments, counted as far as its words are known."""

    shape: tuple[_Segment, ...]
    tokens: list[int]  # a segment
    pending: list[tuple[int, Pending]]  # segment, what is yet to be added to it


class TokenCounter:
    """Counts rows for one base model, cut at `limit` tokens an example (0: never). Not for two threads at a time."""

    def __init__(self, template: Template, limit: int = 0) -> None:
        self._template = template
        self._limit = limit or 2**62
        self._table = WordTable(template.tokenizer)
        self._shapes: dict[tuple[str, ...], tuple[_Segment, ...] | None] = {}

    def count(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Count | RenderError | None]]:
        """Every row with its count; with the error where the chat template refuses it; with None where it is bad."""
        rows = iter(rows)
        while block := list(islice(rows, _BLOCK)):
            self._table.forget()
            counted = [self._quickly(row) for row in block]
            self._table.learn()
            for row, known in zip(block, counted, strict=True):
                if known is None:
                    yield row, self._carefully(row)
                else:
                    yield row, known if isinstance(known, Count) else self._finish(known)

    def count_record(self, record: Record) -> Count:
        """One record of any shape. Raises RenderError."""
        count = Count(0, 0, 0, 0, 0)
        whole = True  # every example keeps something to learn
        for segments in render(record, self._template):
            before = count.kept
            if self._table.cuts_at_marks:
                self._add(count, [(self._table.tokens(s.text), s.trained) for s in segments])
            else:
                self._add(count, [(1, trained) for trained in encode(segments, self._template).trained])
            whole = whole and count.kept > before
        if isinstance(record, Preference) and not whole:
            count.kept = count.kept_trained = 0  # half a pair says nothing
        return count

    def _carefully(self, row: Row) -> Count | RenderError | None:
        if row.record is None:
            return None
        try:
            return self.count_record(row.record)
        except RenderError as error:
            return error

    def _quickly(self, row: Row) -> "Count | _Counted | None":
        """The row's count; or what is known of it as long as some words are not; None where a row needs care."""
        messages = row.messages
        if messages is None:
            return None
        roles = tuple([message.role for message in messages])
        try:
            shape = self._shapes[roles]
        except KeyError:
            shape = self._learn_shape(roles)
        if shape is None:
            return None
        whole = trained = 0
        sums: list[int] = []
        pending: list[tuple[int, Pending]] = []
        for segment in shape:
            tokens = segment.fixed
            for run in segment.runs:
                content = messages[run.message].content
                asked = run.known.get(content) or self._ask(run, content)
                if asked is None:
                    return None
                if asked.__class__ is int:
                    tokens += asked
                else:
                    pending.append((len(sums), asked))  # type: ignore[arg-type]
            sums.append(tokens)
            whole += tokens
            if segment.trained:
                trained += tokens
        if pending or whole > self._limit:
            return _Counted(shape, sums, pending)
        return Count(whole, trained, whole, whole if trained else 0, trained)

    def _ask(self, run: _Run, content: str) -> int | Pending | None:
        if not content or content[0].isspace() or content[-1].isspace() or self._table.has_marks(content):
            return None
        asked = self._table.ask(content + run.after if run.after else content, run.before)
        if asked.__class__ is int:
            if len(run.known) >= _KEPT_CONTENTS:
                run.known.clear()
            run.known[content] = asked
        return asked

    def _finish(self, counted: _Counted) -> Count:
        tokens = counted.tokens
        for segment, asked in counted.pending:
            tokens[segment] += self._table.answer(asked)
        count = Count(0, 0, 0, 0, 0)
        self._add(count, zip(tokens, [segment.trained for segment in counted.shape], strict=True))
        return count

    def _add(self, count: Count, segments: Iterable[tuple[int, bool]]) -> None:
        """Add one example: its segments' tokens, and whether they are trained."""
        tokens = kept = 0
        for n, trained in segments:
            if trained:
                count.trained += n
                kept += max(0, min(n, self._limit - tokens))
            tokens += n
        count.tokens += tokens
        count.longest = max(count.longest, tokens)
        if kept:
            count.kept += min(tokens, self._limit)
            count.kept_trained += kept

    def _learn_shape(self, roles: tuple[str, ...]) -> tuple[_Segment, ...] | None:
        found = hollow(roles, self._template) if self._table.cuts_at_marks and len(roles) <= 64 else None
        quick = found is not None and all(self._is_plain(segment) for segment in found)
        shape = tuple(self._segment(segment) for segment in found) if found is not None and quick else None
        if len(self._shapes) < _KEPT_SHAPES:
            self._shapes[roles] = shape
        return shape

    def _is_plain(self, segment: HollowSegment) -> bool:
        """Whether a mark stands between any two holes, and no content without marks can make one together with the
        literal text beside it."""
        parts = segment.parts
        for i, part in enumerate(parts):
            if isinstance(part, Hole):
                nearby = parts[i + 1] if i + 1 < len(parts) else None
                if isinstance(nearby, Hole):
                    return False
                if isinstance(nearby, str) and i + 2 < len(parts) and not self._table.has_marks(nearby):
                    return False
                continue
            for mark in self._table.marks:
                cuts = range(1, len(mark))
                if part.endswith(tuple(mark[:k] for k in cuts)) or part.startswith(tuple(mark[k:] for k in cuts)):
                    return False
        return True

    def _segment(self, segment: HollowSegment) -> _Segment:
        fixed = 0
        runs: list[_Run] = []
        for run in self._between_marks(segment):
            holes = [i for i, part in enumerate(run) if isinstance(part, Hole)]
            if holes:
                at = holes[0]
                hole = run[at]
                assert isinstance(hole, Hole), "found above"
                runs.append(_Run("".join(map(str, run[:at])), hole.message, "".join(map(str, run[at + 1 :]))))
            else:
                fixed += self._table.tokens("".join(map(str, run)))
        return _Segment(fixed + self._n_marks(segment), tuple(runs), segment.trained)

    def _between_marks(self, segment: HollowSegment) -> Iterator[list[str | Hole]]:
        """What stands between two marks, or a mark and an end: literal text and at most one hole."""
        run: list[str | Hole] = []
        for part in segment.parts:
            if isinstance(part, Hole):
                run.append(part)
                continue
            for text, marked in self._table.cut(part):
                run.append(text)
                if marked:
                    yield run
                    run = []
        yield run

    def _n_marks(self, segment: HollowSegment) -> int:
        return sum(marked for part in segment.parts if isinstance(part, str) for _, marked in self._table.cut(part))
