"""A file without what a check found and a machine can mend: rows left out, texts mended, each of them accounted for.

The file is read twice: first every row gets its verdict, then the rows that stay are copied byte for byte.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pegbox.data import strict_json
from pegbox.data.count import Count, TokenCounter
from pegbox.data.lines import MAX_LINE_BYTES
from pegbox.data.mending.changes import CHANGED, REMOVED, Change, Output, OutputError
from pegbox.data.mending.rewrite import rewrite, texts
from pegbox.data.mending.verdicts import APPLICABLE, BY_HAND, KEEP, KINDS, MENDED, NUMBERS, REASONS, Judge, mended_line
from pegbox.data.quality.base import Context
from pegbox.data.quality.columns import Column
from pegbox.data.quality.duplicates import near_pairs
from pegbox.data.quality.text import excerpt
from pegbox.data.rows import Row, guess_method, read_rows
from pegbox.data.survey import Target, survey
from pegbox.errors import RenderError

Tick = Callable[[int], None]  # told how many bytes of the file are done, of both readings
_ROLL = 4_096
_LOOKED_AT = 4_000  # characters of a row that its excerpt is taken from


def _silent(_done: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class CleanResult:
    """What was done. `rows == kept + changed + sum(removed.values())`."""

    rows: int
    kept: int  # byte for byte
    changed: int  # rows
    removed: dict[str, int]  # rows by code
    mended: dict[str, int]  # rows by code; a row may count under several
    path: Path | None  # None where nothing was to be written
    log: Path | None


def clean(
    path: Path,
    out: Path | None,
    codes: Collection[str],
    *,
    method: str | None = None,
    target: Target | None = None,
    force: bool = False,
    tick: Tick = _silent,
) -> CleanResult:
    """Apply these codes to the file at `path` and write the rest to `out`, with `out`.changes.jsonl beside it. Where
    `out` is None, only say what would be done.

    `target` is needed for Q05. Raises OutputError for codes that no machine can apply, and for a file in the way.
    """
    _check(codes, target)
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        method = method or guess_method(file)
        judged = _judge(file, Judge(frozenset(codes), method, target), tick)
        if out is None:
            return _result(judged, None)
        output = stack.enter_context(Output(out, path, force=force))
        _write(file, judged, output, tick, path.stat().st_size)
        result = _result(judged, output)
        assert result.rows == result.kept + result.changed + output.removed.total(), "every row is accounted for"
        return result


def _check(codes: Collection[str], target: Target | None) -> None:
    for code in codes:
        if code in BY_HAND:
            raise OutputError(f"{code} can't be applied by a machine: {BY_HAND[code]}.")
        if code not in APPLICABLE:
            raise OutputError(f"there is no code {code}; `pegbox clean` applies {', '.join(APPLICABLE)}.")
    if "Q05" in codes and target is None:
        raise OutputError("Q05 needs the base model whose limit is meant: --model NAME")


# --- first reading: the verdicts -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Judged:
    """Every row, in order."""

    judge: Judge
    offsets: Column
    lines: NDArray[np.uint32]  # 1-based
    verdicts: NDArray[np.uint8]  # KEEP, MENDED, or a reason
    firsts: NDArray[np.int64]  # of a duplicate that is left out: the row that stays
    mended: dict[str, int]


def _judge(file: BinaryIO, judge: Judge, tick: Tick) -> _Judged:
    lines, offsets, verdicts, digests = Column("I"), Column("Q"), Column("B"), Column("Q")
    mended: dict[str, int] = {}
    for row, count in _counted(file, judge):
        if row.problem is not None and "UTF-16" in row.problem.text:
            raise OutputError(f"the file can't be cleaned: {row.problem.text}; `pegbox prepare` reads it as it is")
        verdict = judge.verdict(row, count)
        lines.append(row.line)
        offsets.append(row.offset)
        verdicts.append(verdict.number)
        digests.append(verdict.digest)
        for code in verdict.mended:
            mended[code] = mended.get(code, 0) + 1
        if len(lines) % _ROLL == 0:
            for column in (lines, offsets, verdicts, digests):
                column.roll()
            tick(row.offset // 2)
    found = _Judged(judge, offsets, lines.load(), verdicts.load(), np.full(len(lines), -1, np.int64), mended)
    if "Q06" in judge.codes:
        _leave_out_equal(found, digests.load())
    if "Q07" in judge.codes:
        _leave_out_near(found, file)
    return found


def _counted(file: BinaryIO, judge: Judge) -> Iterator[tuple[Row, Count | RenderError | None]]:
    rows = read_rows(file, judge.method)
    if judge.target is None or not judge.codes & {"Q04", "Q05"}:
        return ((row, None) for row in rows)
    return TokenCounter(judge.target.template, judge.target.limit).count(rows)


def _leave_out_equal(found: _Judged, digests: NDArray[np.uint64]) -> None:
    """Of equal rows the first one stays. Those that were left out before take no part."""
    rows = np.flatnonzero(digests)
    _, index, inverse = np.unique(digests[rows], return_index=True, return_inverse=True)
    firsts = rows[index][inverse]
    later = rows[firsts != rows]
    found.verdicts[later] = NUMBERS["Q06", "exact-duplicate"]
    found.firsts[later] = firsts[firsts != rows]


def _leave_out_near(found: _Judged, file: BinaryIO) -> None:
    """A row goes if it is nearly the same as an earlier one that stays; not for being like one that goes itself."""
    file.seek(0)
    corpus = survey(file, method=found.judge.method, which="training", target=None, context=Context(), keep=True).corpus
    alike, systems = near_pairs(corpus), corpus.systems.load()  # two answers that conflict make no pair
    alike = alike.where(systems[alike.first] == systems[alike.second])
    rows = np.searchsorted(found.lines, corpus.lines.load())  # of the corpus, among all rows
    for one, other in sorted(zip(rows[alike.second].tolist(), rows[alike.first].tolist(), strict=True)):
        if found.verdicts[one] <= MENDED and found.verdicts[other] <= MENDED:
            found.verdicts[one] = NUMBERS["Q07", "near-duplicate"]
            found.firsts[one] = other


# --- second reading: the new file ----------------------------------------------------------------------------


def _write(file: BinaryIO, judged: _Judged, output: Output, tick: Tick, size: int) -> None:
    for i, offset in enumerate(judged.offsets.load()):
        file.seek(offset)
        verdict = int(judged.verdicts[i])
        if verdict == KEEP:
            output.copy(file)
        elif verdict == MENDED:
            _mend(file, int(judged.lines[i]), judged.judge, output)
        else:
            first = int(judged.firsts[i])
            kept = int(judged.lines[first]) if first >= 0 else None
            _log_removal(file, int(judged.lines[i]), verdict, kept, output)
        if i % _ROLL == 0:
            tick((size + int(offset)) // 2)


def _mend(file: BinaryIO, line: int, judge: Judge, output: Output) -> None:
    before = strict_json.loads(_text(file))
    value = before
    for code, mend in judge.mends.items():
        after = rewrite(value, mend)
        if after != value:
            one, other = next(pair for pair in zip(texts(value), texts(after), strict=True) if pair[0] != pair[1])
            around = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            output.log(
                Change(
                    line, CHANGED, code, KINDS[code], APPLICABLE[code], before=excerpt(one, around),
                    after=excerpt(other, around),
                )
            )  # fmt: skip
        value = after
    output.row(mended_line(value))


def _log_removal(file: BinaryIO, line: int, verdict: int, kept: int | None, output: Output) -> None:
    reason = REASONS[verdict - 2]
    why = reason.why if kept is None else f"{reason.why}, in line {kept}"
    output.log(Change(line, REMOVED, reason.code, reason.kind, why, kept_line=kept, before=_shown(file)))


def _shown(file: BinaryIO) -> str:
    """A row's words, for the log."""
    text = file.readline(MAX_LINE_BYTES + 1).decode("utf-8", "replace")
    try:
        return excerpt(" · ".join(texts(strict_json.loads(text.removeprefix("\ufeff"))))[:_LOOKED_AT])
    except strict_json.JSONError:
        return excerpt(text[:_LOOKED_AT])


def _text(file: BinaryIO) -> str:
    return file.readline(MAX_LINE_BYTES + 1).decode("utf-8-sig")


def _result(judged: _Judged, output: Output | None) -> CleanResult:
    removed: dict[str, int] = {}
    for verdict, rows in zip(*np.unique(judged.verdicts, return_counts=True), strict=True):
        if verdict > MENDED:
            code = REASONS[verdict - 2].code
            removed[code] = removed.get(code, 0) + int(rows)
    return CleanResult(
        rows=len(judged.lines),
        kept=int(np.count_nonzero(judged.verdicts == KEEP)),
        changed=int(np.count_nonzero(judged.verdicts == MENDED)),
        removed=removed,
        mended=judged.mended,
        path=output.path if output else None,
        log=output.log_path if output else None,
    )
