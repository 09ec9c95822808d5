"""Prompts that mean the same in other words, by static embeddings: no model is run.

Vectors come from static_vectors.py. Like rows are found by the signs of random projections (Charikar's SimHash, 2002)
and held against the vectors themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality import near
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.forest import Pairs, Rows, Search, Table
from pegbox.data.quality.forest import pairs as search
from pegbox.data.quality.static_vectors import Encode, fitted, packaged
from pegbox.data.quality.text import normalise

# The cosine from which two prompts are taken for paraphrases: of banking77's 3,000 pairs above it, 92 % share their
# intent; gsm8k, whose problems all differ, has but one.
SAME_MEANING = 0.85
_MAX_CHARACTERS = 2_000  # of a prompt
_BLOCK = 512  # rows
_SAMPLE = 4_096  # rows that means and weights are taken from
_BITS = 1_024  # of a row's signs
_SEARCH = Search(prefix=10, window=8, least=SAME_MEANING - 0.05)


@dataclass(frozen=True, slots=True)
class Vectors:
    """One of each row, of length one; 0 where there is nothing to go by."""

    table: Table  # float16
    signs: Table  # _BITS bits

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: Rows) -> NDArray[np.float32]:
        """(rows, dimensions)."""
        return self.table.take(rows).view(np.float16).astype(np.float32)


def prompt_pairs(corpus: Corpus) -> Pairs | None:
    """Rows whose prompts mean the same, with their cosine. Numbers are the same on both sides. Of rows with equal
    prompts and answers only the first stands here. None where no base model is named, or its embeddings can't be
    read."""
    name = "prompts that mean the same"
    if name not in corpus.kept:
        vectors = of_prompts(corpus)
        corpus.kept[name] = None if vectors is None else _find(corpus, vectors)
    found: Pairs | None = corpus.kept[name]
    return found


def of_prompts(corpus: Corpus) -> Vectors | None:
    """The vectors of a file's prompts."""
    if "vectors" not in corpus.kept:
        encode = encoder(corpus)
        corpus.kept["vectors"] = None if encode is None else embed(corpus, encode)
    found: Vectors | None = corpus.kept["vectors"]
    return found


def encoder(corpus: Corpus) -> Encode | None:
    """From normalised texts to vectors, fitted to this file; kept."""
    if "encoder" not in corpus.kept:
        corpus.kept["encoder"] = packaged() or fitted(corpus.context, lambda: _sample(corpus))
    found: Encode | None = corpus.kept["encoder"]
    return found


def embed(corpus: Corpus, encode: Encode) -> Vectors | None:
    """All prompts of a file."""
    vectors: Vectors | None = None
    planes: NDArray[np.float32] | None = None
    for texts in _blocks(corpus):
        block = encode(texts)
        if vectors is None or planes is None:
            vectors = Vectors(Table(block.shape[1] * 2), Table(_BITS // 8))
            planes = np.random.default_rng(20_260_102).standard_normal((block.shape[1], _BITS), dtype=np.float32)
        vectors.table.extend(block.astype(np.float16).view(np.uint8))
        vectors.signs.extend(np.packbits(block @ planes > 0, axis=1))
        if corpus.context.deadline.over:
            break
    return vectors


def cosines(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of pairs, from the signs: as many differ as the angle is of a half turn. The standard error at 0.9 is 0.015."""
    differing = np.bitwise_count(one.view(np.uint64) ^ other.view(np.uint64)).sum(axis=1)
    found: NDArray[np.float32] = np.cos(np.pi * differing / _BITS).astype(np.float32)
    return found


def _find(corpus: Corpus, vectors: Vectors) -> Pairs:
    known = near.sketches(corpus)
    rows, _ = near.firsts(known.talk_keys.load())
    rows = rows[(known.asked.load()[rows] > 0) & (rows < len(vectors))]
    possible = near.possible_prompts(corpus, known)

    def compare(one: Rows, other: Rows) -> NDArray[np.float32]:
        found = np.zeros(len(one), dtype=np.float32)
        chosen = np.flatnonzero(possible(one, other))
        found[chosen] = cosines(vectors.signs.take(one[chosen]), vectors.signs.take(other[chosen]))
        alike = np.flatnonzero(found >= _SEARCH.least)
        found[alike] = (vectors.take(one[alike]) * vectors.take(other[alike])).sum(axis=1)
        found[found < SAME_MEANING] = 0
        return found

    return search(vectors.signs, rows, compare, _SEARCH, corpus.context.deadline)


def _blocks(corpus: Corpus) -> Iterator[list[str]]:
    texts: list[str] = []
    for _, row in near.items(corpus):
        texts.append(normalise(row.prompt[:_MAX_CHARACTERS]))
        if len(texts) == _BLOCK:
            yield texts
            texts = []
    if texts:
        yield texts


def _sample(corpus: Corpus) -> list[str]:
    every = max(1, -(-len(corpus) // _SAMPLE))
    return [normalise(row.prompt[:_MAX_CHARACTERS]) for i, row in near.items(corpus) if i % every == 0]
