"""How a step's examples lie in memory, which changes nothing about what is learnt from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pegbox.data import layout
from pegbox.data.render import Example


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right. Attention is causal, so no real token ever sees the padding and no mask is
    needed; padded positions predict nothing."""

    tokens: torch.Tensor  # (R, L) int64
    shared: int  # S: the first S tokens of all rows are the same, and none of them predicts; 0: not worth while
    predicts: torch.Tensor  # (R, L) bool: the position whose *next* token is trained
    targets: torch.Tensor  # (N,) int64: those next tokens, in the order of `predicts`


def micro_batches(examples: Sequence[Example], budget: int, *, share: bool = True) -> list[Batch]:
    """Cut examples into batches of at most `budget` padded tokens, as `layout.groups` does. `share` lets a batch say
    what its rows begin with in common, which is computed once then."""
    return [collate(group, share=share) for group in layout.groups(examples, budget)]


def collate(group: Sequence[Example], *, share: bool = True) -> Batch:
    length = max(len(example.tokens) for example in group)
    tokens = torch.zeros(len(group), length, dtype=torch.int64)
    predicts = torch.zeros(len(group), length, dtype=torch.bool)
    targets: list[int] = []
    for row, example in enumerate(group):
        size = len(example.tokens)
        tokens[row, :size] = torch.tensor(example.tokens)
        predicts[row, : size - 1] = torch.tensor(example.trained[1:], dtype=torch.bool)
        targets.extend(t for t, trained in zip(example.tokens[1:], example.trained[1:], strict=True) if trained)
    shared = layout.shared(group) if share else 0
    return Batch(tokens, shared, predicts, torch.tensor(targets, dtype=torch.int64))
