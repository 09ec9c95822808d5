"""From any table to training rows, as the old `prepare_data` tool did: what could be better is always found, and done
only where it is asked for. The table is read twice, so memory stays the same however long it is.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pegbox.data.mending.changes import CHANGED, REMOVED, Change, Output, OutputError
from pegbox.data.quality.columns import Column
from pegbox.data.quality.text import excerpt
from pegbox.data.tables.conversion import BAD, EMPTY, GOOD, Converted, Converter, digest_of, line_of
from pegbox.data.tables.remedies import GROUPS, NAMES, Remedy, Watch, mend
from pegbox.data.tables.roles import Pair, Roles, Row, roles_of
from pegbox.data.tables.rows import TableError, TableRow, encoding_of_text, kind_of, rows_of

_HEAD = 20  # rows whose keys make the columns, in files that have no header
_NAMED_PROBLEMS = 100
_NO_ROW = -1
_ROLL = 4_096


def _silent(_rows: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Wish:
    """How the user wants the table read and written. None: find it out."""

    prompt: str | None = None  # a column
    completion: str | None = None
    system: str | None = None  # a column, or the text itself
    format: str | None = None  # chat or completion
    encoding: str | None = None
    sheet: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """A table as it was understood. `rows == ready + missing + unreadable`; duplicates are among the ready."""

    path: Path
    wish: Wish
    kind: str  # csv, xlsx …
    encoding: str | None  # of text files
    roles: Roles
    unused: tuple[str, ...]  # columns
    format: str  # chat, completion or preference
    rows: int
    ready: int
    missing: int  # rows without a completion
    unreadable: int
    duplicates: int
    problems: tuple[tuple[int, str], ...]  # the first hundred unreadable rows, by number
    remedies: tuple[Remedy, ...]
    advice: tuple[str, ...]
    example: Row | None  # the first good row as it would be written
    firsts: NDArray[np.int64]  # of each row: the first row equal to it, counted from 0; -1 where it is no good row
    numbers: NDArray[np.uint32]  # of each row, as the user counts


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written. `rows == written + sum(removed.values())`."""

    rows: int
    written: int
    removed: dict[str, int]  # by code
    changed: dict[str, int]  # by remedy; a row may count under several
    path: Path
    log: Path


def outline(path: Path, wish: Wish | None = None, tell: Callable[[int], None] = _silent) -> Outline:
    """Read a table through and say what it is. `tell` hears how many rows were read, now and then.

    Raises TableError where it can't be read, or its columns mean nothing.
    """
    wish = wish or Wish()
    rows = _rows(path, wish)
    head = list(islice(rows, _HEAD))
    columns = _columns(path, head)
    roles = roles_of(columns, prompt=wish.prompt, completion=wish.completion, system=wish.system)
    reader = Converter(roles, _format(roles, wish))
    tally = _Tally(reader)
    for row in chain(head, rows):
        tally.see(row)
        if len(tally.digests) % _ROLL == 0:
            tally.roll()
            tell(len(tally.digests))
    firsts = _firsts(tally.digests.load())
    duplicates = int(np.count_nonzero((firsts >= 0) & (firsts != np.arange(len(firsts)))))
    return Outline(
        path=path,
        wish=wish,
        kind=kind_of(path),
        encoding=wish.encoding or encoding_of_text(path),
        roles=roles,
        unused=tuple(column for column in columns if column not in roles.used()),
        format=reader.format,
        rows=len(firsts),
        ready=len(firsts) - tally.missing - tally.unreadable,
        missing=tally.missing,
        unreadable=tally.unreadable,
        duplicates=duplicates,
        problems=tuple(tally.problems),
        remedies=(*_removals(tally, duplicates), *tally.watch.remedies()),
        advice=tuple(tally.watch.advice()),
        example=tally.example,
        firsts=firsts,
        numbers=tally.numbers.load(),
    )


def write(
    found: Outline, out: Path, apply: Collection[str], *, force: bool = False, tell: Callable[[int], None] = _silent
) -> Prepared:
    """Write the training rows to `out`, with these remedies applied, and the log of changes beside it.

    Raises OutputError where a remedy is needed that was not asked for, or the file would take another's place.
    """
    names = _asked(found, apply)
    affixes = {remedy.name: remedy.affix for remedy in found.remedies if remedy.name in names}
    reader = Converter(found.roles, found.format)
    written = 0
    with Output(out, found.path, force=force) as output:
        if found.unused:
            output.note({"action": "columns-left-out", "columns": list(found.unused)})
        for i, row in enumerate(_rows(found.path, found.wish)):
            read = reader.read(row)
            first = int(found.firsts[i]) if i < len(found.firsts) else _NO_ROW
            if read.state != GOOD:
                output.log(_removal(row, read))
            elif "duplicates" in names and first != i:
                output.log(_duplicate(row, read, int(found.numbers[first])))
            else:
                output.row(line_of(_mended(row, read, affixes, reader, output)))
                written += 1
            if i % _ROLL == 0:
                tell(i)
        if i + 1 != found.rows or written + output.removed.total() != found.rows:
            raise OutputError(f"{found.path} changed while it was read; try again")
    return Prepared(found.rows, written, dict(output.removed), dict(output.changed), out, output.log_path)


