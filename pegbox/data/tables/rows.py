"""Any table that people keep training data in, as rows of named values, read as a stream.

CSV and TSV, Excel workbooks, Parquet, JSON arrays, JSONL and plain text; the text ones also packed by gzip. What is
wrong with one row is said of that row; a file that can't be read on raises TableError.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, cast

from pegbox.data import strict_json
from pegbox.data.lines import MAX_LINE_BYTES
from pegbox.data.tables import delimited, sheets
from pegbox.data.tables.encodings import TableError, encoding_of
from pegbox.data.tables.json_values import json_texts
from pegbox.data.tables.sheets import Cells, plain

__all__ = ["KINDS", "TableError", "TableRow", "encoding_of_text", "kind_of", "rows_of"]

KINDS = ("csv", "tsv", "xlsx", "parquet", "json", "jsonl", "txt")
_BY_SUFFIX = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".txt": "txt", ".text": "txt", ".md": "txt",
}  # fmt: skip
_PACKED = {  # how a file begins → what it is, and the remedy
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls) or a locked one; save it as .xlsx without a password",
    b"BZh": "packed by bzip2; unpack it first",
    b"\xfd7zXZ": "packed by xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first",
    b"%PDF": "a PDF; copy its table into a CSV file",
}
_MAX_UNPACKED = 16 << 30  # bytes that a .gz may hold
_LISTS = ("data", "rows", "examples", "train", "items", "conversations")  # keys under which files keep their rows
_MAX_NAMED = 1_000


@dataclass(slots=True)
class TableRow:
    """One row. Exactly one of `value` and `problem` is set. Not frozen for speed alone."""

    number: int  # as the user counts: the row of a sheet or CSV (its header is row 1), the line of JSONL and text,
    # else the how-manieth row it is
    value: dict[str, object] | None  # JSON values by column; None where a cell is empty
    problem: str | None = None


def kind_of(path: Path) -> str:
    """What the file is, one of KINDS, by how it begins and then by its name. Raises TableError for anything else."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise TableError(f"{path.name} is {what}")
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"
    if head.startswith(b"PAR1"):
        return "parquet"
    named = _BY_SUFFIX.get(_suffix(path))
    if named in ("csv", "tsv", "txt"):
        return named
    return _kind_of_text(path, named)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where gzip packed them."""
    with path.open("rb") as file:
        packed = file.peek(2).startswith(b"\x1f\x8b")
        if not packed:
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast("BinaryIO", unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TableError(f"{path.name} is no whole gzip file: {error}") from None


def rows_of(
    path: Path, *, encoding: str | None = None, sheet: str | None = None, delimiter: str | None = None
) -> Iterator[TableRow]:
    """Every row of the table, in order and in constant memory. Empty rows are passed over.

    The encoding and the delimiter are found out unless given. Raises TableError.
    """
    kind = kind_of(path)
    if kind == "xlsx":
        yield from _named(sheets.xlsx_rows(path, sheet))
    elif kind == "parquet":
        yield from _named(sheets.parquet_rows(path))
    else:
        yield from _text_rows(path, kind, encoding, delimiter)


def encoding_of_text(path: Path) -> str | None:
    """The encoding of a text file; None for the other kinds. Raises TableError."""
    if kind_of(path) in ("xlsx", "parquet"):
        return None
    with _opened(path) as file:
        return encoding_of(file)


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _kind_of_text(path: Path, named: str | None) -> str:
    with _opened(path) as file:
        head = file.read(1 << 16)
    head = head.replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")  # a mark, and UTF-16's empty halves
    start = head[:1]
    if start == b"[":
        return "json"
    if start == b"{":
        lines = head.strip().splitlines()
        whole = bool(lines) and (lines[0].rstrip(b", ").endswith(b"}") or len(lines) == 1)
        return "jsonl" if whole and (named != "json" or len(lines) > 1) else "json"
    if named is not None:
        return named
    raise TableError(
        f"what {path.name} is can't be told from its name; call it .csv, .tsv, .xlsx, .parquet, .json, .jsonl or .txt"
    )


def _text_rows(path: Path, kind: str, encoding: str | None, delimiter: str | None) -> Iterator[TableRow]:
    with _opened(path) as file:
        encoding = encoding or encoding_of(file)
        file.seek(0)
        try:
            text = io.TextIOWrapper(
                cast("BinaryIO", _Bounded(file)), encoding, newline="" if kind in ("csv", "tsv") else "\n"
            )
        except LookupError:
            raise TableError(f'there is no encoding "{encoding}"; try utf-8, cp932, euc_jp or cp1252') from None
        try:
            if kind in ("csv", "tsv"):
                yield from _named(delimited.delimited_rows(text, delimiter or ("\t" if kind == "tsv" else None)))
            elif kind == "json":
                yield from _values(text)
            else:
                yield from _lines(text, kind)
        except UnicodeError as error:
            raise TableError(f"the file can't be read as {encoding}: {error}; name its encoding") from None
        finally:
            text.detach()


class _Bounded(io.RawIOBase):
    """Passes bytes on, up to as many as a file may unpack to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_UNPACKED

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        chunk = self._file.read(size if size > 0 else 1 << 16)
        self._left -= len(chunk)
        if self._left < 0:
            raise TableError(f"the file unpacks to more than {_MAX_UNPACKED >> 30} GiB; split it")
        return chunk

    read = read1


