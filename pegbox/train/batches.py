"""How a step's examples lie in memory, which changes nothing about what is learnt from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pegbox.data.render import Example


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right. Attention is causal, so no real token ever sees the padding and no mask is
    needed; padded positions predict nothing."""

    tokens: torch.Tensor  # (R, L) int64
    predicts: torch.Tensor  # (R, L) bool: the position whose *next* token is trained
    targets: torch.Tensor  # (N,) int64: those next tokens, in the order of `predicts`


def micro_batches(examples: Sequence[Example], budget: int) -> list[Batch]:
    """Cut examples into batches of at most `budget` padded tokens (or one example, if that is longer).

    Sorted by length, so little is padding. Examples with nothing to predict are left out.
    """
    batches: list[Batch] = []
    group: list[Example] = []
    for example in sorted((_useful(e) for e in examples), key=lambda e: -len(e.tokens)):
        if not example.n_trained:
            continue
        if group and len(group[0].tokens) * (len(group) + 1) > budget:
            batches.append(collate(group))
            group = []
        group.append(example)
    if group:
        batches.append(collate(group))
    return batches


def collate(group: Sequence[Example]) -> Batch:
    length = max(len(example.tokens) for example in group)
    tokens = torch.zeros(len(group), length, dtype=torch.int64)
    predicts = torch.zeros(len(group), length, dtype=torch.bool)
    targets: list[int] = []
    for row, example in enumerate(group):
        size = len(example.tokens)
        tokens[row, :size] = torch.tensor(example.tokens)
        predicts[row, : size - 1] = torch.tensor(example.trained[1:], dtype=torch.bool)
        targets.extend(t for t, trained in zip(example.tokens[1:], example.trained[1:], strict=True) if trained)
    return Batch(tokens, predicts, torch.tensor(targets, dtype=torch.int64))


def _useful(example: Example) -> Example:
    """Without what follows the last trained token: nothing learns from it."""
    last = max((i for i, trained in enumerate(example.trained) if trained), default=-1)
    if last == len(example.tokens) - 1:
        return example
    return Example(example.tokens[: last + 1], example.trained[: last + 1])
