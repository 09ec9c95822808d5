"""Q23: preference pairs that teach nothing, or the wrong thing.

What DPO learns is the difference between the two answers: where there is none, or where it is always the same one
(length, a refusal), the model learns that instead of what was meant.
"""

import math
from collections.abc import Iterator

import numpy as np
from rapidfuzz.distance import Levenshtein

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.declining import declines
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Place, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import digest, excerpt, normalise
from pegbox.data.quality.worst import Worst, many, percent, place

REJECTED = "non_preferred_output[0].content"
_NEAR = 0.95  # likeness (1 - edits / characters of the longer) from which two answers are nearly the same
_COMPARED = 4_000  # characters of an answer; longer ones are compared by their beginning
_REPEATED = 40  # characters of a prompt that are no coincidence in an answer
_FEWEST = 30  # pairs that a bias can be told from
_LONGER = 0.7  # share of pairs in which one side is the longer
_BY = 1.1  # times as long, on average, that matters
_REFUSALS = 0.01  # share of pairs in which one side alone refuses
_SURE = 1.96  # standard errors: a 95 % interval

# kind: severity, sentence, remedy
_KINDS: dict[str, tuple[Severity, str, str]] = {
    "identical-pair": (
        Severity.ERROR, "{pairs} consist of the same answer twice.", "Drop them: there is nothing to prefer.",
    ),
    "empty-side": (
        Severity.ERROR, "In {pairs} one answer is nothing but white space.", "Write the answer or drop the pair.",
    ),
    "differs-in-form": (
        Severity.WARNING, "In {pairs} the answers differ in white space, case or width alone.",
        "Drop them, unless that is what you want to teach.",
    ),
    "near-equal": (
        Severity.WARNING, "In {pairs} the answers are nearly the same.",
        "See whether the little that differs is what you want to teach.",
    ),
    "cut-off-side": (
        Severity.WARNING, "In {pairs} one answer is the beginning of the other.",
        "Complete or drop them: they teach length alone.",
    ),
    "prompt-repeated": (
        Severity.WARNING, "In {pairs} the preferred answer repeats the prompt word for word.",
        "Remove the prompt from the answer.",
    ),
}  # fmt: skip


