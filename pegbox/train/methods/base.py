"""What the loop asks of a method."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from peft import PeftModel

from pegbox.train.batches import Batch
from pegbox.train.rundir import RunDir
from pegbox.train.samples import Sample
from pegbox.train.scoring import Said

Cut = Callable[[Sequence[Sample]], list[Batch]]  # samples into micro-batches


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over samples; the properties are the means that users see. `weight` divides the loss."""

    loss: float = 0.0  # nats
    weight: int = 0  # trained tokens, or pairs
    correct: int = 0  # tokens whose most likely prediction is right
    tokens: int = 0  # those looked at for `correct`
    pairs: int = 0
    wins: int = 0  # pairs whose chosen answer has the higher reward
    chosen: float = 0.0  # rewards
    rejected: float = 0.0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.loss + other.loss, self.weight + other.weight, self.correct + other.correct,
            self.tokens + other.tokens, self.pairs + other.pairs, self.wins + other.wins,
            self.chosen + other.chosen, self.rejected + other.rejected,
        )  # fmt: skip

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weight

    @property
    def accuracy(self) -> float:
        return self.correct / self.tokens

    @property
    def margin(self) -> float | None:
        return (self.chosen - self.rejected) / self.pairs if self.pairs else None

    @property
    def reward_accuracy(self) -> float | None:
        return self.wins / self.pairs if self.pairs else None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a micro-batch of S samples cost."""

    losses: torch.Tensor  # (S,): their sum over the step's weight is what is minimised
    score: Score


class Method(Protocol):
    def begin(
        self, run: RunDir, model: PeftModel, samples: dict[str, list[Sample]], cut: Cut
    ) -> dict[str, list[Sample]]:
        """Once, before the first step: the samples of each file ("train", "valid"), with all that the loss needs."""
        ...

    def weight(self, samples: Iterable[Sample]) -> int:
        """What the sum of these samples' losses is divided by."""
        ...

    def measure(self, said: Said, batch: Batch, samples: Sequence[Sample]) -> Measured:
        """The losses of a micro-batch, in the order of `batch.samples`, which index `samples`."""
        ...

    def row_loss(self, loss: float, sample: Sample) -> float:
        """A sample's loss as users compare it between rows: a mean over its tokens, or its pair's."""
        ...
