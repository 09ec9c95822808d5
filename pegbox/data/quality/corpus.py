"""The good rows of one file, to come back to: their figures as columns, their text read again from the file."""

from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pegbox.data import plain, strict_json
from pegbox.data.formats import Record, parse_row
from pegbox.data.lines import MAX_LINE_BYTES, Line
from pegbox.data.quality.base import Context
from pegbox.data.quality.columns import Column
from pegbox.data.quality.items import Item, item, plain_item
from pegbox.data.rows import Row


@dataclass(slots=True)
class Corpus:
    """Position i (from 0) counts good rows; `example` and `line` count as the user does."""

    file: BinaryIO
    method: str
    which: str  # "training" or "validation"
    context: Context
    read: int = 0  # rows, the bad ones too
    examples: Column = field(default_factory=lambda: Column("I"))  # 1-based
    lines: Column = field(default_factory=lambda: Column("I"))  # 1-based
    offsets: Column = field(default_factory=lambda: Column("Q"))  # bytes
    tokens: Column = field(default_factory=lambda: Column("I"))  # of the whole row; 0 where no model is named
    systems: Column = field(default_factory=lambda: Column("Q"))  # hashes of the system's words and the tools
    prompts: Column = field(default_factory=lambda: Column("Q"))  # of all before the last learnt answer, normalised
    answers: Column = field(default_factory=lambda: Column("Q"))  # of the last learnt answer, normalised
    rows: Column = field(default_factory=lambda: Column("Q"))  # of all of it, normalised
    kept: dict[str, Any] = field(default_factory=dict)  # what was worked out once and is asked for again

    def __len__(self) -> int:
        return len(self.lines)

    def record(self, i: int) -> Record:
        """Read row i again."""
        return parse_row(strict_json.loads(self._text(i)), self.method)

    def item(self, i: int) -> Item:
        """Row i as the checks saw it."""
        text = self._text(i)
        example, number = self.examples[i], self.lines[i]
        messages = plain.read(text) if self.method == "supervised" else None
        seen = plain_item(Row(example, Line(number, text), messages)) if messages is not None else None
        return seen or item(example, number, parse_row(strict_json.loads(text), self.method))

    def _text(self, i: int) -> str:
        self.file.seek(self.offsets[i])
        return self.file.readline(MAX_LINE_BYTES + 1).decode("utf-8-sig")

    def roll(self) -> None:
        """Keep memory small; called now and then while the columns grow."""
        for column in (self.examples, self.lines, self.offsets, self.tokens, self.systems, self.prompts, self.answers,
                       self.rows):  # fmt: skip
            column.roll()
