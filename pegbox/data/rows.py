"""A file as rows: each non-blank line parsed, or the reason why it can't be."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pegbox.data import plain, strict_json
from pegbox.data.formats import ExtraKeyError, FormatError, Record, format_of, method_of, parse_row
from pegbox.data.lines import Line, read_lines
from pegbox.data.plain import PlainMessage

_CR_ONLY = "its lines end in CR alone, as on old Macs; end them with LF"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row, for a user to read and mend."""

    example: int  # 1-based; blank lines are not examples
    line: int  # 1-based
    where: str  # "messages[2].role", or ""
    text: str
    is_format: bool  # the row is no JSON or no known format, rather than a known format with a mistake
    value: object = None  # what was parsed, where it is JSON at all

    def __str__(self) -> str:
        return f"Example {self.example}{_spoken(self.where)}: {self.text} (line {self.line})"


class Row:
    """One non-blank line: a record, or a problem."""

    __slots__ = ("_record", "example", "line", "messages", "offset", "problem", "text")

    def __init__(
        self,
        example: int,
        line: Line,
        messages: list[PlainMessage] | None,
        record: Record | None = None,
        problem: Problem | None = None,
    ) -> None:
        self.example = example  # 1-based
        self.line = line.number  # 1-based
        self.offset = line.offset  # of the line's first byte in the file
        self.text = line.text or ""
        self.messages = messages  # of a plain chat row; its record is made when it is asked for
        self._record = record
        self.problem = problem

    @property
    def record(self) -> Record | None:
        """None where there is a problem."""
        if self._record is None and self.messages is not None:
            self._record = plain.conversation(self.messages)
        return self._record


def read_rows(file: BinaryIO, method: str = "supervised") -> Iterator[Row]:
    """Every row of a JSONL file, as that method takes it, in constant memory. Blank lines are passed over (the caller
    can tell how many from the line numbers)."""
    example = 0
    for line in read_lines(file):
        if line.text is not None and (not line.text or line.text.isspace()):
            continue
        example += 1
        messages = plain.read(line.text) if line.text and method == "supervised" else None
        yield Row(example, line, messages) if messages is not None else _careful(example, line, method)


def guess_method(file: BinaryIO) -> str:
    """The method that a file's first readable row is written for. The file is left where it stood."""
    return method_of(_first_value(file))


def first_format(file: BinaryIO) -> str | None:
    """The format of a file's first readable row, as `format_of` sees it. The file is left where it stood."""
    return format_of(_first_value(file))


def _first_value(file: BinaryIO) -> object:
    """The file's first row that is JSON; None where there is none."""
    start = file.tell()
    found: object = None
    for line in read_lines(file):
        if line.text is None or line.text.isspace() or not line.text:
            continue
        try:
            found = strict_json.loads(line.text)
        except strict_json.JSONError:
            continue
        break
    file.seek(start)
    return found


def _careful(example: int, line: Line, method: str) -> Row:
    """The row, whatever shape it has."""
    if line.text is None:
        return Row(example, line, None, problem=Problem(example, line.number, "", str(line.problem), is_format=True))
    value: object = None
    try:
        value = strict_json.loads(line.text)
        return Row(example, line, None, parse_row(value, method))
    except strict_json.JSONError as error:
        said = f"{error}; {_CR_ONLY}" if "\r" in line.text else str(error)
        problem = Problem(example, line.number, "", said, is_format=True)
    except FormatError as error:
        wrong = isinstance(error, ExtraKeyError)
        problem = Problem(example, line.number, error.where, error.problem, is_format=wrong, value=value)
    return Row(example, line, None, problem=problem)


def _spoken(where: str) -> str:
    """`messages[1].role` → `, message 2 role`: people count from one."""
    if not where:
        return ""
    spoken = re.sub(r"messages\[(\d+)\]", lambda found: f"message {int(found.group(1)) + 1}", where)
    return ", " + spoken.replace(".", " ")
