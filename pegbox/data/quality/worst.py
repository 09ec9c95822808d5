"""Rows that share a trouble, gathered while the file goes by: how many, where, and the worst of them to show."""

import heapq
from dataclasses import dataclass, field

from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Place, Sample
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import excerpt


def many(count: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(share: float) -> str:
    """A share as people say it; never "100 %" or "0 %" of what is nearly so."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    if 0.999 < share < 1:
        return "over 99.9 %"
    return f"{share * 100:.1f} %" if share < 0.1 or (share > 0.99 and share < 1) else f"{share * 100:.0f} %"


def place(item: Item, turn: int, around: int = 0) -> Place:
    """A turn of a row; -1 is the whole row, shown by its first turn."""
    path = item.path(turn) if turn >= 0 else ""
    return Place(item.line, path, excerpt(item.texts[max(turn, 0)], around))


def ending(item: Item, turn: int) -> Place:
    """A turn, shown by its end."""
    return place(item, turn, around=len(item.texts[turn]))


@dataclass(slots=True)
class Worst:
    """Keeps the samples with the highest scores; of equal ones the first. A row counts once."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    _best: list[tuple[float, int, Sample]] = field(default_factory=list)
    _last: int = 0

    def add(self, item: Item, turn: int, *, score: float = 0.0, around: int = 0, note: str = "") -> None:
        """Count the row. Only a sample that is kept costs the making of an excerpt."""
        if item.line != self._last:
            self._count(item.line)
            if self._keeps(score):
                self._put(score, Sample((place(item, turn, around),), note))

    def add_sample(self, line: int, sample: Sample, score: float = 0.0) -> None:
        """Count the row and offer a sample made elsewhere."""
        if line != self._last:
            self._count(line)
            if self._keeps(score):
                self._put(score, sample)

    @property
    def samples(self) -> list[Sample]:
        """The most telling first."""
        return [sample for _, _, sample in sorted(self._best, key=lambda kept: kept[:2], reverse=True)]

    def _count(self, line: int) -> None:
        self._last = line
        self.count += 1
        if len(self.lines) < MAX_LINES:
            self.lines.append(line)

    def _keeps(self, score: float) -> bool:
        return len(self._best) < MAX_SAMPLES or score > self._best[0][0]

    def _put(self, score: float, sample: Sample) -> None:
        heapq.heappush(self._best, (score, -self.count, sample))
        if len(self._best) > MAX_SAMPLES:
            heapq.heappop(self._best)
