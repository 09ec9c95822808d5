"""Q11: how many answers refuse, whether that is more than is wanted, and which refuse what others answer."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.declining import declines
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Place, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.tallies import Tally
from pegbox.data.quality.text import excerpt

_Z = 1.959964  # of a 95 % interval
_ROLL = 1 << 15  # rows between which columns are looked after
_NONE, _ANSWERED, _REFUSED = 0, 1, 2
_Rows = NDArray[np.int64]


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    if not of:
        return 0.0, 1.0
    share, spread = hits / of, _Z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


class Refusals:
    """Looks at the last learnt answer of each row; of a pair, at the preferred one."""

    codes = ("Q11",)

    def __init__(self, context: Context) -> None:
        self._expected = context.expected_refusals
        self._tally = Tally()
        self._answers = 0
        self._seen = Column("B")  # of each row: _NONE, _ANSWERED or _REFUSED

    def see(self, item: Item) -> None:
        at = item.answer_index
        state = _NONE
        if at >= 0 and item.texts[at]:
            self._answers += 1
            state = _ANSWERED
            if declines(item.texts[at]):
                state = _REFUSED
                self._tally.add(item)
                self._tally.show(item, at)
        self._seen.append(state)
        if not len(self._seen) % _ROLL:
            self._seen.roll()

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        if not self._tally.rows:
            return
        yield self._share(corpus)
        seen = self._seen.load()
        pairs = [*_same(corpus, seen), *_near(corpus, seen)]
        if pairs:
            yield _conflict(corpus, pairs)

    def _share(self, corpus: Corpus) -> Finding:
        hits, of, expected = self._tally.rows, self._answers, self._expected
        share = hits / of
        low, high = wilson(hits, of)
        usual = CODES["Q11"].threshold or 0.0
        much = share > usual if expected is None else low > expected
        wanted = (
            f"; {expected:.1%} are wanted"
            if expected is not None
            else f"; more than {usual:.0%} is a lot"
            if much
            else ""
        )
        say = f"{hits:,} of {of:,} answers refuse" if hits > 1 else f"1 of {of:,} answers refuses"
        return finding(
            "Q11",
            "refusals",
            f"{say}, {share:.1%} (95 % interval {low:.1%} to {high:.1%}){wanted}",
            count=hits,
            rows=of,
            lines=self._tally.lines,
            samples=self._tally.samples(corpus.which),
            severity=Severity.WARNING if much else Severity.INFO,
            threshold=usual if expected is None else expected,
            data={"share": share, "low": low, "high": high, "expected": expected},
            file=corpus.which,
        )


def _same(corpus: Corpus, seen: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Each refusing row, with a row that answers exactly the same prompt under the same system's words."""
    key = corpus.prompts.load() * np.uint64(0x9E3779B97F4A7C15) ^ corpus.systems.load()
    answered = np.flatnonzero(seen == _ANSWERED)
    keys, first = np.unique(key[answered], return_index=True)
    for row in np.flatnonzero(seen == _REFUSED):
        at = int(np.searchsorted(keys, key[row]))
        if at < len(keys) and keys[at] == key[row]:
            yield int(row), int(answered[first[at]])


def _near(corpus: Corpus, seen: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """The same of nearly the same prompt."""
    from pegbox.data.quality.near import prompt_pairs

    pairs = prompt_pairs(corpus)
    systems = corpus.systems.load()
    for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        if systems[one] == systems[other] and seen[one] + seen[other] == _REFUSED + _ANSWERED:
            yield (one, other) if seen[one] == _REFUSED else (other, one)


def _conflict(corpus: Corpus, pairs: list[tuple[int, int]]) -> Finding:
    """What models learn to over-refuse from: like prompts, one refused and one answered (CRaFT, Zhu et al., 2025)."""
    refused = {row: None for row, _ in pairs}
    answering = dict(reversed(pairs))
    rows = f"{len(refused):,} refusals" if len(refused) > 1 else "1 refusal"
    return finding(
        "Q11",
        "conflict",
        f"{rows} to prompts that other rows, with the same prompt or nearly, do answer",
        count=len(refused),
        rows=corpus.read,
        lines=(corpus.lines[row] for row in list(refused)[:MAX_LINES]),
        samples=(_pair(corpus, row, answering[row]) for row in list(refused)[:MAX_SAMPLES]),
        severity=Severity.WARNING,
        fix="Decide whether such prompts are to be answered, and do so everywhere.",
        data={"pairs": len(pairs)},
        file=corpus.which,
    )


def _pair(corpus: Corpus, refused: int, answered: int) -> Sample:
    places = []
    for row in (refused, answered):
        item = corpus.item(row)
        shown = excerpt(f"{item.question[:200]} → {item.answer[:200]}")
        places.append(Place(item.line, item.path(item.answer_index), shown, corpus.which))
    return Sample(tuple(places), "refused, and answered")
