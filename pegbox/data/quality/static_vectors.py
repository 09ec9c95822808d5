"""Texts as vectors without running a model: from the base model's own token embeddings, or by model2vec.

A text is the weighted mean of its tokens' vectors (SIF; Arora, Liang and Ma, "A simple but tough-to-beat baseline for
sentence embeddings", 2017): a token weighs a / (a + p), p being its share of this file's tokens; then the rows' mean
and first principal component are taken away.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pegbox.data.quality import token_vectors
from pegbox.data.quality.base import Context

FOLDER = "PEGBOX_STATIC_EMBEDDINGS"  # environment: a model2vec model's folder or hub name
_DIMENSIONS = 128
_WIDE = 1_024  # of wider vectors a random projection comes first
_A = 1e-2  # SIF's; the paper's 1e-3 puts fewer pairs of one intent on top (banking77: 87 % against 92 %)
_KEPT_WORDS = 40_000  # 21 MB
_BASIS = 4_096  # tokens, the most common, that the components are taken from
_MAX_WORDS = 300  # of a text
_BLOCK = 512  # texts, or tokens, together
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def packaged() -> Encode | None:
    """A model2vec model, where one is named and the package is here."""
    named = os.environ.get(FOLDER)
    if not named:
        return None
    try:
        from model2vec import StaticModel  # type: ignore[import-not-found]
    except ImportError:
        return None
    model = StaticModel.from_pretrained(named)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return _unit(np.asarray(model.encode(list(texts)), dtype=np.float32))

    return encode


def fitted(context: Context, read_sample: Callable[[], list[str]]) -> Encode | None:
    """The base model's token embeddings, weighted and centred by a sample of rows that is spread over the file."""
    folder = context.base_folder
    found = token_vectors.find(folder) if folder else None
    tokenizer = _tokenizer(context)
    if found is None or tokenizer is None:
        return None
    sample = read_sample()
    counts = _count(sample, tokenizer, len(found))
    if not counts.any():
        return None
    words = _Words(tokenizer, _weighted(found, counts))
    vectors = words.means(sample)
    centre = vectors.mean(axis=0)
    first = _main_direction(vectors - centre)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = words.means(texts)
        said = rows.any(axis=1, keepdims=True)
        rows -= centre
        rows -= np.outer(rows @ first, first)
        return _unit(rows * said)

    return encode


def _tokenizer(context: Context) -> Tokenizer | None:
    if context.template is not None:
        return context.template.tokenizer
    folder = context.base_folder
    if folder is None or not (folder / "tokenizer.json").exists():
        return None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


def _count(texts: Sequence[str], tokenizer: Tokenizer, vocabulary: int) -> NDArray[np.int64]:
    """How often each token of the vocabulary occurs."""
    words = Counter(word for text in texts for word in text.split())
    tokens, lengths = _tokens(list(words), tokenizer)
    times = np.repeat(np.fromiter(words.values(), dtype=np.int64, count=len(words)), lengths)
    return np.bincount(tokens, times, minlength=vocabulary)[:vocabulary].astype(np.int64)


