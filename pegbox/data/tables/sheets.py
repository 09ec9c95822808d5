"""Tables that need a library: Excel workbooks (openpyxl) and Parquet files (pyarrow), both read as a stream.

A workbook is a zip of XML, so its true size is checked before any of it is unpacked.
"""

import datetime as dt
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from pegbox.data.tables.encodings import TableError

_MAX_UNPACKED = 1 << 30
_MAX_STRINGS = 128 << 20  # openpyxl holds a workbook's texts in memory
_MAX_PARTS = 5_000
_MAX_COLUMNS = 1_000
_MAX_ROWS = 1_048_576  # Excel's own limit
_MERGE = re.compile(rb'<(?:\w+:)?mergeCell\s+ref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')
_BATCH = 64

Cell = object  # JSON value; None where the cell is empty
Cells = tuple[int, Sequence[Cell], str | None]  # the row's number, its cells, what is wrong with it


def plain(value: object) -> object:
    """A cell's value as JSON would hold it, whole numbers and dates as people write them; None for an empty one."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else _date(value)


def _date(value: object) -> str:
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(" ", "seconds")
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


def _library(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise TableError(f"reading {what} needs {name.partition('.')[0]}: pip install 'pegbox[tables]'") from None


# --- Excel ---------------------------------------------------------------------------------------------------


def xlsx_rows(path: Path, sheet: str | None = None) -> Iterator[Cells]:
    """The rows of a sheet (the first, unless named), numbered as Excel does. Empty ones are passed over. A formula
    counts as the value that Excel last saved for it."""
    openpyxl = _library("openpyxl", "Excel files")
    _check_zip(path)
    try:
        shown = openpyxl.load_workbook(path, read_only=True, data_only=True)
        written = openpyxl.load_workbook(path, read_only=True, data_only=False)
    except Exception as error:  # noqa: BLE001 - openpyxl raises anything on a broken file
        raise TableError(f"the workbook can't be read: {error}; open it in Excel and save it anew") from None
    with closing(shown), closing(written):
        name = _sheet(shown, sheet)
        merged = _merged(path, shown[name])
        yield from _sheet_rows(shown[name], written[name], merged)


def sheets_of(path: Path) -> list[str]:
    """The names of a workbook's sheets, in order."""
    openpyxl = _library("openpyxl", "Excel files")
    _check_zip(path)
    with closing(openpyxl.load_workbook(path, read_only=True)) as book:
        return [sheet.title for sheet in book.worksheets]


def _check_zip(path: Path) -> None:
    """Refuse what would not fit into memory once it is unpacked. The sizes are claims,
    but zipfile never unpacks more than them."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()[:_MAX_PARTS]
            heads = {part.filename: _head(archive, part) for part in parts if part.filename.endswith(".xml")}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise TableError(f"the workbook is damaged ({error}); open it in Excel and save it anew") from None
    if "xl/workbook.xml" not in heads:
        raise TableError("the file is a zip archive, but no Excel workbook; unpack it and name the file inside")
    if len(parts) == _MAX_PARTS:
        raise TableError("the workbook has thousands of parts, as Excel never writes; save it as CSV")
    size = sum(part.file_size for part in parts)
    strings = sum(part.file_size for part in parts if part.filename.lower().endswith("sharedstrings.xml"))
    if size > _MAX_UNPACKED or strings > _MAX_STRINGS:
        found, most = (size, _MAX_UNPACKED) if size > _MAX_UNPACKED else (strings, _MAX_STRINGS)
        raise TableError(f"the workbook unpacks to {found >> 20:,} MiB, more than {most >> 20:,} MiB; save it as CSV")
    if any(b"<!DOCTYPE" in head or b"<!ENTITY" in head for head in heads.values()):
        raise TableError("the workbook declares XML entities, as Excel never does; save it as CSV")


def _head(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    with archive.open(part) as content:
        return content.read(4096)


def _sheet(book: Any, sheet: str | None) -> str:
    names = [s.title for s in book.worksheets]
    if not names:
        raise TableError("the workbook has no sheet with cells")
    if sheet is None:
        return str(names[0])
    if sheet not in names:
        raise TableError(f'the workbook has no sheet "{sheet}"; it has {", ".join(names)}')
    return sheet


def _merged(path: Path, sheet: Any) -> dict[int, str]:
    """Rows below the first of merged cells, which Excel leaves empty → what is merged."""
    rows: dict[int, str] = {}
    with zipfile.ZipFile(path) as archive, archive.open(sheet._worksheet_path) as content:  # noqa: SLF001
        tail = b""
        while chunk := content.read(1 << 20):
            for found in _MERGE.finditer(tail + chunk):
                first, last = int(found[2]), min(int(found[4]), _MAX_ROWS)
                named = f"{found[1].decode()}{first}:{found[3].decode()}{last}"
                rows.update(dict.fromkeys(islice(range(first + 1, last + 1), 100_000), named))
            tail = (tail + chunk)[-100:]
    return rows


def _sheet_rows(shown: Any, written: Any, merged: dict[int, str]) -> Iterator[Cells]:
    for sheet in (shown, written):
        sheet.reset_dimensions()  # the file may claim any
    try:
        both = zip(shown.iter_rows(), written.iter_rows(), strict=True)
        for number, (values, formulas) in enumerate(both, 1):
            _check_size(number, len(values))
            cells = [plain(cell.value) for cell in values]
            wrong = _wrong_cell(values, formulas)
            if number in merged and None in cells:
                wrong = wrong or f"is part of the merged cells {merged[number]}; unmerge them and fill each cell"
            while cells and cells[-1] is None:
                cells.pop()
            if cells or wrong:
                yield number, cells, wrong
    except TableError:
        raise
    except Exception as error:  # noqa: BLE001 - openpyxl raises anything on a broken file
        raise TableError(f"the sheet can't be read further: {error}; open it in Excel and save it anew") from None


def _check_size(number: int, columns: int) -> None:
    if number > _MAX_ROWS or columns > _MAX_COLUMNS:
        raise TableError(f"row {number}: a sheet may have {_MAX_ROWS:,} rows and {_MAX_COLUMNS:,} columns at most")


def _wrong_cell(values: Any, formulas: Any) -> str | None:
    for value, formula in zip(values, formulas, strict=True):
        if value.value is None and formula.data_type == "f":
            return f"cell {formula.coordinate} holds a formula without its value; save the file in Excel once more"
        if value.data_type == "e":
            return f"cell {value.coordinate} shows the error {value.value}; mend its formula"
    return None


# --- Parquet -------------------------------------------------------------------------------------------------


def parquet_rows(path: Path) -> Iterator[Cells]:
    """The header as row 0, then the rows, from 1."""
    pyarrow = _library("pyarrow", "Parquet files")
    parquet = _library("pyarrow.parquet", "Parquet files")
    try:
        schema = parquet.read_schema(path)
        texts = [f.name for f in schema if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)]
        # Texts stay dictionaries where the file holds them so: a few bytes may stand for a million long rows.
        file = parquet.ParquetFile(path, read_dictionary=texts, pre_buffer=False)
        yield 0, list(schema.names), None
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
            for i in range(batch.num_rows):
                number += 1
                yield number, [plain(column[i].as_py()) for column in batch.columns], None
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(f"the Parquet file can't be read: {error}") from None
