"""A prefix trie of examples, laid out for one forward: what examples begin with in common is computed once.

Tokens are laid out depth first. One number a token then says all about visibility: position i sees position j iff
j <= i < end[j], where end[j] is where the subtree below j ends. A token's place in its text is its depth. Attention is
causal, so a shared token's hidden state, keys and values are the same in every example, and the gradients of all of
them flow back through it: the losses and gradients of example by example, to rounding.

    be brief ─┬─ one 1 .           tokens   be brief one 1 two 2
              └─ two 2 .           depth     0     1   2 3   2 3
                                   end       6     6   4 4   6 6

The last token of a text is only predicted, never read, so it is not laid out.

Torch-free: this is planning, for the trainer and for the estimate. The layout is that of tree training (arXiv
2511.00413).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegbox.data.render import Example

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens without a branch: positions start to stop of the layout."""

    start: int
    stop: int
    parent: int  # index of the node above; -1 for a root


@dataclass(frozen=True, slots=True)
class Trie:
    """T laid-out tokens in nodes, N predictions."""

    tokens: Integers  # (T,)
    depths: Integers  # (T,)
    nodes: tuple[Node, ...]  # in the order of the layout, so parents stand before their children
    rows: Integers  # (N,) the position that predicts
    targets: Integers  # (N,) the token to predict there
    owners: Integers  # (N,) whose it is: an index into the examples, ascending
    unshared: int  # tokens that example by example would compute

    @property
    def ends(self) -> Integers:
        """Where the subtree below each token ends, (T,)."""
        stops = [node.stop for node in self.nodes]
        for i in range(len(self.nodes) - 1, -1, -1):
            parent = self.nodes[i].parent
            if parent >= 0:
                stops[parent] = max(stops[parent], stops[i])
        sizes = [node.stop - node.start for node in self.nodes]
        return np.repeat(np.array(stops, dtype=np.int64), sizes)

    def path(self, node: int) -> list[int]:
        """The nodes from the root down to this one, itself included."""
        found: list[int] = []
        while node >= 0:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]


def build(examples: Sequence[Example]) -> Trie:
    """Lay out examples, each up to its last prediction; those with nothing to predict are left out."""
    useful = [_useful(example) for example in examples]
    order = sorted((i for i, tokens in enumerate(useful) if tokens), key=useful.__getitem__)
    tokens: list[int] = []
    depths: list[int] = []
    parents: list[int] = []  # the position before each token, in its text
    places: dict[int, list[int]] = {}  # example → the positions of its tokens
    before = -1  # the example laid out last
    for i in order:
        text = useful[i]
        shared = _common(useful[before], text) if before >= 0 else 0
        place = places[i] = places[before][:shared] if shared else []
        for depth in range(shared, len(text)):
            parents.append(place[-1] if place else -1)
            place.append(len(tokens))
            tokens.append(text[depth])
            depths.append(depth)
        before = i
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for i, text in enumerate(useful):
        example = examples[i]
        for at in range(1, len(text) + 1 if text else 0):
            if example.trained[at]:
                rows.append(places[i][at - 1])
                targets.append(example.tokens[at])
                owners.append(i)
    return Trie(
        _integers(tokens), _integers(depths), _nodes(parents), _integers(rows), _integers(targets), _integers(owners),
        sum(map(len, useful)),
    )  # fmt: skip


def cut(examples: Sequence[Example], budget: int, width: int = 1) -> Iterator[list[int]]:
    """Group samples so that each group's trie has at most `budget` tokens (or holds one sample, if that is longer).

    A sample is `width` examples in a row that stay together, as the two answers of a preference; groups are of
    samples, by index. Like beginnings come together, so sharing is nearly the most that any order gives. Samples with
    nothing to predict are left out.
    """
    useful = [_useful(example) for example in examples]
    samples = [useful[at : at + width] for at in range(0, len(useful), width)]
    order = sorted((i for i, sample in enumerate(samples) if any(sample)), key=samples.__getitem__)
    group: list[int] = []
    size = 0
    for i in order:
        more = _added(samples[group[-1]] if group else [], samples[i])
        if group and size + more > budget:
            yield group
            group, size, more = [], 0, _added([], samples[i])
        group.append(i)
        size += more
    if group:
        yield group


def _added(before: Sequence[list[int]], sample: Sequence[list[int]]) -> int:
    """How many tokens a sample adds to a trie that ends with another one, at most."""
    laid = list(before)
    added = 0
    for text in sample:
        added += len(text) - max((_common(other, text) for other in laid), default=0)
        laid.append(text)
    return added


def _useful(example: Example) -> list[int]:
    """The tokens that lead to the last trained one; none where nothing can be predicted."""
    last = next((i for i in range(len(example.trained) - 1, 0, -1) if example.trained[i]), 0)
    return example.tokens[:last]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _nodes(parents: list[int]) -> tuple[Node, ...]:
    """Runs without a branch."""
    above = _integers(parents)
    children = np.bincount(above[above >= 0], minlength=len(above))
    begins = np.flatnonzero((above < 0) | (children[above] > 1))
    stops = [*begins[1:].tolist(), len(above)] if len(begins) else []
    owner = np.searchsorted(begins, above, side="right") - 1  # -1 for a root's parent
    return tuple(Node(int(b), e, int(owner[b])) for b, e in zip(begins, stops, strict=True))


def _integers(values: Iterable[int]) -> Integers:
    return np.fromiter(values, dtype=np.int64)
