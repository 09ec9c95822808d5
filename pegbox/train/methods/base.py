"""What the loop asks of a method."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import torch

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
    """What a micro-batch of S samples cost. All of it stays on the device, which works on meanwhile."""

    losses: torch.Tensor  # (S,): their sum over the step's weight is what is minimised
    told: tuple[torch.Tensor | float, ...]  # the fields of its score, in order; numbers, or scalars of the device

    @classmethod
    def of(cls, losses: torch.Tensor, **told: torch.Tensor | float) -> "Measured":
        """`told` names fields of Score; those left out are nought. The loss is the losses' sum."""
        fields = {"loss": losses.detach().sum(), **told}
        return cls(losses, tuple(fields.get(name, 0.0) for name in Score.__slots__))


def total(measured: Iterable[Measured]) -> Score:
    """The score of them all: the one place that waits for the device."""
    rows = [torch.stack([torch.as_tensor(one, dtype=torch.float64, device=m.losses.device) for one in m.told])
            for m in measured]  # (8,) each  # fmt: skip
    if not rows:
        return Score()
    kinds = map(type, astuple(Score()))
    return Score(*(kind(value) for kind, value in zip(kinds, torch.stack(rows).sum(0).tolist(), strict=True)))


class Method(Protocol):
    def begin(
        self, run: RunDir, model: torch.nn.Module, samples: dict[str, list[Sample]], cut: Cut
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
