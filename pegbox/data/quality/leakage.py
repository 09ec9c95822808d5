"""Q12: rows of the validation file that training has seen; and which rows a split must keep together.

A validation row leaks if it, or its prompt alone, stands in the training file as it is or nearly; it is told apart
whether much of its text does (passages of about 13 words), and whether a training prompt means the same. The system's
words are left out of all but the first.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality import embeddings, near
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.duplicates import STOPPED, near_groups
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.forest import Beside, Compare, Pairs, Rows, Search, Table
from pegbox.data.quality.forest import pairs as search
from pegbox.data.quality.groups import joined
from pegbox.data.quality.passages import overlapping
from pegbox.data.quality.places import asked
from pegbox.data.quality.shingles import likeness
from pegbox.data.quality.worst import many, percent

NEAR_SHARE = 0.01  # of the validation rows, above which nearly equal prompts are a warning
_SEARCH = Search(prefix=16, window=8, least=0.5)
_MEANING = Search(prefix=10, window=8, least=embeddings.SAME_MEANING)
_NOWHERE = -1  # of a validation row: no training row is like it

_SAID = {
    "same-row": "{rows} also {stand} in the training file, word for word",
    "same-prompt": "{rows} {ask} what a training row asks, word for word",
    "near-prompt": "{rows} {ask} nearly what a training row asks: a word, a letter or a comma differs",
    "same-passages": "{rows} {share} half of {their} passages of 13 words or more with a training row",
    "same-meaning": "{rows} {seem} to ask in other words what a training row asks",
}


def leaks(training: Corpus, validation: Corpus) -> Iterator[Finding]:
    """What of the validation file is known from training, a row under one heading: the gravest."""
    if not len(training) or not len(validation):
        return
    left = np.ones(len(validation), dtype=bool)
    asked_anything = near.sketches(validation).asked.load() > 0
    prompted = np.zeros(len(validation), dtype=bool)
    prompted[: len(asked_anything)] = asked_anything
    whole = near.sketches(training).whole and near.sketches(validation).whole
    looks = (
        ("same-row", lambda: _same(training.rows.load(), validation.rows.load())),
        (
            "same-prompt",
            lambda: np.where(prompted, _same(training.prompts.load(), validation.prompts.load()), _NOWHERE),
        ),
        ("near-prompt", lambda: _near(training, validation)),
        ("same-passages", lambda: overlapping(training, validation)),
        ("same-meaning", lambda: _same_meaning(training, validation)),
    )
    for kind, look in looks:
        if training.context.deadline.over:
            return
        twins = look()
        rows = np.flatnonzero(left & (twins != _NOWHERE))
        left[rows] = False
        if len(rows):
            yield _finding(training, validation, kind, rows, twins, whole=whole)


def groups(corpus: Corpus) -> Rows:
    """For each row the first of those that a split must keep with it, for `leaks` not to find them on both sides:
    equal and nearly equal rows, and rows whose prompts are equal or nearly so, under whatever system."""
    rows = np.arange(len(corpus))
    prompts = near.prompt_pairs(corpus)
    _, first = near.firsts(corpus.prompts.load())
    has_prompt = near.sketches(corpus).asked.load() > 0
    known = rows[: len(has_prompt)][has_prompt]
    edges = [(rows, near_groups(corpus)), (known, first[known]), (prompts.first, prompts.second)]
    return joined(len(corpus), edges)


def _same(training: NDArray[np.uint64], validation: NDArray[np.uint64]) -> Rows:
    """For each validation row the first training row with the same hash."""
    known, first = np.unique(training, return_index=True)
    at = np.minimum(np.searchsorted(known, validation), len(known) - 1)
    return np.where(known[at] == validation, first[at], _NOWHERE)


def _near(training: Corpus, validation: Corpus) -> Rows:
    """By prompts; by whole talks where there is no prompt. Numbers must be the same."""
    ours, theirs = near.sketches(training), near.sketches(validation)
    twins = np.full(len(validation), _NOWHERE, dtype=np.int64)
    for part, texts in (("prompts", "prompt"), ("talks", "talk")):
        usable = [known.asked.load() > 0 if part == "prompts" else known.asked.load() == 0 for known in (ours, theirs)]
        numbers = [
            (known.asked_numbers if part == "prompts" else known.said_numbers).load() for known in (ours, theirs)
        ]
        tables: tuple[Table, Table] = getattr(ours, part), getattr(theirs, part)
        pairs, kinds = _across(training, validation, tables, usable, numbers, _signature_likeness(*tables), _SEARCH)
        one, other = near.Texts(training, texts), near.Texts(validation, texts)
        order = np.argsort(-pairs.likeness, kind="stable")
        for k in order.tolist():
            if training.context.deadline.over:
                break
            row, twin = int(pairs.second[k]), int(pairs.first[k])
            if twins[row] == _NOWHERE and near.is_near(one[twin], other[row], float(pairs.likeness[k])):
                twins[row] = twin
        like = kinds != _NOWHERE
        twins[like & (twins == _NOWHERE)] = twins[kinds[like & (twins == _NOWHERE)]]
    return twins


def _same_meaning(training: Corpus, validation: Corpus) -> Rows:
    none = np.full(len(validation), _NOWHERE, dtype=np.int64)
    encode, ours = embeddings.encoder(training), embeddings.of_prompts(training)
    theirs = embeddings.embed(validation, encode) if encode is not None and ours is not None else None
    if ours is None or theirs is None:
        return none
    known = near.sketches(training), near.sketches(validation)
    usable = [
        (sketches.asked.load() > 0)[: len(vectors)] for sketches, vectors in zip(known, (ours, theirs), strict=True)
    ]
    numbers = [sketches.asked_numbers.load() for sketches in known]

    def compare(one: Rows, other: Rows) -> NDArray[np.float32]:
        found: NDArray[np.float32] = (ours.take(one) * theirs.take(other)).sum(axis=1)
        return found

    pairs, kinds = _across(training, validation, (ours.signs, theirs.signs), usable, numbers, compare, _MEANING)
    best = np.argsort(pairs.likeness, kind="stable")
    none[pairs.second[best]] = pairs.first[best]
    like = kinds != _NOWHERE
    none[like] = none[kinds[like]]
    return none


def _signature_likeness(ours: Table, theirs: Table) -> Compare:
    return lambda one, other: likeness(ours.take(one), theirs.take(other))


def _across(
    training: Corpus,
    validation: Corpus,
    tables: tuple[Table, Table],
    usable: list[NDArray[np.bool_]],
    numbers: list[NDArray[np.uint64]],
    compare: Compare,
    how: Search,
) -> tuple[Pairs, Rows]:
    """Pairs of a training row and a validation row, with the same numbers; and for each validation row the first with
    the same prompt and answer, which alone is paired."""
    ours, _ = near.firsts(near.sketches(training).talk_keys.load())
    theirs, kinds = near.firsts(near.sketches(validation).talk_keys.load())
    ours = ours[ours < len(usable[0])]
    theirs = theirs[theirs < len(usable[1])]
    ours, theirs = ours[usable[0][ours]], theirs[usable[1][theirs]]
    n = len(tables[0])

    def between(one: Rows, other: Rows) -> NDArray[np.float32]:
        found = np.zeros(len(one), dtype=np.float32)
        across = np.flatnonzero((one < n) & (other >= n))
        across = across[numbers[0][one[across]] == numbers[1][other[across] - n]]
        found[across] = compare(one[across], other[across] - n)
        return found

    rows = np.concatenate((ours, theirs + n))
    found = search(Beside(*tables), rows, between, how, training.context.deadline)
    kept = np.full(len(validation), _NOWHERE, dtype=np.int64)
    kept[: len(kinds)] = kinds
    return Pairs(found.first, found.second - n, found.likeness, found.whole), kept


def _finding(training: Corpus, validation: Corpus, kind: str, rows: Rows, twins: Rows, *, whole: bool) -> Finding:
    n = len(rows)
    one = n == 1
    words = {
        "rows": f"{many(n, 'validation row')} of {len(validation):,} ({percent(n / len(validation))})",
        "stand": "stands" if one else "stand", "ask": "asks" if one else "ask", "share": "shares" if one else "share",
        "seem": "seems" if one else "seem", "their": "its" if one else "their",
    }  # fmt: skip
    exact = kind in ("same-row", "same-prompt")
    warns = exact or (kind == "near-prompt" and n / len(validation) > NEAR_SHARE)
    samples = [
        Sample((asked(training, int(twins[row])), asked(validation, int(row))))
        for row in rows[:: max(1, n // MAX_SAMPLES)][:MAX_SAMPLES]
    ]
    return finding(
        "Q12", kind, f"{_SAID[kind].format(**words)}{'' if whole else STOPPED}.",
        count=n, rows=len(validation), lines=validation.lines.load()[rows[:MAX_LINES]].tolist(), samples=samples,
        severity=Severity.WARNING if warns else Severity.INFO, file="validation",
        threshold=0.0 if exact else NEAR_SHARE if kind == "near-prompt" else None,
        data={"pairs": [[int(training.lines[int(twins[row])]), int(validation.lines[int(row)])] for row in rows[:100]]},
    )  # fmt: skip
