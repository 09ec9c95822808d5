"""How a step's examples lie in memory, which changes nothing about what is learnt from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pegbox.data.render import Example

_WORTH_SHARING = 8  # tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right. Attention is causal, so no real token ever sees the padding and no mask is
    needed; padded positions predict nothing."""

    tokens: torch.Tensor  # (R, L) int64
    shared: int  # S: the first S tokens of all rows are the same, and none of them predicts; 0: not worth while
    predicts: torch.Tensor  # (R, L) bool: the position whose *next* token is trained
    targets: torch.Tensor  # (N,) int64: those next tokens, in the order of `predicts`


def micro_batches(examples: Sequence[Example], budget: int, *, share: bool = True) -> list[Batch]:
    """Cut examples into batches of at most `budget` padded tokens (or one example, if that is longer).

    Sorted by length, so little is padding. Examples with nothing to predict are left out. `share` lets a batch say
    what its rows begin with in common, which is computed once then.
    """
    batches: list[Batch] = []
    group: list[Example] = []
    for example in sorted((_useful(e) for e in examples), key=lambda e: -len(e.tokens)):
        if not example.n_trained:
            continue
        if group and len(group[0].tokens) * (len(group) + 1) > budget:
            batches.append(collate(group, share=share))
            group = []
        group.append(example)
    if group:
        batches.append(collate(group, share=share))
    return batches


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
    shared = _shared(tokens, predicts) if share else 0
    return Batch(tokens, shared, predicts, torch.tensor(targets, dtype=torch.int64))


def _shared(tokens: torch.Tensor, predicts: torch.Tensor) -> int:
    """How many tokens all rows begin with, up to the first position that predicts."""
    same = (tokens == tokens[0]).all(dim=0) & ~predicts.any(dim=0)  # (L,)
    length = int(same.long().cumprod(0).sum())
    return length if len(tokens) > 1 and length >= _WORTH_SHARING else 0


def _useful(example: Example) -> Example:
    """Without what follows the last trained token: nothing learns from it."""
    last = max((i for i, trained in enumerate(example.trained) if trained), default=-1)
    if last == len(example.tokens) - 1:
        return example
    return Example(example.tokens[: last + 1], example.trained[: last + 1])
