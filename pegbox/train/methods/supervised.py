"""Learn the answers: cross-entropy over the trained tokens, a mean over all of a step's."""

from collections.abc import Iterable, Sequence

import torch

from pegbox.train import losses
from pegbox.train.batches import Batch
from pegbox.train.methods.base import Cut, Measured
from pegbox.train.rundir import RunDir
from pegbox.train.samples import Sample
from pegbox.train.scoring import Said


class Supervised:
    def begin(
        self, run: RunDir, model: torch.nn.Module, samples: dict[str, list[Sample]], cut: Cut
    ) -> dict[str, list[Sample]]:
        del run, model, cut
        return samples

    def weight(self, samples: Iterable[Sample]) -> int:
        return sum(sample.n_trained for sample in samples)

    def measure(self, said: Said, batch: Batch, samples: Sequence[Sample]) -> Measured:
        del samples
        nll = losses.supervised(losses.of_examples(said.logps, batch.owners, batch.examples))  # (S,)
        tokens = len(batch.targets)
        return Measured.of(nll, weight=tokens, correct=said.hits.sum(), tokens=tokens)

    def row_loss(self, loss: float, sample: Sample) -> float:
        return loss / sample.n_trained
