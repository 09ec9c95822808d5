"""How long a job would take on this machine and how much memory, learnt from the jobs that it has finished.

A job's work is counted in trained tokens' worth of computing: a token that goes through forward and backward is 1, one
that is only scored is a third. Seconds per unit of work is what is learnt: from jobs with the same base model, else
from other bases by their size, else from a product of two matrices.
"""

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pegbox.data import trie
from pegbox.data.formats import Record
from pegbox.data.render import Example, examples, truncate
from pegbox.data.report import Estimate
from pegbox.data.template import Template

_BATCHES = 24  # drawn to see what rows share
_STARTUP_SECONDS = 8.0  # to import torch and load the weights
_SCORING = 1 / 3  # of a trained token's work
# Of a parameter for a trained token: two forward, two backward where the base's weights get no gradient, else four.
_OPERATIONS = {"adapter": 4, "all": 6}
_EFFICIENCY = 0.45  # of the machine's matrix product
_STATE = {"adapter": 4, "all": 18}  # bytes a parameter
_LEARNT_FROM = 50  # of the newest jobs
# Standard deviations of the logarithm of seconds per unit of work, as guessed before the first job.
_SPREAD_SAME, _SPREAD_OTHER, _SPREAD_GUESS = 0.2, 0.35, 0.6
_NINETY = 1.645  # standard deviations on either side hold 90 %


@dataclass(frozen=True, slots=True)
class Timing:
    """A job that ended well and was not interrupted."""

    base: str  # fingerprint of its weights
    parameters: int
    threads: int
    work: float
    seconds: float  # from the weights being there to the end
    peak_bytes: int  # of the training process
    weights: str = "adapter"  # what it learnt


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the base and of this machine's past."""

    base: str  # fingerprint
    parameters: int
    threads: int
    timings: tuple[Timing, ...] = ()
    weights: str = "adapter"  # what the job is to learn


@dataclass(frozen=True, slots=True)
class Load:
    """What a job will compute."""

    tokens_per_epoch: int  # of the rows, cut at the limit
    computed_per_epoch: int  # with shared beginnings once
    epochs: int
    steps: int
    scored: int  # tokens that are scored: the held-out rows at step 0 and after each epoch, and small looks between

    @property
    def work(self) -> float:
        return self.computed_per_epoch * self.epochs + self.scored * _SCORING


def load_timings(path: Path) -> tuple[Timing, ...]:
    """The newest jobs of this machine. What can't be read is passed over: it costs an estimate some of its basis."""
    if not path.exists():
        return ()
    found = []
    for line in path.read_text("utf-8").splitlines()[-_LEARNT_FROM:]:
        try:
            found.append(Timing(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return tuple(found)


def save_timing(path: Path, timing: Timing) -> None:
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(timing)) + "\n")


def sharing(records: Sequence[Record], template: Template, *, limit: int, batch_size: int, budget: int) -> float:
    """Tokens computed for each token of the rows: below 1 where rows share their beginnings. From a few batches drawn
    at random from these rows, laid out as the trainer does."""
    draw = random.Random(0)  # noqa: S311 - shuffling is no cryptography
    tokens = computed = 0
    for _ in range(_BATCHES if records else 0):
        batch: list[Example] = []
        for record in draw.sample(records, min(batch_size, len(records))):
            batch += [truncate(example, limit) for example in examples(record, template)]
        tokens += sum(len(example.tokens) for example in batch)
        computed += sum(len(trie.build([batch[i] for i in group]).tokens) for group in trie.cut(batch, budget))
    return computed / tokens if tokens else 1.0


def estimate(load: Load, machine: Machine, *, micro_batch_tokens: int) -> Estimate:
    """Seconds with a 90 % interval, and peak memory."""
    rate, spread, jobs, basis = _rate(machine)
    middle = load.work * rate
    wide = math.exp(_NINETY * spread)
    return Estimate(
        tokens_per_epoch=load.tokens_per_epoch,
        computed_per_epoch=load.computed_per_epoch,
        seconds=_STARTUP_SECONDS + middle,
        seconds_low=_STARTUP_SECONDS + middle / wide,
        seconds_high=_STARTUP_SECONDS + middle * wide,
        peak_bytes=_peak(machine, micro_batch_tokens),
        jobs=jobs,
        basis=basis,
    )


def _rate(machine: Machine) -> tuple[float, float, int, str]:
    """Seconds a unit of work, its spread, from how many jobs, and that in words."""
    mine = [t for t in machine.timings if t.threads == machine.threads and t.weights == machine.weights]
    alike = [t for t in mine if t.work > 0 and t.seconds > 0]
    same = [t for t in alike if t.base == machine.base]
    if same:
        logs = [math.log(t.seconds / t.work) for t in same]
        middle, spread = _middle(logs, _SPREAD_SAME)
        return math.exp(middle), spread, len(same), f"Learnt from {_jobs(len(same))} with this base on this machine"
    if alike:
        logs = [math.log(t.seconds / t.work / t.parameters) for t in alike]
        middle, spread = _middle(logs, _SPREAD_OTHER)
        basis = f"Learnt from {_jobs(len(alike))} with other bases on this machine, by their size"
        return math.exp(middle) * machine.parameters, spread, len(alike), basis
    seconds = _OPERATIONS[machine.weights] * machine.parameters / (_EFFICIENCY * matrix_speed())
    basis = "No job has finished on this machine yet: guessed from the model's size and the speed of a matrix product"
    return seconds, _SPREAD_GUESS, 0, basis


def _middle(logs: Sequence[float], before: float) -> tuple[float, float]:
    """Mean, and the standard deviation of a new value about it; the spread guessed `before` counts as one job."""
    n = len(logs)
    middle = sum(logs) / n
    variance = (before**2 + sum((x - middle) ** 2 for x in logs)) / n
    return middle, math.sqrt(variance * (1 + 1 / n))


def _jobs(n: int) -> str:
    return "one finished job" if n == 1 else f"{n} finished jobs"


def _peak(machine: Machine, micro_batch_tokens: int) -> int:
    """Bytes. A past job with this base knows best; else weights in fp32 (and, where they
    learn, gradients, moments and a working copy) and about a megabyte of activations a token
    for 135M parameters, growing with layers times width, which is the two-thirds power of the parameters."""
    mine = [t for t in machine.timings if t.base == machine.base and t.weights == machine.weights]
    same = [t.peak_bytes for t in mine if t.peak_bytes]
    if same:
        return max(same)
    activations = 1.0e6 * (machine.parameters / 135e6) ** (2 / 3) * micro_batch_tokens
    return int(0.4e9 + _STATE[machine.weights] * machine.parameters + activations)


def matrix_speed() -> float:
    """Operations a second of a single-precision matrix product, as large as a model's."""
    a = np.ones((1_024, 1_024), dtype=np.float32)
    a @ a  # the first one wakes the threads
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 1_024**3 / best
