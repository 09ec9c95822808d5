"""Pairs of rows whose signatures are alike, in time that grows linearly with the rows.

A signature is cut into keys of eight bytes. Under each key the rows are sorted, and each is paired with the few that
follow it, as long as the first bits agree: rows that are alike agree in long beginnings and come to stand side by
side, however many rows share a short one. (Bawa, Condie and Ganesan's LSH forest, 2005, with sorted arrays for trees.)
Signatures lie on disk; one key is in memory at a time.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Deadline

_KEY = 8  # bytes
_CHUNK = 1 << 14  # pairs compared together
Rows = NDArray[np.int64]
Compare = Callable[[Rows, Rows], NDArray[np.float32]]


class Table:
    """Rows of bytes of one width, kept on disk."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._file = tempfile.TemporaryFile(prefix="pegbox-")  # noqa: SIM115 - it lives as long as the table
        self._length = 0

    def extend(self, rows: NDArray[np.uint8]) -> None:
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self._length += len(rows)

    def __len__(self) -> int:
        return self._length

    def take(self, rows: Rows) -> NDArray[np.uint8]:
        """(rows, width)."""
        return self._view()[rows] if len(rows) else np.zeros((0, self.width), dtype=np.uint8)

    def keys(self, number: int, rows: Rows) -> NDArray[np.uint64]:
        """One key of each of these rows; its first byte weighs most."""
        if not len(rows):
            return np.zeros(0, dtype=np.uint64)
        start = number * _KEY
        parts = [
            np.ascontiguousarray(self._view()[rows[at : at + _CHUNK], start : start + _KEY]).view(">u8").ravel()
            for at in range(0, len(rows), _CHUNK)
        ]
        return np.concatenate(parts).astype(np.uint64)

    def __del__(self) -> None:
        self._file.close()

    def _view(self) -> NDArray[np.uint8]:
        self._file.flush()
        return np.memmap(self._file, dtype=np.uint8, mode="r", shape=(self._length, self.width))


@dataclass(frozen=True, slots=True)
class Beside:
    """Two tables of one width as one: the second's rows are counted on from the first's."""

    one: Table
    other: Table

    @property
    def width(self) -> int:
        return self.one.width

    def keys(self, number: int, rows: Rows) -> NDArray[np.uint64]:
        """As a table's; the rows ascend."""
        split = int(np.searchsorted(rows, len(self.one)))
        ours, theirs = rows[:split], rows[split:] - len(self.one)
        return np.concatenate((self.one.keys(number, ours), self.other.keys(number, theirs)))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of rows, each once, first < second, in ascending order of both."""

    first: Rows
    second: Rows
    likeness: NDArray[np.float32]  # 0 to 1
    whole: bool = True  # False where time or room ran out

    def __len__(self) -> int:
        return len(self.first)

    def where(self, chosen: NDArray[np.bool_]) -> "Pairs":
        return Pairs(self.first[chosen], self.second[chosen], self.likeness[chosen], self.whole)


_MOST_PAIRS = 200_000  # of one search: memory and the reading of texts stay bounded however long the file is


@dataclass(frozen=True, slots=True)
class Search:
    """How wide to look."""

    prefix: int  # bits of a key that must agree
    window: int  # rows that follow in the order, which each is compared with
    least: float  # likeness
    pairs_per_row: int = 4  # on average; where more are alike, the most alike stay


def pairs(table: Table | Beside, rows: Rows, compare: Compare, search: Search, deadline: Deadline) -> Pairs:
    """The pairs among these rows that `compare` finds alike enough."""
    none = np.zeros(0, dtype=np.int64)
    found = Pairs(none, none, np.zeros(0, dtype=np.float32))
    room = min(search.pairs_per_row * len(rows) + 1_000, _MOST_PAIRS)
    for number in range(table.width // _KEY):
        if deadline.over:
            return Pairs(found.first, found.second, found.likeness, whole=False)
        for first, second in _neighbours(table.keys(number, rows), rows, search):
            found = merge(found, _alike(first, second, compare, search.least), room)
    return found


def _neighbours(keys: NDArray[np.uint64], rows: Rows, search: Search) -> Iterator[tuple[Rows, Rows]]:
    order = np.argsort(keys, kind="stable")
    beginnings = keys[order] >> np.uint64(_KEY * 8 - search.prefix)
    for step in range(1, min(search.window, len(rows) - 1) + 1):
        agree = beginnings[step:] == beginnings[:-step]
        one, other = rows[order[:-step][agree]], rows[order[step:][agree]]
        yield np.minimum(one, other), np.maximum(one, other)


def _alike(first: Rows, second: Rows, compare: Compare, least: float) -> Pairs:
    kept_first, kept_second, kept_likeness = [], [], []
    for at in range(0, len(first), _CHUNK):
        one, other = first[at : at + _CHUNK], second[at : at + _CHUNK]
        likeness = compare(one, other)
        enough = likeness >= least
        kept_first.append(one[enough])
        kept_second.append(other[enough])
        kept_likeness.append(likeness[enough])
    if not kept_first:
        return Pairs(first, second, np.zeros(0, dtype=np.float32))
    return Pairs(np.concatenate(kept_first), np.concatenate(kept_second), np.concatenate(kept_likeness))


def merge(found: Pairs, more: Pairs, room: int = 2**62) -> Pairs:
    """Both, each pair once; the most alike where there are too many."""
    first = np.concatenate((found.first, more.first))
    second = np.concatenate((found.second, more.second))
    likeness = np.concatenate((found.likeness, more.likeness))
    _, once = np.unique(first << np.int64(32) | second, return_index=True)
    whole = found.whole and more.whole
    if len(once) > room:
        once = np.sort(once[np.argsort(-likeness[once], kind="stable")[:room]])
        once = once[np.argsort(first[once] << np.int64(32) | second[once])]
        whole = False
    return Pairs(first[once], second[once], likeness[once], whole)
