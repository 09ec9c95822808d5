"""Q09, Q10: one question, several answers, of which at most one can be right.

Q09 compares rows whose prompt and system are equal; Q10 those whose prompts are nearly equal, or mean the same, under
the same system. Where writers agree on seven rows of ten, no model is right on more: both name this ceiling.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality import answers, near
from pegbox.data.quality.answers import Verdict
from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.duplicates import STOPPED
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.forest import Rows
from pegbox.data.quality.items import Item
from pegbox.data.quality.places import answered
from pegbox.data.quality.suspects import Suspect, groups_with, suspects
from pegbox.data.quality.worst import many, percent

_MAX_GROUPS = 20_000  # that are read
_MAX_ANSWERS = 5  # of a group that are compared with its most common one
_GRAVE = 0.8  # a ceiling below which the file teaches what nobody wants


class Contradictions:
    """Needs nothing of the first reading: rows are compared when all are there."""

    codes = ("Q09", "Q10")

    def __init__(self, context: Context) -> None:
        del context

    def see(self, item: Item) -> None:
        pass

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        if corpus.method != "supervised" or not len(corpus):
            return  # of two preferred answers to one prompt, both may be good
        same = _Prompts(corpus)
        yield from _same_prompt(corpus, same)
        yield from _near_prompt(corpus)


@dataclass(slots=True)
class _Group:
    """Rows with one prompt and system, and more than one answer."""

    rows: Rows  # ascending
    results: NDArray[np.uint64]  # of each
    verdict: Verdict = Verdict.CONFLICT
    pair: tuple[int, int] = (0, 0)  # rows that show it: one with the most common answer, one with another

    @property
    def lost(self) -> int:
        """Rows that a model can't be right on if it is on the others."""
        return len(self.rows) - int(np.unique(self.results, return_counts=True)[1].max())

    @property
    def entropy(self) -> float:
        """Of the answer, in bits."""
        shares = np.unique(self.results, return_counts=True)[1] / len(self.rows)
        return float(-(shares * np.log2(shares)).sum())


