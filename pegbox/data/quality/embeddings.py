"""Prompts that mean the same in other words, by static embeddings: no model is run.

A prompt is the weighted mean of its tokens' vectors (SIF; Arora, Liang and Ma, "A simple but tough-to-beat baseline for
sentence embeddings", 2017): a token weighs a / (a + p), p being its share of this file's tokens; then the rows' mean
and first principal component are taken away. The vectors are the base model's own token embeddings, or a model2vec
model's where that package is installed and PEGBOX_STATIC_EMBEDDINGS names one. Like rows are found by the signs of
random projections (Charikar's SimHash, 2002) and held against the vectors themselves.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pegbox.data.quality import near, token_vectors
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.forest import Pairs, Rows, Search, Table
from pegbox.data.quality.forest import pairs as search
from pegbox.data.quality.text import normalise

# The cosine from which two prompts are taken for paraphrases: of banking77's 3,000 pairs above it, 92 % share their
# intent; gsm8k, whose problems all differ, has but one.
SAME_MEANING = 0.85
FOLDER = "PEGBOX_STATIC_EMBEDDINGS"  # environment: a model2vec model's folder or hub name
_DIMENSIONS = 128
_WIDE = 1_024  # of wider vectors a random projection comes first
_A = 1e-2  # SIF's; the paper's 1e-3 puts fewer pairs of one intent on top (banking77: 87 % against 92 %)
_MAX_CHARACTERS, _MAX_TOKENS = 2_000, 256  # of a prompt
_BLOCK = 1_024  # rows
_SAMPLE = 16_384  # rows that means and weights are taken from
_BASIS = 8_192  # tokens, the most common, that the components are taken from
_BITS = 1_024  # of a row's signs
_SEARCH = Search(prefix=10, window=8, least=SAME_MEANING - 0.05)
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


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
        corpus.kept["encoder"] = _packaged() or _fitted(corpus)
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


# --- where vectors come from ---------------------------------------------------------------------------------


def _packaged() -> Encode | None:
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


def _fitted(corpus: Corpus) -> Encode | None:
    """The base model's token embeddings, weighted and centred by a sample of rows that is spread over the file."""
    folder = corpus.context.base_folder
    found = token_vectors.find(folder) if folder else None
    if folder is None or found is None or not (folder / "tokenizer.json").exists():
        return None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    sample = _sample(corpus)
    tokens, _ = _tokens(sample, tokenizer)
    counts = np.bincount(tokens, minlength=len(found))[: len(found)]
    if not counts.any():
        return None
    table = _weighted(found, counts)

    def means(texts: Sequence[str]) -> NDArray[np.float32]:
        return _means(*_tokens(texts, tokenizer), table)

    vectors = np.concatenate([means(sample[at : at + _BLOCK]) for at in range(0, len(sample), _BLOCK)])
    centre = vectors.mean(axis=0)
    first = _components(vectors - centre, 1)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = means(texts)
        said = rows.any(axis=1, keepdims=True)
        rows -= centre
        rows -= (rows @ first) @ first.T
        return _unit(rows * said)

    return encode


def _sample(corpus: Corpus) -> list[str]:
    every = max(1, -(-len(corpus) // _SAMPLE))
    sample: list[str] = []
    for at, texts in enumerate(_blocks(corpus)):
        sample += texts[-at * _BLOCK % every :: every]
    return sample


def _tokens(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of all texts one after the other, and how many each has. A space goes before each text, so that its
    first word has the token that it has elsewhere."""
    encoded = tokenizer.encode_batch_fast([" " + text for text in texts], add_special_tokens=False)
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    ids = chain.from_iterable(one.ids for one in encoded)
    return np.fromiter(ids, dtype=np.int64, count=int(lengths.sum())), lengths


@dataclass(frozen=True, slots=True)
class _Table:
    """The vectors of the tokens that the sample has, times their weights."""

    places: NDArray[np.int32]  # of each token of the vocabulary; 0: the sample did not have it
    vectors: NDArray[np.float32]  # that of place 0 is nought
    weights: NDArray[np.float32]


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
    weights = np.zeros(len(seen) + 1, dtype=np.float32)
    weights[1:] = _A / (_A + counts[seen] / counts.sum())
    vectors = np.zeros((len(seen) + 1, basis.shape[1]), dtype=np.float32)
    for at in range(0, len(seen), _BLOCK):
        part = slice(at + 1, at + 1 + len(seen[at : at + _BLOCK]))
        vectors[part] = (read(seen[at : at + _BLOCK]) - centre) @ basis * weights[part, None]
    return _Table(places, vectors, weights)


def _narrow(dimensions: int) -> NDArray[np.float32] | None:
    """A random projection of wide vectors to fewer dimensions, before the principal components are taken."""
    if dimensions <= _WIDE:
        return None
    drawn = np.random.default_rng(20_260_103).standard_normal((dimensions, _WIDE), dtype=np.float32)
    return drawn / np.float32(_WIDE**0.5)


def _means(tokens: NDArray[np.int64], lengths: NDArray[np.int64], table: _Table) -> NDArray[np.float32]:
    """The weighted mean of each text's tokens, (texts, dimensions)."""
    out = np.zeros((len(lengths), table.vectors.shape[1]), dtype=np.float32)
    known = np.where(tokens < len(table.places), tokens, 0)
    places = np.where(tokens < len(table.places), table.places[known], 0)
    end = np.cumsum(lengths)
    for i, (start, stop) in enumerate(zip((end - lengths).tolist(), end.tolist(), strict=True)):
        row = places[start:stop]
        weight = table.weights[row].sum()
        if weight:
            out[i] = table.vectors[row].sum(axis=0) / weight
    return out


def _components(rows: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """The first principal components of centred rows, (dimensions, n)."""
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return np.ascontiguousarray(vectors[:, np.argsort(values)[::-1][:n]], dtype=np.float32)


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
