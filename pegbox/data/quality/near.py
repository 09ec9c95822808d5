"""Rows that are nearly the same: found through signatures, then held against the texts themselves.

Everything is worked out when it is first asked for and kept with the corpus, so that any check may ask in any order.
The system's words are never compared: a prompt that all rows share would make all rows alike.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rapidfuzz.distance import Levenshtein

from pegbox.data.quality.answers import bare, final, is_short
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.forest import Pairs, Rows, Search, Table
from pegbox.data.quality.forest import pairs as search
from pegbox.data.quality.items import Item, item, plain_item
from pegbox.data.quality.shingles import LANES, jaccard, likeness, minima, shingles, signatures
from pegbox.data.quality.text import digest, normalise
from pegbox.data.quality.wording import SHORT, numbers, other_numbers
from pegbox.data.rows import read_rows

NEAR = 0.8  # likeness from which rows are nearly the same: of their runs of characters
NEAR_EDITS = 0.9  # … or of their characters, where they are short
PROMPT_EDITS = 0.85  # the same of prompts alone, for a closer look at their words
_WORDS = 8  # from which one word changed leaves them nearly the same
_BLOCK = 1 << 18  # characters read before they are sketched
_KEPT_TEXTS = 2_000
_MAX_TEXT = 1 << 16
# A word of ten changed leaves 0.6 of the runs; longer texts must keep nearly as much as is asked for.
_LEAST_PROMPT, _LEAST_TALK, _LEAST_LONG = 0.4, 0.5, 0.7
Possible = Callable[[Rows, Rows], NDArray[np.bool_]]
Judge = Callable[[int, int, float], float]
_SEARCHES = {
    of: Search(prefix=16, window=8, least=least) for of, least in (("prompt", _LEAST_PROMPT), ("talk", _LEAST_TALK))
}


@dataclass(slots=True)
class Sketches:
    """What is known of every row without its text."""

    talks: Table = field(default_factory=lambda: Table(LANES))  # signatures
    prompts: Table = field(default_factory=lambda: Table(LANES))
    asked: Column = field(default_factory=lambda: Column("I"))  # characters of the prompt
    said: Column = field(default_factory=lambda: Column("I"))  # characters of the answer; 0: there is none
    asked_numbers: Column = field(default_factory=Column)  # hashes of the numbers they hold
    said_numbers: Column = field(default_factory=Column)
    figures: Column = field(default_factory=lambda: Column("I"))  # how many numbers both hold
    answers: Column = field(default_factory=Column)  # hashes; of short ones, without what does not matter
    results: Column = field(default_factory=Column)  # hashes of what answers come to ("#### 7"); else as `answers`
    talk_keys: Column = field(default_factory=Column)  # hashes of prompt and `answers` together
    whole: bool = True  # False where time ran out before the last row


def items(corpus: Corpus) -> Iterator[tuple[int, Item]]:
    """All rows once more, in order, with their positions. Nobody else may read the file meanwhile."""
    corpus.file.seek(0)
    lines = corpus.lines.load()
    at = 0
    for row in read_rows(corpus.file, corpus.method):
        if at == len(lines):
            return
        if row.line == lines[at]:
            seen = plain_item(row)
            if seen is None:
                assert row.record is not None, "a row of the corpus is good"
                seen = item(row.example, row.line, row.record)
            yield at, seen
            at += 1


def sketches(corpus: Corpus) -> Sketches:
    """Of all rows."""
    if "sketches" not in corpus.kept:
        corpus.kept["sketches"] = _sketch(corpus)
    found: Sketches = corpus.kept["sketches"]
    return found


def prompt_pairs(corpus: Corpus) -> Pairs:
    """Rows whose prompts are nearly the same: positions in the corpus (from 0) and how alike the prompts are, 0.8 to 1
    (of runs of characters; of short ones also 0.85 to 1 of characters that stay in editing).
    Of rows with equal prompts and answers, only the first stands here, and equal prompts are no pairs. Numbers
    are the same on both sides. The systems may differ: compare `corpus.systems`."""
    return _kept_pairs(corpus, "prompt")


def talk_pairs(corpus: Corpus) -> Pairs:
    """The same of whole talks, prompt and answers. Prompts may be equal; the numbers are the same on both sides, or
    the answers are."""
    return _kept_pairs(corpus, "talk")


def is_near(one: str, other: str, guess: float = 1.0, edits_from: float = NEAR_EDITS) -> float:
    """How alike two normalised texts are; 0 where that is not nearly the same. `guess` is what their signatures say:
    runs are not counted where it lies three standard errors below what is asked for."""
    if one == other:
        return 1.0
    short = max(len(one), len(other)) <= SHORT
    edits = fuzz.ratio(one, other) / 100 if short else 0.0
    if edits >= edits_from:
        return edits
    share = jaccard(shingles(one), shingles(other)) if guess >= _LEAST_LONG - 0.02 else 0.0
    if share >= NEAR:
        return share
    return edits if short and _one_word_changed(one, other) else 0.0


def _one_word_changed(one: str, other: str) -> bool:
    ours, theirs = one.split(), other.split()
    if min(len(ours), len(theirs)) < _WORDS or abs(len(ours) - len(theirs)) > 1:
        return False
    return Levenshtein.distance(ours, theirs) == 1


class Texts:
    """Normalised texts of rows, read again when they are asked for; the last ones are remembered."""

    def __init__(self, corpus: Corpus, of: str) -> None:
        """`of`: "prompt", "talk", or "answer"."""
        self._corpus = corpus
        self._of = of
        self._known: OrderedDict[int, str] = OrderedDict()

    def __getitem__(self, row: int) -> str:
        if row in self._known:
            self._known.move_to_end(row)
            return self._known[row]
        text = normalise(getattr(self._corpus.item(row), self._of)[:_MAX_TEXT])
        self._known[row] = text
        if len(self._known) > _KEPT_TEXTS:
            self._known.popitem(last=False)
        return text


def firsts(*columns: NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """The first row of each kind, ascending, and for every row the first of its kind; kinds differ in a column."""
    key = columns[0].copy()
    for column in columns[1:]:
        key = key * np.uint64(0x9E3779B97F4A7C15) ^ column
    _, first, kind = np.unique(key, return_index=True, return_inverse=True)
    return np.sort(first), first[kind]


def _kept_pairs(corpus: Corpus, of: str) -> Pairs:
    name = f"{of} pairs"
    if name not in corpus.kept:
        corpus.kept[name] = _find(corpus, of)
    found: Pairs = corpus.kept[name]
    return found


def _find(corpus: Corpus, of: str) -> Pairs:
    known = sketches(corpus)
    table = known.prompts if of == "prompt" else known.talks
    rows, _ = firsts(known.talk_keys.load())
    rows = rows[(known.asked if of == "prompt" else known.said).load()[rows] > 0]
    possible = possible_prompts(corpus, known) if of == "prompt" else _possible_talks(known)
    lengths = known.asked.load() + (known.said.load() if of == "talk" else 0)

    def compare(one: Rows, other: Rows) -> NDArray[np.float32]:
        chosen = possible(one, other)
        found = np.zeros(len(one), dtype=np.float32)
        found[chosen] = likeness(table.take(one[chosen]), table.take(other[chosen]))
        long = np.maximum(lengths[one], lengths[other]) > SHORT
        found[long & (found < _LEAST_LONG)] = 0
        return found

    candidates = search(table, rows, compare, _SEARCHES[of], corpus.context.deadline)
    return _verify(corpus, of, candidates)


def possible_prompts(corpus: Corpus, known: Sketches) -> Possible:
    prompts, asked = corpus.prompts.load(), known.asked_numbers.load()
    return lambda one, other: (asked[one] == asked[other]) & (prompts[one] != prompts[other])


def _possible_talks(known: Sketches) -> Possible:
    """Two sums that differ in their numbers are two rows, though all else is the same, unless they come to the same.
    A number more or less is left to the texts."""
    asked, said, results = known.asked_numbers.load(), known.said_numbers.load(), known.results.load()
    figures = known.figures.load()

    def possible(one: Rows, other: Rows) -> NDArray[np.bool_]:
        same = (asked[one] == asked[other]) & (said[one] == said[other])
        found: NDArray[np.bool_] = same | (results[one] == results[other]) | (figures[one] != figures[other])
        return found

    return possible


def _verify(corpus: Corpus, of: str, candidates: Pairs) -> Pairs:
    judge = _judge_talks(corpus) if of == "talk" else _judge_prompts(corpus)
    exact = np.zeros(len(candidates), dtype=np.float32)
    whole = candidates.whole
    for k, (one, other) in enumerate(zip(candidates.first.tolist(), candidates.second.tolist(), strict=True)):
        if not k % 256 and corpus.context.deadline.over:
            whole = False
            break
        exact[k] = judge(one, other, float(candidates.likeness[k]))
    kept = exact > 0
    return Pairs(candidates.first[kept], candidates.second[kept], exact[kept], whole)


def _judge_prompts(corpus: Corpus) -> Judge:
    prompts = Texts(corpus, "prompt")
    return lambda one, other, guess: is_near(prompts[one], prompts[other], guess, PROMPT_EDITS)


def _judge_talks(corpus: Corpus) -> Judge:
    """The prompts must be alike, too: one long answer to two short prompts is not one row twice."""
    talks, prompts, results = Texts(corpus, "talk"), Texts(corpus, "prompt"), sketches(corpus).results

    def judge(one: int, other: int, guess: float) -> float:
        found = is_near(talks[one], talks[other], guess)
        if found and other_numbers(prompts[one], prompts[other]) and results[one] != results[other]:
            return 0.0
        return min(found, is_near(prompts[one], prompts[other])) if found else 0.0

    return judge


def _sketch(corpus: Corpus) -> Sketches:
    found = Sketches()
    asked: list[str] = []
    said: list[str] = []
    characters = 0
    for _, row in items(corpus):
        prompt, answer = row.prompt, row.answer
        asked.append(normalise(prompt[:_MAX_TEXT]))
        said.append(normalise(answer[:_MAX_TEXT]))
        characters += len(asked[-1]) + len(said[-1])
        if characters > _BLOCK:
            _add(found, asked, said)
            characters = 0
            if corpus.context.deadline.over:
                found.whole = False
                break
    _add(found, asked, said)
    return found


def _add(found: Sketches, asked: list[str], said: list[str]) -> None:
    """Sketch these rows and empty the lists. A talk's least hashes are the lesser of its parts'."""
    if not asked:
        return
    least = minima(asked)
    found.prompts.extend(signatures(least))
    found.talks.extend(signatures(np.minimum(least, minima(said))))
    for prompt, answer in zip(asked, said, strict=True):
        ours, theirs = numbers(prompt), numbers(answer)
        key = digest(bare(answer) if is_short(answer) else answer)
        result = final(answer)
        found.asked.append(len(prompt))
        found.said.append(len(answer))
        found.asked_numbers.append(digest(" ".join(ours)))
        found.said_numbers.append(digest(" ".join(theirs)))
        found.figures.append(len(ours) + len(theirs))
        found.answers.append(key)
        found.results.append(digest(result) if result else key)
        found.talk_keys.append(digest(f"{key}:{prompt}"))
    for column in (found.asked, found.said, found.asked_numbers, found.said_numbers, found.figures, found.answers,
                   found.results, found.talk_keys):  # fmt: skip
        column.roll()
    asked.clear()
    said.clear()
