"""Rows that belong together, from pairs of rows that do."""

from collections.abc import Iterable

import numpy as np

from pegbox.data.quality.forest import Rows


def joined(n: int, pairs: Iterable[tuple[Rows, Rows]]) -> Rows:
    """For each of n rows the first row of its group, itself where it stands alone. Groups are the connected parts:
    every row takes the lesser of its own and its neighbours' first rows, until nothing changes."""
    sides = list(pairs)
    one = np.concatenate([first for first, _ in sides]) if sides else np.zeros(0, dtype=np.int64)
    other = np.concatenate([second for _, second in sides]) if sides else np.zeros(0, dtype=np.int64)
    group = np.arange(n, dtype=np.int64)
    while True:
        least = np.minimum(group[one], group[other])
        before = group.copy()
        np.minimum.at(group, before[one], least)
        np.minimum.at(group, before[other], least)
        while not np.array_equal(shorter := group[group], group):
            group = shorter
        if np.array_equal(group, before):
            return group
