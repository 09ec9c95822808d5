"""CSV and TSV, read row by row with a bound on what one row may take."""

import csv
import io
from collections.abc import Iterator
from itertools import islice

from pegbox.data.lines import MAX_LINE_BYTES
from pegbox.data.tables.encodings import TableError
from pegbox.data.tables.sheets import Cells

_DELIMITERS = (",", "\t", ";", "|")
_SAMPLE_ROWS = 50


def delimited_rows(text: io.TextIOWrapper, delimiter: str | None = None) -> Iterator[Cells]:
    """Rows of text cells, numbered from 1 with the header, as a spreadsheet shows them. Empty cells are None, and
    empty rows are passed over. Without a delimiter, the one that cuts the first rows most evenly."""
    head = list(islice(_lines(text), _SAMPLE_ROWS))
    chosen = delimiter or _delimiter(head)
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _Measured(head, _lines(text))
    rows = csv.reader(lines, delimiter=chosen, strict=True)
    number = 0
    width = 0
    while True:
        number += 1
        lines.row_size = 0
        first = lines.number + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, (), f"(line {first}) {_said(str(error))}"
            continue
        width = width or len(cells)
        if any(cells):
            short = f"has {len(cells)} cells, but the header names {width} columns" if len(cells) < width else None
            yield number, [cell or None for cell in cells], short


def _said(error: str) -> str:
    if "field larger" in error:
        return f"a cell is longer than {MAX_LINE_BYTES >> 20} MiB; is the quote that ends it missing?"
    if "unexpected end of data" in error:
        return "a quoted cell never ends; is its closing quote missing?"
    if "expected after" in error:
        return 'text stands after a closing quote; write a quote inside a cell as ""'
    return error


class _Measured(Iterator[str]):
    """Lines, and how much of them the current row has taken."""

    def __init__(self, head: list[str], rest: Iterator[str]) -> None:
        self._lines = (line for lines in (head, rest) for line in lines)
        self.number = 0
        self.row_size = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.row_size += len(line)
        if self.row_size > 2 * MAX_LINE_BYTES:
            raise csv.Error("field larger than a row may be")
        return line


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise TableError(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB; is this a table?")
        yield line


def _delimiter(head: list[str]) -> str:
    def evenness(delimiter: str) -> tuple[float, int]:
        try:
            widths = [len(row) for row in csv.reader(head, delimiter=delimiter) if row]
        except csv.Error:
            return 0.0, 0
        if not widths or widths[0] < 2:
            return 0.0, 0
        return widths.count(widths[0]) / len(widths), widths[0]

    return max(_DELIMITERS, key=evenness)