def _named(rows: Iterator[Cells]) -> Iterator[TableRow]:
    """Rows by the names in the first one."""
    header = next(rows, None)
    if header is None:
        return
    number, cells, wrong = header
    if wrong:
        raise TableError(f"row {number}: {wrong}")
    names = _header(cells)
    for number, cells, wrong in rows:
        if wrong is not None:
            yield TableRow(number, None, wrong)
        elif len(cells) > len(names):
            said = f"has {len(cells)} cells, but the header names {len(names)} columns; is a quote missing?"
            yield TableRow(number, None, said)
        else:
            yield TableRow(number, dict(zip_longest(names, cells)))


def _header(cells: object) -> list[str]:
    names = ["" if cell is None else str(cell).strip() for cell in cast("list[object]", cells)]
    while names and not names[-1]:
        names.pop()
    if len(names) > _MAX_NAMED:
        raise TableError(f"the header names {len(names):,} columns, more than {_MAX_NAMED:,}")
    for i, name in enumerate(names):
        if not name:
            raise TableError(f"column {i + 1} has no name in the header; give it one, or remove the column")
        if name in names[:i]:
            raise TableError(f'two columns are named "{strict_json.printable(name)}"; rename one')
    return names


# --- text and JSON -------------------------------------------------------------------------------------------


def _lines(text: io.TextIOWrapper, kind: str) -> Iterator[TableRow]:
    """A row a line; blank lines are passed over."""
    number = 0
    while line := text.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            while not line.endswith("\n") and (line := text.readline(MAX_LINE_BYTES)):
                pass
            yield TableRow(number, None, f"is longer than {MAX_LINE_BYTES >> 20} MiB")
        elif not line.isspace():
            yield _json_row(number, line) if kind == "jsonl" else TableRow(number, {"completion": line.rstrip("\r\n")})


def _json_row(number: int, text: str) -> TableRow:
    try:
        value = strict_json.loads(text)
    except strict_json.JSONError as error:
        return TableRow(number, None, str(error))
    if not isinstance(value, dict):
        return TableRow(number, None, "is no JSON object with named values")
    return TableRow(number, cast("dict[str, object]", plain(value)))


def _values(text: io.TextIOWrapper) -> Iterator[TableRow]:
    """The objects of a JSON array; or objects one after another; or those of a list that one object holds."""
    values = json_texts(text)
    first = next(values, None)
    second = next(values, None)
    if first is None:
        return
    if second is None:
        row = _json_row(1, first)
        held = (
            next((row.value[key] for key in _LISTS if isinstance(row.value.get(key), list)), None)
            if row.value
            else None
        )
        if isinstance(held, list) and held and all(isinstance(item, dict) for item in held):
            yield from (TableRow(i, item) for i, item in enumerate(held, 1))
            return
        yield row
        return
    yield _json_row(1, first)
    yield _json_row(2, second)
    for number, one in enumerate(values, 3):
        yield _json_row(number, one)


def _held(value: dict[str, object]) -> list[dict[str, object]]:
    """The rows that one object keeps under a key such as "data"."""
    found = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), [])
    items = cast("list[dict[str, object]]", found)
    return items if all(isinstance(item, dict) for item in items) else []
