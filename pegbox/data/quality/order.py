"""Q21: rows that do not stand in random order.

Two statistics with a stated null, that the order is a random permutation of the rows:
- neighbours that have the same answer: n-1 neighbours, each alike with probability sum n_c (n_c - 1) / (n (n - 1));
- rank correlation of the answers' lengths, with the position (Spearman) and with the next row's (Wald and Wolfowitz's
  serial correlation on ranks): both are about normal with variance 1 / (n - 1).
With many rows any trace is significant, so an effect of some size is asked for too.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Context
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.worst import percent

_FEWEST = 50  # rows
_Z = 6.0
_ALIKE = 0.2  # neighbours alike beyond chance, of those that could be
_CORRELATED = 0.3
_FIX = (
    "Nothing for training, which shuffles. If you cut off a part for validation, shuffle first or use `pegbox split`."
)


class Order:
    codes = ("Q21",)

    def __init__(self, context: Context) -> None:
        del context
        self._lengths = Column("I")  # characters of each row's answer; of its talk, if nothing is learnt

    def see(self, item: Item) -> None:
        at = item.answer_index
        self._lengths.append(len(item.texts[at]) if at >= 0 else sum(map(len, item.texts)))
        self._lengths.roll()

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        n = len(self._lengths)
        if n < _FEWEST:
            return
        alike, chance, z = agreement(corpus.answers.load())
        if z > _Z and (alike - chance) / (1 - chance) > _ALIKE:
            yield _finding(
                n, "by-answer", alike,
                f"Rows stand in order of their answers: {percent(alike)} of neighbours have the same answer, where "
                f"{percent(chance)} would by chance.",
                {"alike": round(alike, 4), "chance": round(chance, 4), "z": round(z, 1)},
            )  # fmt: skip
            return
        ranks = average_ranks(self._lengths.load())
        trend = _correlation(np.arange(n, dtype=np.float64), ranks)
        serial = _correlation(ranks[:-1], ranks[1:])
        if abs(trend) > max(_CORRELATED, _Z / np.sqrt(n - 1)):
            way = "longer" if trend > 0 else "shorter"
            yield _finding(
                n, "by-length", abs(trend),
                f"Answers grow {way} from the first row to the last (rank correlation {trend:.2f}, 0 by chance).",
                {"correlation": round(trend, 4), "z": round(trend * float(np.sqrt(n - 1)), 1)},
            )  # fmt: skip
        elif serial > max(_CORRELATED, _Z / np.sqrt(n - 1)):
            yield _finding(
                n, "in-blocks", serial,
                f"Rows of like length stand together (rank correlation of neighbours {serial:.2f}, 0 by chance): the "
                "file looks joined from several.",
                {"correlation": round(serial, 4), "z": round(serial * float(np.sqrt(n - 1)), 1)},
            )  # fmt: skip


def agreement(answers: NDArray[np.uint64]) -> tuple[float, float, float]:
    """The share of neighbours with equal answers, the share to be expected, and how many standard deviations lie
    between."""
    n = len(answers)
    alike = float((answers[1:] == answers[:-1]).mean())
    counts = np.unique(answers, return_counts=True)[1].astype(np.float64)
    chance = float((counts * (counts - 1)).sum() / (n * (n - 1)))
    if chance in (0.0, 1.0):
        return alike, chance, 0.0
    return alike, chance, float((alike - chance) / np.sqrt(chance * (1 - chance) / (n - 1)))


def average_ranks(values: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of theirs, so that ties have no order."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse], dtype=np.float64)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm else 0.0


def _finding(n: int, kind: str, share: float, text: str, data: dict[str, object]) -> Finding:
    return finding(
        "Q21", kind, f"{text} Training shuffles, so it does no harm there.", count=round(min(share, 1.0) * n), rows=n,
        threshold=_ALIKE if kind == "by-answer" else _CORRELATED, fix=_FIX, data=data,
    )  # fmt: skip
