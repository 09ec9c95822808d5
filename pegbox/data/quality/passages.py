"""Rows of one file that hold passages of another's: about 13 words in a row, as tests for contamination count them.

Of all passages one in sixteen is kept, chosen by its hash, so that both files keep the same ones. Passages that many
training rows share (an instruction, a form letter) tell nothing and are left out.
"""

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality import near
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.forest import Rows
from pegbox.data.quality.shingles import passages
from pegbox.data.quality.text import normalise

SHARED = 0.5  # of a row's passages
_FEWEST = 4  # passages of the sample that a row must have: some 120 letters
_COMMON = 10  # training rows with the same passage, or
_COMMON_SHARE = 0.01  # this share of them, are many


def overlapping(training: Corpus, validation: Corpus) -> Rows:
    """For each validation row a training row that shares half of its passages or more; -1 where none does."""
    twins = np.full(len(validation), -1, dtype=np.int64)
    hashes, rows = _of(training)
    if not len(hashes):
        return twins
    order = np.argsort(hashes, kind="stable")
    hashes, rows = hashes[order], rows[order]
    most = max(_COMMON, int(_COMMON_SHARE * len(training)))
    for i, row in near.items(validation):
        if not i % 256 and training.context.deadline.over:
            break
        told = passages(normalise(row.talk))
        start, end = np.searchsorted(hashes, told), np.searchsorted(hashes, told, side="right")
        counted = end - start <= most
        if np.count_nonzero(counted) >= _FEWEST:
            owners = [rows[a:b] for a, b in zip(start[counted], end[counted], strict=True)]
            values, times = np.unique(np.concatenate(owners), return_counts=True)
            if len(values) and times.max() >= SHARED * np.count_nonzero(counted):
                twins[i] = values[times.argmax()]
    return twins


def _of(corpus: Corpus) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """The kept passages of all rows, and whose they are."""
    hashes, rows = Column(), Column("I")
    for i, row in near.items(corpus):
        for told in passages(normalise(row.talk)).tolist():
            hashes.append(told)
            rows.append(i)
        hashes.roll()
        rows.roll()
        if not i % 256 and corpus.context.deadline.over:
            break
    return hashes.load(), rows.load()