class _Prompts:
    """The groups of a corpus, judged."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._texts = near.Texts(corpus, "answer")
        self.whole = True
        self.groups: list[_Group] = []
        for judged, group in enumerate(_groups(corpus)):
            if judged >= _MAX_GROUPS or corpus.context.deadline.over:
                self.whole = False
                break
            self._judge(group)
            if group.verdict is not Verdict.SAME:
                self.groups.append(group)

    def of(self, verdict: Verdict) -> list[_Group]:
        """Those that most rows are lost to first."""
        return sorted((group for group in self.groups if group.verdict is verdict), key=lambda group: -group.lost)

    def _judge(self, group: _Group) -> None:
        """Its most common answer against some of the others. A conflict weighs more than a difference."""
        _, first, counts = np.unique(group.results, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts))
        leader, *others = group.rows[first[order]][: _MAX_ANSWERS + 1].tolist()
        group.verdict = Verdict.SAME
        for other in others:
            verdict = answers.compare(self._texts[leader], self._texts[other])
            if verdict is Verdict.CONFLICT or (verdict is Verdict.DIFFERENT and group.verdict is Verdict.SAME):
                group.verdict, group.pair = verdict, (leader, other)
            if verdict is Verdict.CONFLICT:
                return


def _groups(corpus: Corpus) -> Iterator[_Group]:
    """Rows whose prompt and system are equal and whose answers are not; those with the shortest answers first."""
    known = near.sketches(corpus)
    said, results = known.said.load(), known.results.load()
    rows = np.flatnonzero((said > 0) & (known.asked.load() > 0))
    order, starts = groups_with(corpus, rows)
    sizes = np.diff(np.append(starts, len(order)))
    mixed = []
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        members = order[start : start + size]
        if (results[members] != results[members[0]]).any():
            mixed.append(members)
    for members in sorted(mixed, key=lambda group: int(said[group[0]])):
        yield _Group(members, results[members])


def _same_prompt(corpus: Corpus, prompts: _Prompts) -> Iterator[Finding]:
    for verdict, told, gravity in (
        (Verdict.CONFLICT, "has answers that contradict one another", Severity.WARNING),
        (Verdict.DIFFERENT, "has answers that have little in common, which may be meant so", Severity.INFO),
    ):
        groups = prompts.of(verdict)
        if not groups:
            continue
        rows = np.sort(np.concatenate([group.rows for group in groups]))
        ceiling = 1 - sum(group.lost for group in groups) / len(corpus)
        entropy = sum(len(group.rows) * group.entropy for group in groups) / len(corpus)
        n = len(groups)
        text = (
            f"{many(n, 'prompt')} ({many(len(rows), 'row')}, {percent(len(rows) / len(corpus))} of the file) "
            f"{told if n == 1 else told.replace('has', 'have', 1)}"
        )
        severity = Severity.ERROR if verdict is Verdict.CONFLICT and ceiling < _GRAVE else gravity
        data: dict[str, object] = {"groups": n, "entropy": round(entropy, 4)}
        if verdict is Verdict.CONFLICT:
            text += f"; a model that always gives the most common answer is right on {percent(ceiling)} of all rows"
            data["ceiling_accuracy"] = round(ceiling, 4)
        yield finding(
            "Q09", "conflict" if verdict is Verdict.CONFLICT else "different-answers",
            f"{text}{'' if prompts.whole else STOPPED}.", count=len(rows), rows=len(corpus), severity=severity,
            lines=corpus.lines.load()[rows[:MAX_LINES]].tolist(), data=data, file=corpus.which,
            samples=[_sample(corpus, *group.pair, _sizes(group)) for group in groups[:MAX_SAMPLES]],
        )  # fmt: skip


def _near_prompt(corpus: Corpus) -> Iterator[Finding]:
    found = suspects(corpus)
    for verdict, told in (
        (Verdict.CONFLICT, "nearly the same prompt and answers that contradict one another"),
        (Verdict.DIFFERENT, "nearly the same prompt and answers that have little in common"),
    ):
        pairs = [suspect for suspect in found.pairs if suspect.verdict is verdict]
        if not pairs:
            continue
        rows = np.unique([row for suspect in pairs for row in (suspect.one, suspect.other)])
        data: dict[str, object] = {"pairs": len(pairs)}
        text = f"{many(len(pairs), 'pair')} of rows {'has' if len(pairs) == 1 else 'have'} {told}"
        if verdict is Verdict.CONFLICT:
            data["ceiling_accuracy"] = round(found.ceiling(corpus), 4)
            text += (
                f"; if such prompts mean the same, no model is right on more than {percent(found.ceiling(corpus))} of "
                "all rows"
            )
        data["lines_by_suspicion"] = [[corpus.lines[s.one], corpus.lines[s.other]] for s in pairs[:100]]
        yield finding(
            "Q10", "near-conflict" if verdict is Verdict.CONFLICT else "near-different-answers",
            f"{text}{'' if found.whole else STOPPED}.", count=len(rows), rows=len(corpus),
            lines=corpus.lines.load()[rows[:MAX_LINES]].tolist(), data=data, file=corpus.which,
            samples=[_sample(corpus, s.one, s.other, _note(corpus, s)) for s in pairs[:MAX_SAMPLES]],
        )  # fmt: skip


def _sizes(group: _Group) -> str:
    return f"{many(len(group.rows), 'row')}, {len(np.unique(group.results))} answers"


def _sample(corpus: Corpus, one: int, other: int, note: str) -> Sample:
    return Sample((answered(corpus, one), answered(corpus, other)), note)


def _note(corpus: Corpus, suspect: Suspect) -> str:
    said = f"prompts {suspect.likeness:.0%} alike"
    if suspect.likely_wrong is not None:
        said += f"; rows like it suggest that line {corpus.lines[suspect.likely_wrong]:,} is the wrong one"
    return said
