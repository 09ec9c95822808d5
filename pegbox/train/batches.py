"""How a step's examples lie in memory, which changes nothing about what is learnt from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pegbox.data import trie
from pegbox.data.render import Example
from pegbox.train.attention import Layout, layout


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: examples as a trie of T tokens, with N predictions."""

    tokens: torch.Tensor  # (1, T) int64
    positions: torch.Tensor  # (1, T) int64: each token's depth
    rows: torch.Tensor  # (N,) int64: the positions that predict
    targets: torch.Tensor  # (N,) int64: the tokens to predict there
    owners: torch.Tensor  # (N,) int64: the example that a prediction is learnt for, as an index into the step's
    layout: Layout
    unshared: int  # tokens that example by example would compute


def micro_batches(examples: Sequence[Example], budget: int, *, together: bool = True) -> list[Batch]:
    """Cut a step's examples into micro-batches of at most `budget` laid-out tokens (or one example, if that is
    longer). Examples with nothing to predict are left out. Not `together`: each example by itself, as models need
    whose attention is of another kind."""
    groups = trie.cut(examples, budget if together else 1)
    return [collate(examples, group) for group in groups]


def collate(examples: Sequence[Example], group: Sequence[int]) -> Batch:
    """Some of a step's examples, by index, as one batch."""
    laid = trie.build([examples[i] for i in group])
    return Batch(
        tokens=torch.from_numpy(laid.tokens)[None],
        positions=torch.from_numpy(laid.depths)[None],
        rows=torch.from_numpy(laid.rows),
        targets=torch.from_numpy(laid.targets),
        owners=torch.tensor(group)[torch.from_numpy(laid.owners)],
        layout=layout(laid),
        unshared=laid.unshared,
    )