# --- one row -----------------------------------------------------------------------------------------------


def _mended(row: TableRow, read: Converted, affixes: dict[str, str], reader: Converter, output: Output) -> Row:
    if read.pair is None or not affixes:
        return reader.write(read)
    pair, done = mend(read.pair, affixes)
    for name in done:
        before, after = excerpt(_spoken(read.pair)), excerpt(_spoken(pair))
        output.log(Change(row.number, CHANGED, None, name, f"{name} taken off", before=before, after=after))
    return reader.write(Converted(GOOD, pair))


def _removal(row: TableRow, read: Converted) -> Change:
    if read.state == EMPTY:
        before = excerpt(read.pair.prompt) if read.pair else None
        return Change(row.number, REMOVED, "Q04", "missing", f"the row {read.problem}", before=before)
    return Change(row.number, REMOVED, "Q01", "unreadable", f"the row {read.problem}")


def _duplicate(row: TableRow, read: Converted, kept: int) -> Change:
    before = excerpt(_spoken(read.pair) if read.pair else json.dumps(read.row, ensure_ascii=False))
    return Change(row.number, REMOVED, "Q06", "duplicates", f"the same as row {kept}", kept_line=kept, before=before)


def _spoken(pair: Pair) -> str:
    return f"{pair.prompt} → {pair.completion}"


# --- all rows ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What the outline counts."""

    reader: Converter
    missing: int = 0
    unreadable: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    example: Row | None = None
    watch: Watch = field(default_factory=Watch)
    digests: Column = field(default_factory=lambda: Column("Q"))  # 0 for rows that are no good ones
    numbers: Column = field(default_factory=lambda: Column("I"))

    def see(self, row: TableRow) -> None:
        read = self.reader.read(row)
        self.numbers.append(row.number)
        self.digests.append(digest_of(read) if read.state == GOOD else 0)
        if read.state == GOOD:
            if read.pair is not None:
                self.watch.see(read.pair)
            self.example = self.example or self.reader.write(read)
            return
        self.missing += read.state == EMPTY
        self.unreadable += read.state == BAD
        if read.state == BAD and len(self.problems) < _NAMED_PROBLEMS:
            self.problems.append((row.number, read.problem))

    def roll(self) -> None:
        self.digests.roll()
        self.numbers.roll()


def _firsts(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Of each row the first one that is equal to it; _NO_ROW where the digest is 0."""
    _, index, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return np.where(digests == 0, _NO_ROW, index[inverse]).astype(np.int64)


def _removals(tally: _Tally, duplicates: int) -> list[Remedy]:
    told = (
        ("unreadable", tally.unreadable, "can't be read; mend them, or leave them out"),
        ("missing", tally.missing, "have no completion; leave them out"),
        ("duplicates", duplicates, "say what an earlier row says; leave them out"),
    )
    return [
        Remedy(name, rows, f"{rows:,} rows {text}", needed=name != "duplicates") for name, rows, text in told if rows
    ]


def _asked(found: Outline, apply: Collection[str]) -> set[str]:
    """The remedies by their own names. Raises OutputError."""
    names = {name for word in apply for name in GROUPS.get(word, (word,))}
    if unknown := sorted(names - {*NAMES}):
        raise OutputError(f'there is no remedy "{unknown[0]}"; there are {", ".join(NAMES)}')
    for remedy in found.remedies:
        if remedy.needed and remedy.name not in names:
            raise OutputError(f"{remedy.text}: --apply {remedy.name}. Nothing was written.")
    return names


def _rows(path: Path, wish: Wish) -> Iterator[TableRow]:
    return rows_of(path, encoding=wish.encoding, sheet=wish.sheet, delimiter=wish.delimiter)


def _columns(path: Path, head: list[TableRow]) -> list[str]:
    columns = list(dict.fromkeys(key for row in head if row.value for key in row.value))
    if not columns:
        said = next((f"; row {row.number} {row.problem}" for row in head), "")
        raise TableError(f"{path.name} holds no row that can be read{said}")
    return columns


def _format(roles: Roles, wish: Wish) -> str:
    """Raises TableError for a format that the rows can't be brought to."""
    if roles.whole or roles.chosen:
        fits, usual = ["preference"], "preference"
    elif roles.messages:
        fits, usual = ["chat"], "chat"
    else:
        fits, usual = ["chat", "completion"], "chat" if roles.prompt or roles.system_text else "completion"
    if wish.format not in (None, *fits):
        raise TableError(f"these rows can be written in {' or '.join(fits)} format, not as {wish.format}")
    return wish.format or usual