def _tokens(words: Sequence[str], tokenizer: Tokenizer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of all words one after the other, and how many each has. A space goes before each, for most words
    have one before them."""
    encoded = tokenizer.encode_batch_fast([" " + word for word in words], add_special_tokens=False)
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    ids = chain.from_iterable(one.ids for one in encoded)
    return np.fromiter(ids, dtype=np.int64, count=int(lengths.sum())), lengths


@dataclass(frozen=True, slots=True)
class _Table:
    """The vectors of the tokens that the sample has, times their weights; the weights stand in a last column."""

    places: NDArray[np.int32]  # of each token of the vocabulary; 0: the sample did not have it
    vectors: NDArray[np.float32]  # that of place 0 is nought


class _Words:
    """Texts as means of their tokens' vectors. Each word (what stands between spaces; in a script without them, a
    whole run of text) is encoded once, as long as there is room to remember it."""

    def __init__(self, tokenizer: Tokenizer, table: _Table) -> None:
        self._tokenizer = tokenizer
        self._table = table
        self._places: dict[str, int] = {}
        self._sums = np.zeros((_KEPT_WORDS, table.vectors.shape[1]), dtype=np.float32)

    def means(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, dimensions)."""
        out = np.zeros((len(texts), self._sums.shape[1] - 1), dtype=np.float32)
        for at in range(0, len(texts), _BLOCK):
            split = [text.split()[:_MAX_WORDS] for text in texts[at : at + _BLOCK]]
            self._learn({word for words in split for word in words})
            for i, words in enumerate(split, at):
                if words:
                    total = self._sums[[self._places[word] for word in words]].sum(axis=0)
                    out[i] = total[:-1] / max(total[-1], 1e-9)
        return out

    def _learn(self, words: set[str]) -> None:
        new = sorted(words - self._places.keys())
        if len(self._places) + len(new) > len(self._sums):
            self._places.clear()
            new = sorted(words)
        if not new:
            return
        if len(new) > len(self._sums):
            self._sums = np.zeros((len(new), self._sums.shape[1]), dtype=np.float32)
        tokens, lengths = _tokens(new, self._tokenizer)
        known = np.where(tokens < len(self._table.places), tokens, 0)
        places = np.where(tokens < len(self._table.places), self._table.places[known], 0)
        start = 0
        for word, length in zip(new, lengths.tolist(), strict=True):
            self._sums[len(self._places)] = self._table.vectors[places[start : start + length]].sum(axis=0)
            self._places[word] = len(self._places)
            start += length


def _weighted(found: token_vectors.TokenVectors, counts: NDArray[np.int64]) -> _Table:
    seen = np.flatnonzero(counts)
    seen = seen[np.argsort(-counts[seen], kind="stable")]
    narrow = _narrow(found.dimensions)

    def read(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = found.take(tokens)
        return rows if narrow is None else rows @ narrow

    chosen = seen[:_BASIS]
    wide = np.concatenate([read(chosen[at : at + _BLOCK]) for at in range(0, len(chosen), _BLOCK)])
    centre = wide.mean(axis=0)
    basis = _components(wide - centre, min(_DIMENSIONS, wide.shape[1]))
    places = np.zeros(len(found), dtype=np.int32)
    places[seen] = np.arange(1, len(seen) + 1)
    vectors = np.zeros((len(seen) + 1, basis.shape[1] + 1), dtype=np.float32)
    vectors[1:, -1] = _A / (_A + counts[seen] / counts.sum())
    for at in range(0, len(seen), _BLOCK):
        part = slice(at + 1, at + 1 + len(seen[at : at + _BLOCK]))
        vectors[part, :-1] = (read(seen[at : at + _BLOCK]) - centre) @ basis * vectors[part, -1:]
    return _Table(places, vectors)


def _narrow(dimensions: int) -> NDArray[np.float32] | None:
    """A random projection of wide vectors to fewer dimensions, before the principal components are taken."""
    if dimensions <= _WIDE:
        return None
    drawn = np.random.default_rng(20_260_103).standard_normal((dimensions, _WIDE), dtype=np.float32)
    return drawn / np.float32(_WIDE**0.5)


def _components(rows: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """The first principal components of centred rows, (dimensions, n)."""
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return np.ascontiguousarray(vectors[:, np.argsort(values)[::-1][:n]], dtype=np.float32)


def _main_direction(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first principal component of centred rows, of length one, by power iteration."""
    spread = rows.T @ rows
    found: NDArray[np.float32] = np.ones(len(spread), dtype=np.float32)
    for _ in range(50):
        found = (spread @ found).astype(np.float32)
        found /= np.float32(max(float(np.linalg.norm(found)), 1e-9))
    return found


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
