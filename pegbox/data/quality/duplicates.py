"""Q06, Q07, Q08: rows that the file holds more than once, as they are, nearly, or in other words."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality import answers, embeddings, near
from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.forest import Pairs, Rows, merge
from pegbox.data.quality.groups import joined
from pegbox.data.quality.items import Item
from pegbox.data.quality.places import asked
from pegbox.data.quality.worst import many, percent

STOPPED = " (not all pairs were compared, for want of time or room)"


class Duplicates:
    """Needs nothing of the first reading: rows are compared when all are there."""

    codes = ("Q06", "Q07", "Q08")

    def __init__(self, context: Context) -> None:
        del context

    def see(self, item: Item) -> None:
        pass

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        if not len(corpus):
            return
        yield from _exact(corpus)
        yield from _near(corpus)
        yield from _semantic(corpus)


def exact_groups(corpus: Corpus) -> Rows:
    """For each row the first that equals it."""
    return near.firsts(corpus.rows.load())[1]


def near_pairs(corpus: Corpus) -> Pairs:
    """Rows that are nearly the same and whose answers agree; or whose prompts are, and whose answers come to the same.
    Exact copies are no pairs; the same talk under two systems is one."""
    name = "near duplicates"
    if name not in corpus.kept:
        talks, prompts = near.talk_pairs(corpus), near.prompt_pairs(corpus)
        results = near.sketches(corpus).results.load()
        same_result = results[prompts.first] == results[prompts.second]
        prompts = prompts.where(same_result & (prompts.likeness >= near.NEAR_EDITS))
        pairs = merge(talks, prompts)
        corpus.kept[name] = pairs.where(_agree(corpus, pairs))
    found: Pairs = corpus.kept[name]
    return found


def near_groups(corpus: Corpus) -> Rows:
    """For each row the first of those that equal it or are nearly the same."""
    name = "near groups"
    if name not in corpus.kept:
        pairs, rows = near_pairs(corpus), np.arange(len(corpus))
        known = near.sketches(corpus)
        _, same_talk = near.firsts(known.talk_keys.load())
        edges = [(rows, exact_groups(corpus)), (rows[: len(same_talk)], same_talk), (pairs.first, pairs.second)]
        corpus.kept[name] = joined(len(corpus), edges)
    found: Rows = corpus.kept[name]
    return found


def _agree(corpus: Corpus, pairs: Pairs) -> NDArray[np.bool_]:
    """Whether the answers of each pair do not conflict: if they do, the rows contradict one another (Q10)."""
    keys = near.sketches(corpus).answers.load()
    agree: NDArray[np.bool_] = keys[pairs.first] == keys[pairs.second]
    texts = near.Texts(corpus, "answer")
    for k in np.flatnonzero(~agree):
        one, other = texts[int(pairs.first[k])], texts[int(pairs.second[k])]
        agree[k] = answers.compare(one, other) is answers.Verdict.SAME
    return agree


def _exact(corpus: Corpus) -> Iterator[Finding]:
    first = exact_groups(corpus)
    copies = np.flatnonzero(first != np.arange(len(first)))
    if not len(copies):
        return
    groups, sizes = np.unique(first[copies], return_counts=True)
    largest = groups[np.argsort(-sizes, kind="stable")]
    samples = []
    for row in largest[:MAX_SAMPLES].tolist():
        same = copies[first[copies] == row]
        note = f"the same row {len(same) + 1:,} times" if len(same) > 1 else "the same row twice"
        samples.append(Sample((asked(corpus, row), asked(corpus, int(same[0]))), note))
    text = (
        f"{many(len(copies), 'row')} of {len(first):,} ({percent(len(copies) / len(first))}) "
        f"{_repeat(len(copies))} an earlier row but for case, spaces and the width of letters."
    )
    yield _finding(
        corpus,
        "Q06",
        "exact-duplicates",
        text,
        copies,
        samples,
        {"groups": len(groups), "largest": int(sizes.max()) + 1},
    )


def _near(corpus: Corpus) -> Iterator[Finding]:
    pairs = near_pairs(corpus)
    group, exact, rows = near_groups(corpus), exact_groups(corpus), np.arange(len(corpus))
    copies = np.flatnonzero((group != rows) & (exact == rows))
    if not len(copies):
        return
    sizes = np.unique(group[copies], return_counts=True)[1]
    best = np.argsort(-pairs.likeness, kind="stable")
    samples = []
    for k in best[:: max(1, len(best) // MAX_SAMPLES)][:MAX_SAMPLES].tolist():
        places = asked(corpus, int(pairs.first[k])), asked(corpus, int(pairs.second[k]))
        samples.append(Sample(places, f"{pairs.likeness[k]:.0%} alike"))
    if not samples:
        samples = [
            Sample((asked(corpus, int(group[row])), asked(corpus, row))) for row in copies[:MAX_SAMPLES].tolist()
        ]
    text = (
        f"{many(len(copies), 'row')} of {len(rows):,} ({percent(len(copies) / len(rows))}) "
        f"{'is' if len(copies) == 1 else 'are'} nearly the same as an earlier row: a word, a letter or a comma differs "
        f"and the answers agree{'' if pairs.whole else STOPPED}."
    )
    yield _finding(
        corpus, "Q07", "near-duplicates", text, copies, samples, {"groups": len(sizes), "largest": int(sizes.max()) + 1}
    )


def _semantic(corpus: Corpus) -> Iterator[Finding]:
    if (pairs := embeddings.prompt_pairs(corpus)) is None or not len(pairs):
        return
    near_group = near_groups(corpus)
    pairs = pairs.where(near_group[pairs.first] != near_group[pairs.second])
    pairs = pairs.where(_agree(corpus, pairs))
    rows = np.arange(len(corpus))
    group = joined(len(rows), [(rows, near_group), (pairs.first, pairs.second)])
    copies = np.flatnonzero((group != rows) & (near_group == rows))
    if not len(copies):
        return
    best = np.argsort(-pairs.likeness, kind="stable")[: 50 * MAX_SAMPLES]
    samples: list[Sample] = []
    shown: set[int] = set()
    for k in best.tolist():
        one, other = int(pairs.first[k]), int(pairs.second[k])
        if int(group[one]) not in shown and len(samples) < MAX_SAMPLES:
            shown.add(int(group[one]))
            samples.append(Sample((asked(corpus, one), asked(corpus, other)), f"cosine {pairs.likeness[k]:.2f}"))
    text = (
        f"{many(len(copies), 'row')} of {len(rows):,} ({percent(len(copies) / len(rows))}) "
        f"{'seems' if len(copies) == 1 else 'seem'} to ask in other words what an earlier row asks, with the same "
        f"answer{'' if pairs.whole else STOPPED}."
    )
    yield _finding(
        corpus, "Q08", "semantic-duplicates", text, copies, samples, {"groups": len(np.unique(group[copies]))}
    )


def _finding(
    corpus: Corpus, code: str, kind: str, text: str, copies: Rows, samples: list[Sample], data: dict[str, object]
) -> Finding:
    threshold = CODES[code].threshold
    share = len(copies) / len(corpus)
    return finding(
        code, kind, text, count=len(copies), rows=len(corpus), samples=samples, data=data, file=corpus.which,
        lines=corpus.lines.load()[copies[:MAX_LINES]].tolist(),
        severity=Severity.INFO if threshold is not None and share <= threshold else None,
    )  # fmt: skip


def _repeat(count: int) -> str:
    return "repeats" if count == 1 else "repeat"
