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
    logits = (_shared_logits if batch.shared else _plain_logits)(model, batch).float()  # (N, V)
    nll = F.cross_entropy(logits, batch.targets, reduction="sum")
    correct = (logits.detach().argmax(-1) == batch.targets).sum()
    return nll, correct


def _plain_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    out = model(input_ids=batch.tokens, logits_to_keep=batch.predicts, use_cache=False)
    return out.logits.view(len(batch.targets), -1)  # (N, V)


def _shared_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The same, with what all rows begin with (their system prompt, as a rule) computed once.

    Attention is causal, so keys and values of a common beginning are the same in every row; gradients flow back
    through them from all rows. This is exact, to rounding.
    """
    rows, s = len(batch.tokens), batch.shared
    cache = model(input_ids=batch.tokens[:1, :s], use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(rows)
    out = model(
        input_ids=batch.tokens[:, s:],  # (R, L - S)
        past_key_values=cache,
        logits_to_keep=batch.predicts[:, s:],
        use_cache=True,
    )
    return out.logits.view(len(batch.targets), -1)  # (N, V)


def sharing_is_exact(model: torch.nn.Module, batches: Iterable[Batch]) -> bool:
    """Whether this model gives the same losses both ways on the first batch that shares; True if none does.

    Recurrent layers, sliding windows and caches of a model's own making may not.
    """
    batch = next((b for b in batches if b.shared), None)
    if batch is None:
        return True
    with torch.inference_mode():
        try:
            shared = _shared_logits(model, batch).float().log_softmax(-1)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False  # no cache, or one that can't be repeated
        plain = _plain_logits(model, batch).float().log_softmax(-1)
        return bool(torch.allclose(shared, plain, atol=1e-3))


@torch.inference_mode()
def evaluate(model: torch.nn.Module, batches: Iterable[Batch]) -> Score:
    """The score of a model as it is."""
    total = NOTHING
    for batch in batches:
        nll, correct = supervised(model, batch)
        total += Score(nll.item(), int(correct.item()), len(batch.targets))
    return total