class Preferences:
    codes = ("Q23",)

    def __init__(self, context: Context) -> None:
        del context
        self._pairs = 0
        self._seen = 0
        self._kinds = {kind: Worst() for kind in _KINDS}
        self._longer = [0, 0]  # pairs in which the preferred answer is longer, shorter
        self._ratios = [0.0, 0.0]  # sum and sum of squares of log(preferred / rejected characters)
        self._refusing = (Worst(), Worst())  # pairs in which only the preferred answer refuses; only the other
        self._at = Column("I")  # position in the corpus
        self._keys = Column("Q")  # a hash of the prompt and both answers, in either order
        self._order = Column("B")  # which of the two is preferred

    def see(self, item: Item) -> None:
        position, self._seen = self._seen, self._seen + 1
        if item.rejected is None:
            return
        self._pairs += 1
        chosen, rejected = item.answer, item.rejected
        kind = _compare(chosen, rejected)
        if kind:
            self._kinds[kind[0]].add_sample(item.line, _both(item, chosen, rejected), kind[1])
        if kind is None or kind[0] != "empty-side":
            self._measure(len(chosen), len(rejected))
            refuses = declines(chosen)
            if refuses != declines(rejected):
                self._refusing[not refuses].add_sample(item.line, _both(item, chosen, rejected))
        question = item.question.strip()
        if len(question) >= _REPEATED and question in chosen:
            self._kinds["prompt-repeated"].add(item, item.answer_index, around=chosen.find(question))
        one, other = digest(normalise(chosen)), digest(normalise(rejected))
        if one != other:
            self._at.append(position)
            low, high = min(one, other), max(one, other)
            self._keys.append(digest(f"{item.system}\0{item.prompt}\0{low}\0{high}"))
            self._order.append(one == low)
        if self._seen % 8192 == 0:
            for column in (self._at, self._keys, self._order):
                column.roll()

    def _measure(self, chosen: int, rejected: int) -> None:
        ratio = math.log(max(chosen, 1) / max(rejected, 1))
        self._ratios[0] += ratio
        self._ratios[1] += ratio * ratio
        if chosen != rejected:
            self._longer[chosen < rejected] += 1

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        if not self._pairs:
            return
        for kind, (severity, sentence, fix) in _KINDS.items():
            pairs = self._kinds[kind]
            if pairs.count:
                text = sentence.format(pairs=f"{many(pairs.count, 'pair')} ({percent(pairs.count / self._pairs)})")
                if pairs.count == 1:
                    text = text.replace(" consist of ", " consists of ")
                yield finding("Q23", kind, text, count=pairs.count, rows=self._pairs, lines=pairs.lines,
                              samples=pairs.samples, severity=severity, fix=fix)  # fmt: skip
        yield from self._contradictory(corpus)
        yield from self._length_bias()
        yield from self._refusals()

    def _contradictory(self, corpus: Corpus) -> Iterator[Finding]:
        """Pairs of the same prompt and the same two answers that were preferred both ways."""
        at, keys, order = self._at.load(), self._keys.load(), self._order.load()
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        if not len(keys):
            return
        ahead = np.bincount(inverse, weights=order)
        both = (ahead > 0) & (ahead < counts)
        groups = np.flatnonzero(both)
        if not len(groups):
            return
        rows = np.flatnonzero(both[inverse])
        samples = []
        for group in groups[:MAX_SAMPLES]:
            of = np.flatnonzero(inverse == group)
            ways = [int(at[of[order[of] == way][0]]) for way in (1, 0)]
            items = [corpus.item(row) for row in sorted(ways)]
            samples.append(Sample(tuple(place(item, item.answer_index) for item in items), "each is preferred once"))
        yield finding(
            "Q23", "contradictory",
            f"{many(len(rows), 'pair')} contradict one another: with the same prompt, the same two answers are "
            "preferred both ways.",
            count=len(rows), rows=self._pairs, lines=[int(n) for n in corpus.lines.load()[at[rows[:MAX_LINES]]]],
            samples=samples, severity=Severity.ERROR, fix="Decide which answer is better, and drop the other pair.",
            data={"groups": len(groups)},
        )  # fmt: skip

    def _length_bias(self) -> Iterator[Finding]:
        """Whether one side is the longer far more often than by chance (a sign test), and by how much."""
        n = sum(self._longer)
        if n < _FEWEST:
            return
        side = 0 if self._longer[0] >= self._longer[1] else 1
        share = self._longer[side] / n
        if share <= _LONGER or share - _SURE * math.sqrt(share * (1 - share) / n) <= 0.5:
            return
        pairs = self._pairs - self._kinds["empty-side"].count
        mean = self._ratios[0] / pairs
        error = math.sqrt(max(self._ratios[1] / pairs - mean * mean, 0.0) / pairs)
        low, high = sorted((math.exp(mean - _SURE * error), math.exp(mean + _SURE * error)))
        ratio = math.exp(mean)
        if 1 / _BY < ratio < _BY:
            return
        word = "longer" if side == 0 else "shorter"
        yield finding(
            "Q23", "length-bias",
            f"The preferred answer is the {word} one in {percent(share)} of {n:,} pairs; on average it is "
            f"{ratio:.2f} times as long (95 % interval {low:.2f} to {high:.2f}): the model may learn to be {word}.",
            count=self._longer[side], rows=self._pairs, severity=Severity.WARNING, threshold=_LONGER,
            fix=f"Add pairs in which the {'shorter' if side == 0 else 'longer'} answer is the better one.",
            data={"share": round(share, 4), "ratio": round(ratio, 4), "interval": [round(low, 4), round(high, 4)]},
        )  # fmt: skip

    def _refusals(self) -> Iterator[Finding]:
        """Pairs of a refusal and an answer: they teach when to refuse, whatever else they were meant for."""
        preferred, other = self._refusing
        n = preferred.count + other.count
        if n <= _REFUSALS * self._pairs:
            return
        yield finding(
            "Q23", "one-sided-refusals",
            f"In {many(n, 'pair')} ({percent(n / self._pairs)}) one answer alone refuses: the preferred one in "
            f"{preferred.count:,}, the other in {other.count:,}.",
            count=n, rows=self._pairs, lines=sorted(preferred.lines + other.lines), severity=Severity.INFO,
            samples=[*preferred.samples[:3], *other.samples[:2]], threshold=_REFUSALS,
            fix="Keep them if the model is to learn when to refuse; else balance the two sides.",
            data={"preferred": preferred.count, "other": other.count},
        )  # fmt: skip


def _compare(chosen: str, rejected: str) -> tuple[str, float] | None:
    """What is wrong with two answers as a pair, and how much."""
    if not chosen.strip() or not rejected.strip():
        return "empty-side", 0.0
    if chosen == rejected:
        return "identical-pair", float(len(chosen))
    start = min(len(chosen), len(rejected), 40)
    if abs(len(chosen) - len(rejected)) > 40 and chosen[:start].casefold() != rejected[:start].casefold():
        return None  # in a hurry: they can be none of the following
    return _alike(normalise(chosen), normalise(rejected))


def _alike(one: str, other: str) -> tuple[str, float] | None:
    """What two normalised answers have too much in common."""
    if one == other:
        return "differs-in-form", float(len(one))
    short, long = sorted((one, other), key=len)
    if len(short) >= 20 and len(long) - len(short) >= 10 and long.startswith(short.rstrip(".。… ")):
        return "cut-off-side", float(len(long) - len(short))
    if len(long) >= 40 and len(short) >= _NEAR * len(long):
        likeness = Levenshtein.normalized_similarity(one[:_COMPARED], other[:_COMPARED], score_cutoff=_NEAR)
        return ("near-equal", float(likeness)) if likeness >= _NEAR else None
    return None


def _both(item: Item, chosen: str, rejected: str) -> Sample:
    """Both answers, shown about where they begin to differ."""
    differs = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
    return Sample((place(item, item.answer_index, differs), Place(item.line, REJECTED, excerpt(rejected, differs))))
