"""Q15: turns that are much longer or shorter than their like.

A robust z of the logarithm of the length in characters, role by role: (log n - median) * 0.6745 / MAD (Iglewicz and
Hoaglin, "How to Detect and Handle Outliers", 1993). A long tail is natural for lengths, and the logarithm allows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Context
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.worst import many, percent, place

Z = 5.0
_ROLES = {"user": "a user", "assistant": "an assistant", "tool": "a tool's"}
_FEWEST = 30  # turns of a role; of fewer no habit can be told
_MAD_FLOOR = 0.15  # so that no length between a third and three times the median is ever unusual
_LONGER, _SHORTER = 100, 40  # characters from the median that an outlier must lie away at least


@dataclass(slots=True)
class _Lengths:
    """One role's turns."""

    characters: Column = field(default_factory=lambda: Column("I"))
    rows: Column = field(default_factory=lambda: Column("I"))  # positions in the corpus
    turns: Column = field(default_factory=lambda: Column("H"))

    def roll(self) -> None:
        for column in (self.characters, self.rows, self.turns):
            column.roll()


class Lengths:
    codes = ("Q15",)

    def __init__(self, context: Context) -> None:
        del context
        self._rows = 0
        self._of = {role: _Lengths() for role in _ROLES}

    def see(self, item: Item) -> None:
        for turn, role in enumerate(item.roles):
            of = self._of.get(role)
            if of is not None and (characters := len(item.texts[turn])):
                of.characters.append(characters)
                of.rows.append(self._rows)
                of.turns.append(turn)
        self._rows += 1
        if self._rows % 1024 == 0:
            for of in self._of.values():
                of.roll()

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        for role, of in self._of.items():
            if len(of.rows) < _FEWEST:
                continue
            characters = of.characters.load().astype(np.int64)
            z, median = _robust_z(characters)
            long = (z > Z) & (characters - median > _LONGER)
            short = (z < -Z) & (median - characters > _SHORTER)
            for word, unusual in (("long", long), ("short", short)):
                if unusual.any():
                    yield self._finding(corpus, role, word, np.flatnonzero(unusual), z, characters, median)

    def _finding(
        self, corpus: Corpus, role: str, word: str, at: NDArray[np.int64], z: NDArray[np.float64],
        characters: NDArray[np.int64], median: int,
    ) -> Finding:  # fmt: skip
        of = self._of[role]
        rows, turns = of.rows.load(), of.turns.load()
        positions = np.unique(rows[at])
        worst = at[np.argsort(-np.abs(z[at]), kind="stable")]
        far = characters[worst[0]]
        than = "longer" if word == "long" else "shorter"
        text = (
            f"In {many(len(positions), 'row')} ({percent(len(positions) / self._rows)}) {_ROLES[role]} turn is far "
            f"{than} than its like: {many(int(far), 'character')} at the most extreme, where {median:,} are usual."
        )
        samples = []
        for i in worst[:MAX_SAMPLES]:
            item = corpus.item(int(rows[i]))
            samples.append(Sample((place(item, int(turns[i])),), f"{characters[i]:,} characters, z = {z[i]:.1f}"))
        lines = corpus.lines.load()[positions[:MAX_LINES]].tolist()
        return finding(
            "Q15", f"{word}-{role}", text, count=len(positions), rows=self._rows, lines=lines, samples=samples,
            data={"median": median, "most_extreme": int(far), "z": round(float(z[worst[0]]), 1)},
        )  # fmt: skip


def _robust_z(characters: NDArray[np.int64]) -> tuple[NDArray[np.float64], int]:
    """Each length's robust z on the logarithm, and the median length."""
    logs = np.log(characters)
    middle = np.median(logs)
    spread = max(float(np.median(np.abs(logs - middle))), _MAD_FLOOR)
    return 0.6745 * (logs - middle) / spread, int(np.median(characters))
