"""Losses, as pure functions of a model and a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from peft import PeftModel

from pegbox.train.attention import UnfitError
from pegbox.train.batches import Batch
from pegbox.train.model import on_trie, use_trie


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


def supervised(model: PeftModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the negative log-likelihoods of the trained tokens, and how many were predicted right (scalars)."""
    logits = predict(model, batch)  # (N, V)
    nll = F.cross_entropy(logits, batch.targets, reduction="sum")
    correct = (logits.detach().argmax(-1) == batch.targets).sum()
    return nll, correct


def predict(model: PeftModel, batch: Batch) -> torch.Tensor:
    """Logits at the positions that predict, (N, V) float32: most of a chat row is context, and V is large."""
    knows = {"trie": batch.layout} if on_trie(model) else {}
    out = model(
        input_ids=batch.tokens,
        position_ids=batch.positions,
        logits_to_keep=batch.rows,
        use_cache=False,
        **knows,
    )
    return out.logits[0].float()


@torch.inference_mode()
def trie_is_exact(model: PeftModel, together: Sequence[Batch], singly: Sequence[Batch]) -> bool:
    """Whether this model predicts the same for examples laid out together and one by one; both are the same examples.

    The trie's attention is in use afterwards, if so; and the model's own, if not.
    """
    plain = _log_probs(model, singly)
    use_trie(model, on=True)
    try:
        exact = torch.allclose(_log_probs(model, together), plain, atol=1e-3)
    except (UnfitError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        exact = False  # another kind of layer, or of attention
    use_trie(model, on=exact)
    return bool(exact)


def _log_probs(model: PeftModel, batches: Sequence[Batch]) -> torch.Tensor:
    """Of every trained token, in the examples' order, (N,)."""
    found = []
    for batch in batches:
        logs = predict(model, batch).log_softmax(-1)  # (N, V)
        found.append(logs.gather(1, batch.targets[:, None])[:, 0])
    order = torch.cat([batch.owners for batch in batches]).argsort(stable=True)
    return torch.cat(found)[order]


@torch.inference_mode()
def evaluate(model: PeftModel, batches: Iterable[Batch]) -> Score:
    """The score of a model as it is."""
    total = NOTHING
    for batch in batches:
        nll, correct = supervised(model, batch)
        total += Score(nll.item(), int(correct.item()), len(batch.targets))
    return total
