"""Prefer one answer to another: direct preference optimization against the model as it was before the first step.

The reference is worked out once, for all pairs, and kept in the run directory: it costs one forward a pair, and no
second model. A pair is one sample, and its two answers share their prompt in the trie.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from pegbox import durable
from pegbox.train import losses
from pegbox.train.batches import Batch
from pegbox.train.methods.base import Cut, Measured
from pegbox.train.rundir import RunDir
from pegbox.train.samples import Sample
from pegbox.train.scoring import Said, say

_KEPT = "reference.json"


@dataclass(frozen=True, slots=True)
class Dpo:
    beta: float

    def begin(
        self, run: RunDir, model: torch.nn.Module, samples: dict[str, list[Sample]], cut: Cut
    ) -> dict[str, list[Sample]]:
        """With the reference's log-probabilities: kept ones, or worked out now, before the first step."""
        path = run.path / _KEPT
        if path.exists():
            kept = json.loads(path.read_text("utf-8"))
        else:
            kept = {which: _answers(model, group, cut) for which, group in samples.items()}
            durable.put(path, json.dumps(kept).encode(), "reference")
        return {
            which: [replace(sample, reference=tuple(pair)) for sample, pair in zip(group, kept[which], strict=True)]
            for which, group in samples.items()
        }

    def weight(self, samples: Iterable[Sample]) -> int:
        return sum(1 for _ in samples)

    def measure(self, said: Said, batch: Batch, samples: Sequence[Sample]) -> Measured:
        policy = losses.of_examples(said.logps, batch.owners, batch.examples).view(-1, 2)  # (S, 2)
        reference = policy.new_tensor([samples[i].reference for i in batch.samples])  # (S, 2)
        cost, rewards = losses.dpo(policy, reference, self.beta)  # (S,), (S, 2)
        rewards = rewards.detach()
        preferred = batch.owners % 2 == 0  # (N,): tokens of chosen answers
        return Measured.of(
            cost,
            weight=len(cost),
            correct=(said.hits & preferred).sum(),
            tokens=preferred.sum(),
            pairs=len(cost),
            wins=(rewards[:, 0] > rewards[:, 1]).sum(),
            chosen=rewards[:, 0].sum(),
            rejected=rewards[:, 1].sum(),
        )

    def row_loss(self, loss: float, sample: Sample) -> float:
        del sample
        return loss


@torch.inference_mode()
def _answers(model: torch.nn.Module, samples: Sequence[Sample], cut: Cut) -> list[list[float]]:
    """Log-probabilities of each sample's two answers."""
    found: dict[int, list[float]] = {}
    for batch in cut(samples):
        of_each = losses.of_examples(say(model, batch).logps, batch.owners, batch.examples)  # (2 S,)
        found |= dict(zip(batch.samples, of_each.view(-1, 2).tolist(), strict=True))
    return [found[i] for i in range(len(samples))]
