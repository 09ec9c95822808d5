"""How many tokens rows have: exactly as many as `render.examples` makes of them, many times faster.

Rows with the same roles share one rendering with holes (skeleton.py), and what fills the holes is counted from a table
of words (words.py). Rows for which either does not hold are rendered like any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pegbox.data.formats import Record
from pegbox.data.render import encode, render
from pegbox.data.rows import Row
from pegbox.data.skeleton import Hole, HollowSegment, hollow
from pegbox.data.template import Template
from pegbox.data.words import Pending, WordTable
from pegbox.errors import RenderError

_BLOCK = 1_024  # rows whose new words are encoded together
_KEPT_SHAPES = 1_000


@dataclass(slots=True)
class Count:
    """A row's tokens. (Not frozen, for speed alone.)"""

    tokens: int  # of all its examples
    trained: int  # of these, those that loss is taken on
    longest: int  # tokens of its longest example
    kept: int  # what remains after cutting at the limit, of examples that still have something to learn
    kept_trained: int


@dataclass(frozen=True, slots=True)
class _Segment:
    """What a shape of rows has in common in one segment."""

    fixed: int  # tokens of the literal text that stands by itself
    runs: tuple[tuple[str | Hole, ...], ...]  # from one mark to the next, with at least one hole
    trained: bool


@dataclass(slots=True)
class _Span:
    """A segment of one row, counted as far as its words are known."""

    tokens: int
    trained: bool
    pending: list[Pending]


class TokenCounter:
    """Counts rows for one base model, cut at `limit` tokens an example (0: never). Not for two threads at a time."""

    def __init__(self, template: Template, limit: int = 0) -> None:
        self._template = template
        self._limit = limit
        self._table = WordTable(template.tokenizer)
        self._shapes: dict[tuple[str, ...], tuple[_Segment, ...] | None] = {}

    def count(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Count | RenderError | None]]:
        """Every row with its count; with the error where the chat template refuses it; with None where it is bad."""
        rows = iter(rows)
        while block := list(islice(rows, _BLOCK)):
            self._table.forget()
            spans = [self._spans(row) for row in block]
            self._table.learn()
            for row, known in zip(block, spans, strict=True):
                yield row, self._carefully(row) if known is None else self._sum([known])

    def _carefully(self, row: Row) -> Count | RenderError | None:
        if row.record is None:
            return None
        try:
            return self.count_record(row.record)
        except RenderError as error:
            return error

    def count_record(self, record: Record) -> Count:
        """One record of any shape. Raises RenderError."""
        sequences = []
        for segments in render(record, self._template):
            if self._table.cuts_at_marks:
                spans = [_Span(self._table.tokens(s.text), s.trained, []) for s in segments]
            else:
                example = encode(segments, self._template)
                spans = [_Span(1, trained, []) for trained in example.trained]
            sequences.append(spans)
        return self._sum(sequences)

    def _spans(self, row: Row) -> list[_Span] | None:
        """The quick way; None where a row needs the careful one."""
        if row.messages is None:
            return None
        roles = tuple([message.role for message in row.messages])
        try:
            shape = self._shapes[roles]
        except KeyError:
            shape = self._learn_shape(roles)
        if shape is None:
            return None
        contents = [message.content for message in row.messages]
        for content in contents:
            if not content or content[0].isspace() or content[-1].isspace() or self._table.has_marks(content):
                return None
        spans = []
        for segment in shape:
            span = _Span(segment.fixed, segment.trained, [])
            for run in segment.runs:
                asked = self._table.ask("".join([contents[p.message] if p.__class__ is Hole else p for p in run]))  # type: ignore[union-attr, misc]
                if asked.__class__ is int:
                    span.tokens += asked  # type: ignore[operator]
                else:
                    span.pending.append(asked)  # type: ignore[arg-type]
            spans.append(span)
        return spans

    def _sum(self, sequences: Sequence[Sequence[_Span]]) -> Count:
        count = Count(0, 0, 0, 0, 0)
        limit = self._limit or 2**62
        for spans in sequences:
            tokens = kept = 0
            for span in spans:
                n = span.tokens
                for asked in span.pending:
                    n += self._table.answer(asked)
                if span.trained:
                    count.trained += n
                    kept += max(0, min(n, limit - tokens))
                tokens += n
            count.tokens += tokens
            count.longest = max(count.longest, tokens)
            if kept:
                count.kept += min(tokens, limit)
                count.kept_trained += kept
        return count

    def _learn_shape(self, roles: tuple[str, ...]) -> tuple[_Segment, ...] | None:
        found = hollow(roles, self._template) if self._table.cuts_at_marks and len(roles) <= 64 else None
        quick = found is not None and all(self._marks_stay_apart(segment) for segment in found)
        shape = tuple(self._segment(segment) for segment in found) if found is not None and quick else None
        if len(self._shapes) < _KEPT_SHAPES:
            self._shapes[roles] = shape
        return shape

    def _marks_stay_apart(self, segment: HollowSegment) -> bool:
        """Whether no content without marks can make one together with the literal text beside it."""
        for mark in self._table.marks:
            heads = tuple(mark[:k] for k in range(1, len(mark)))
            tails = tuple(mark[k:] for k in range(1, len(mark)))
            for left, right in zip(segment.parts, segment.parts[1:], strict=False):
                if isinstance(left, Hole) and isinstance(right, Hole):
                    return False
                if isinstance(left, str) and left.endswith(heads):
                    return False
                if isinstance(right, str) and right.startswith(tails):
                    return False
        return True

    def _segment(self, segment: HollowSegment) -> _Segment:
        fixed = 0
        runs: list[tuple[str | Hole, ...]] = []
        run: list[str | Hole] = []

        def close() -> None:
            nonlocal fixed
            if any(isinstance(part, Hole) for part in run):
                runs.append(tuple(run))
            else:
                fixed += self._table.tokens("".join(map(str, run)))
            run.clear()

        for part in segment.parts:
            if isinstance(part, Hole):
                run.append(part)
                continue
            for text, marked in self._table.cut(part):
                run += [text] if text else []
                if marked:
                    close()
                    fixed += 1
        close()
        return _Segment(fixed, tuple(runs), segment.trained)
