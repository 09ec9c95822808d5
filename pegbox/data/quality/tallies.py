"""Counting rows of a kind while they pass, in little memory: how many, which lines, a few places to show."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Place, Sample
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import excerpt


@dataclass(slots=True)
class Tally:
    """Rows that have something, and the first of them."""

    rows: int = 0
    lines: list[int] = field(default_factory=list)  # 1-based; the first MAX_LINES
    shown: list[tuple[int, str, str, str]] = field(default_factory=list)  # line, path, excerpt, note

    def add(self, item: Item) -> None:
        """Count a row; call it once a row."""
        self.rows += 1
        if len(self.lines) < MAX_LINES:
            self.lines.append(item.line)

    def show(self, item: Item, turn: int, at: int = 0, *, note: str = "", text: str | None = None) -> None:
        """Keep the place as a sample, while there are few. `turn` len(item.texts) is a pair's rejected answer."""
        if len(self.shown) >= MAX_SAMPLES:
            return
        whole = item.texts[turn] if turn < len(item.texts) else item.rejected or ""
        path = item.path(turn) if turn < len(item.texts) else "non_preferred_output[0].content"
        self.shown.append((item.line, path, excerpt(whole, at) if text is None else text, note))

    def samples(self, which: str) -> Iterator[Sample]:
        """The places kept, of that file ("training" or "validation")."""
        for line, path, text, note in self.shown:
            yield Sample((Place(line, path, text, which),), note)


def turns(item: Item) -> Iterator[tuple[int, str]]:
    """Each turn's number and text; a pair's rejected answer comes last, one past the others."""
    yield from enumerate(item.texts)
    if item.rejected is not None:
        yield len(item.texts), item.rejected
