"""Pairs of rows whose prompts mean the same, as far as letters tell, and whose answers do not.

What makes a pair suspicious: the prompts differ in nothing but typing errors and small words; and the rows most like
one of them are answered as the other is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality import answers, embeddings, near, wording
from pegbox.data.quality.answers import Verdict
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.forest import Pairs, Rows, merge
from pegbox.data.quality.groups import joined

MAX_COST = 2.0  # of the difference between two prompts: from here on they ask for different things
_MAX_PAIRS = 20_000  # that are read
_PER_WORD = 10  # words from which a further word that differs weighs less than one
_VOTES = 2  # neighbours that must speak before they count


@dataclass(frozen=True, slots=True)
class Suspect:
    one: int
    other: int
    likeness: float  # of the prompts, 0 to 1
    cost: float  # of what differs; see wording.Difference
    verdict: Verdict  # on the answers
    votes: float  # -1 to 1: how far the neighbours speak for an error
    likely_wrong: int | None  # the row whose neighbours are answered as the other one is

    @property
    def suspicion(self) -> float:
        return self.likeness - 0.1 * self.cost + 0.05 * self.votes


@dataclass(frozen=True, slots=True)
class Suspects:
    pairs: tuple[Suspect, ...]  # the most suspicious first
    whole: bool

    def ceiling(self, corpus: Corpus) -> float:
        """The share of rows with the most common answer among rows with equal or like prompts."""
        conflicts = [suspect for suspect in self.pairs if suspect.verdict is Verdict.CONFLICT]
        one = np.array([suspect.one for suspect in conflicts], dtype=np.int64)
        other = np.array([suspect.other for suspect in conflicts], dtype=np.int64)
        known = near.sketches(corpus)
        results = known.results.load()
        n = len(results)
        usable = np.flatnonzero((known.said.load() > 0) & (known.asked.load() > 0))
        order, starts = groups_with(corpus, usable)
        sizes = np.diff(np.append(starts, len(order)))
        together = joined(n, [(order, np.repeat(order[starts], sizes)), (one, other)])
        touched = np.unique(together[np.concatenate((one, other))])
        lost = 0
        chosen = np.flatnonzero(np.isin(together, touched))
        chosen = chosen[np.argsort(together[chosen], kind="stable")]
        for members in np.split(chosen, np.flatnonzero(np.diff(together[chosen])) + 1):
            lost += len(members) - int(np.unique(results[members], return_counts=True)[1].max()) if len(members) else 0
        return 1 - lost / n


def groups_with(corpus: Corpus, rows: Rows) -> tuple[Rows, Rows]:
    """These rows, those of one prompt and system side by side, and where each such group starts."""
    systems, prompts = corpus.systems.load()[rows], corpus.prompts.load()[rows]
    order = np.lexsort((rows, prompts, systems))
    changes = (np.diff(systems[order]) != 0) | (np.diff(prompts[order]) != 0)
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1)) if len(rows) else np.zeros(0, dtype=np.int64)
    return rows[order], starts


def suspects(corpus: Corpus) -> Suspects:
    """Worked out once."""
    if "suspects" not in corpus.kept:
        corpus.kept["suspects"] = _find(corpus)
    found: Suspects = corpus.kept["suspects"]
    return found


def _find(corpus: Corpus) -> Suspects:
    letters = near.prompt_pairs(corpus)
    meaning = embeddings.prompt_pairs(corpus)
    neighbours = merge(letters, meaning) if meaning is not None else letters
    systems, known = corpus.systems.load(), near.sketches(corpus)
    results, said = known.results.load(), known.said.load()

    def asked_alike(pairs: Pairs) -> Pairs:
        one, other = pairs.first, pairs.second
        differ = (systems[one] == systems[other]) & (results[one] != results[other])
        return pairs.where(differ & (said[one] > 0) & (said[other] > 0))

    candidates = asked_alike(letters)
    order = np.argsort(-candidates.likeness, kind="stable")[:_MAX_PAIRS]
    votes = _Votes(neighbours, results)
    found: list[Suspect] = []
    whole = letters.whole and len(order) == len(candidates)
    for k in order.tolist():
        if corpus.context.deadline.over:
            whole = False
            break
        one, other = int(candidates.first[k]), int(candidates.second[k])
        suspect = _judge(corpus, one, other, float(candidates.likeness[k]), votes)
        if suspect is not None:
            found.append(suspect)
    found.sort(key=lambda suspect: (-suspect.suspicion, suspect.one, suspect.other))
    return Suspects(tuple(_each_row_once(found)), whole)


def _each_row_once(pairs: list[Suspect]) -> list[Suspect]:
    """In order, but pairs with a row that an earlier pair has go to the end: a reader needs it once."""
    named: set[int] = set()
    first: list[Suspect] = []
    later: list[Suspect] = []
    for suspect in pairs:
        again = suspect.one in named or suspect.other in named
        (later if again else first).append(suspect)
        named.update((suspect.one, suspect.other))
    return first + later


def _judge(corpus: Corpus, one: int, other: int, likeness: float, votes: "_Votes") -> Suspect | None:
    """None where the prompts ask for different things, or the answers agree."""
    ours, theirs = corpus.item(one), corpus.item(other)
    difference = wording.difference(ours.prompt, theirs.prompt)
    words = max(len(ours.prompt.split()), len(ours.prompt) // 6)
    cost = difference.cost(min(1.0, _PER_WORD / max(1, words)))
    if cost >= MAX_COST:
        return None
    verdict = answers.compare(ours.answer, theirs.answer)
    if verdict is Verdict.SAME:
        return None
    for_one, for_other = votes.against(one, other), votes.against(other, one)
    strongest = max(for_one, for_other)
    wrong = None if strongest <= 0 or for_one == for_other else one if for_one > for_other else other
    return Suspect(one, other, likeness, cost, verdict, strongest, wrong)


class _Votes:
    """How the neighbours of a row are answered."""

    def __init__(self, pairs: Pairs, results: NDArray[np.uint64]) -> None:
        ends = np.concatenate((pairs.first, pairs.second))
        order = np.argsort(ends, kind="stable")
        self._rows = ends[order]
        self._neighbours = np.concatenate((pairs.second, pairs.first))[order]
        self._results = results

    def against(self, row: int, other: int) -> float:
        """-1: the neighbours are all answered as the row is; 1: all as the other one; 0: too few, or divided."""
        start, end = np.searchsorted(self._rows, (row, row + 1))
        near_by = self._neighbours[start:end]
        said = self._results[near_by[near_by != other]]
        if len(said) < _VOTES:
            return 0.0
        own, theirs = int((said == self._results[row]).sum()), int((said == self._results[other]).sum())
        return (theirs - own) / len(said)
