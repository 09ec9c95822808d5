"""What the trainer attests at a run's end: the shapes of `evidence.json`. Torch-free, because the server reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Part:
    """One example of a sampled row, as it was learnt."""

    tokens: list[int]  # T ids
    trained: list[int]  # N positions that are learnt, ascending
    tuned: list[float]  # N log-probabilities (nats) of those tokens, with the adapter
    base: list[float]  # N the same without it: what the engine's base gives


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that was looked at closely."""

    file: str  # "train" or "valid"
    row: int  # its index in that file, from 0
    parts: list[Part]  # one; several where the template rewrites earlier turns; of a preference, the chosen answer


@dataclass(frozen=True, slots=True)
class Counts:
    """What the trainer read out of one of its files."""

    rows: int = 0  # that gave an example
    examples: int = 0
    split: int = 0  # rows that gave several
    strangers: int = 0  # examples that are no row of the file
    tokens: int = 0  # of all examples
    trained: int = 0  # of these, learnt
    cut: int = 0  # examples that fill the limit to the last token


@dataclass(frozen=True, slots=True)
class Stop:
    """Whether answers end: of the training examples, and of what the model gives where an answer ends."""

    ends: int = 0  # training examples whose answer is whole
    labelled: int = 0  # of these, with the stop token among what is learnt
    measured: int = 0  # answer ends where the model was asked
    tuned: float | None = None  # mean probability that it stops there
    base: float | None = None  # the same without the adapter


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run did. Written once, at the end of a run that succeeded."""

    step: int  # of the adapter that it speaks of
    checkpoint: str  # its folder's name
    train: Counts
    valid: Counts
    stop: Stop
    samples: list[Sample]
    scored: str  # "validation" or "training": the rows that `before` and `after` are losses of
    before: float | None  # at step 0
    after: float | None  # at the end; of training rows, the mean of the last epoch's steps
    method: str
    dtype: str  # of the frozen weights
    threads: int
    seed: int
    seconds: float  # that gathering took
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)  # sha256 by file name

    @classmethod
    def from_json(cls, values: dict[str, object]) -> "Evidence":
        """The inverse of `asdict`."""
        samples = [
            Sample(**{**sample, "parts": [Part(**part) for part in sample["parts"]]})
            for sample in values["samples"]  # type: ignore[attr-defined]
        ]
        nested = {
            "train": Counts(**values["train"]),  # type: ignore[arg-type]
            "valid": Counts(**values["valid"]),  # type: ignore[arg-type]
            "stop": Stop(**values["stop"]),  # type: ignore[arg-type]
            "samples": samples,
        }
        return cls(**{**values, **nested})  # type: ignore[arg-type]
