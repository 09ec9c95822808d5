"""A file as rows: each non-blank line parsed, or the reason why it can't be."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pegbox.data import strict_json
from pegbox.data.formats import ExtraKeyError, FormatError, Record, parse_row
from pegbox.data.lines import read_lines

_CR_ONLY = "its lines end in CR alone, as on old Macs; end them with LF"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row, for a user to read and mend."""

    example: int  # 1-based; blank lines are not examples
    line: int  # 1-based
    where: str  # "messages[2].role", or ""
    text: str
    is_format: bool  # the row is no JSON or no known format, rather than a known format with a mistake

    def __str__(self) -> str:
        return f"Example {self.example}{_spoken(self.where)}: {self.text} (line {self.line})"


@dataclass(frozen=True, slots=True)
class Row:
    """One non-blank line. Exactly one of `record` and `problem` is set."""

    example: int
    line: int
    text: str
    record: Record | None
    problem: Problem | None = None


def read_rows(file: BinaryIO) -> Iterator[Row]:
    """Every row of a JSONL file, in constant memory. Blank lines are passed over (the caller can tell how
    many from the line numbers)."""
    example = 0
    for line in read_lines(file):
        if line.text is not None and not line.text.strip():
            continue
        example += 1
        text = line.text or ""
        if line.problem is not None:
            problem = Problem(example, line.number, "", line.problem, is_format=True)
            yield Row(example, line.number, text, None, problem)
            continue
        try:
            yield Row(example, line.number, text, parse_row(strict_json.loads(text)))
        except strict_json.JSONError as error:
            said = f"{error}; {_CR_ONLY}" if "\r" in text else str(error)
            problem = Problem(example, line.number, "", said, is_format=True)
            yield Row(example, line.number, text, None, problem)
        except FormatError as error:
            wrong = isinstance(error, ExtraKeyError)
            problem = Problem(example, line.number, error.where, error.problem, is_format=wrong)
            yield Row(example, line.number, text, None, problem)


def _spoken(where: str) -> str:
    """`messages[1].role` → `, message 2 role`: people count from one."""
    if not where:
        return ""
    spoken = re.sub(r"messages\[(\d+)\]", lambda found: f"message {int(found.group(1)) + 1}", where)
    return ", " + spoken.replace(".", " ")
