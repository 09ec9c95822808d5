"""Losses, as pure functions of a model and a batch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from pegbox.train.batches import Batch


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over trained tokens; divide by `tokens` for the means that users see."""

    nll: float  # nats
    correct: int  # tokens whose most likely prediction is right
    tokens: int

    @property
    def loss(self) -> float:
        return self.nll / self.tokens

    @property
    def accuracy(self) -> float:
        return self.correct / self.tokens

    def __add__(self, other: "Score") -> "Score":
        return Score(self.nll + other.nll, self.correct + other.correct, self.tokens + other.tokens)


NOTHING = Score(0.0, 0, 0)


def supervised(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of the trained tokens, and how many were predicted right (scalars).

    Logits are made at trained positions only: most of a chat row is context, and V is large.
    """
    out = model(input_ids=batch.tokens, logits_to_keep=batch.predicts, use_cache=False)
    logits = out.logits.float().view(len(batch.targets), -1)  # (N, V)
    nll = F.cross_entropy(logits, batch.targets, reduction="sum")
    correct = (logits.detach().argmax(-1) == batch.targets).sum()
    return nll, correct


@torch.inference_mode()
def evaluate(model: torch.nn.Module, batches: Iterable[Batch]) -> Score:
    """The score of a model as it is."""
    total = NOTHING
    for batch in batches:
        nll, correct = supervised(model, batch)
        total += Score(nll.item(), int(correct.item()), len(batch.targets))
    return total
