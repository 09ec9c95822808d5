"""The figures of two sides of a comparison, and what is said of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sides import Plan, Side

WARM_UP = 1  # steps


@dataclass(frozen=True)
class Figures:
    """One side: medians over its runs, of the timed steps where nothing else is said."""

    examples_per_second: float
    tokens_per_second_as_if_unshared: float
    trained_tokens_per_second: float
    tokens_computed: int  # in all timed steps, padding included
    gflops: float  # operations executed, a second
    share_of_ceiling: float  # of plain matrix products at the model's shapes
    dtype: str
    peak_mb: float  # resident memory of the whole process, the largest of the runs
    start_seconds: float  # before the first step: loading, references, our first evaluation
    whole_seconds: float  # of the process after its imports
    last_loss: float


@dataclass(frozen=True)
class Versus:
    """Both sides, and how they were measured."""

    task: str
    ours: Figures
    theirs: Figures
    setting: str  # TRL's
    ratios: list[float]  # of each pair of runs
    precompute_seconds: float  # of TRL's reference log-probabilities, before its steps
    largest_loss_difference: float  # nats
    ceiling_gflops: dict[str, float]  # by dtype
    losses: dict[str, list[float]]  # of every step of the first runs
    rows_timed: int
    batch: int
    cores: int
    model: str
    unshared_tokens: int
    trained_tokens: int
    versions: object
    machine: str

    @property
    def ratio(self) -> float:
        return self.ours.examples_per_second / self.theirs.examples_per_second


def figures(
    runs: Sequence[Side], work: Plan, rows: int, operations: int, computed: int, dtype: str, top: Mapping[str, float]
) -> Figures:
    """`operations` are those of the timed steps, `top` operations a second by dtype."""
    seconds = statistics.median(run.seconds(WARM_UP) for run in runs)
    return Figures(
        examples_per_second=rows / seconds,
        tokens_per_second_as_if_unshared=work.unshared / seconds,
        trained_tokens_per_second=work.predicted / seconds,
        tokens_computed=computed,
        gflops=operations / seconds / 1e9,
        share_of_ceiling=operations / seconds / top[dtype],
        dtype=dtype,
        peak_mb=max(run.peak_bytes for run in runs) / 2**20,
        start_seconds=statistics.median(run.start_seconds for run in runs),
        whole_seconds=statistics.median(run.whole_seconds for run in runs),
        last_loss=runs[0].losses[-1],
    )


def lines(said: Versus) -> list[str]:
    """For people to read."""
    out = [f"plain matrix products, {dtype}: {speed:,.0f} GFLOP/s" for dtype, speed in said.ceiling_gflops.items()]
    out.append(f"{'':34}{'pegbox':>14} {'TRL':>14}")
    for key, value in asdict(said.ours).items():
        out.append(f"{key.replace('_', ' '):34}{_shown(value):>14} {_shown(getattr(said.theirs, key)):>14}")
    if said.precompute_seconds:
        out.append(f"TRL's reference log-probabilities, before its steps: {said.precompute_seconds:.1f} s")
    both = {said.ours.dtype, said.theirs.dtype} == {"fp32"}
    note = "" if both else " (not both in fp32; bf16 keeps three digits, so rounding alone moves a loss by hundredths)"
    out.append(f"largest difference of a step's loss: {said.largest_loss_difference:.1e} nats{note}")
    fewer = said.theirs.tokens_computed / said.ours.tokens_computed
    out.append(
        f"of the ratio, {fewer:.2f} is tokens not computed (shared or padding), {said.ratio / fewer:.2f} the rest"
    )
    return [*out, *(f"where we lose: {sentence}" for sentence in losing(said))]


def losing(said: Versus) -> list[str]:
    """Every figure in which TRL does better, in words."""
    more = {"examples_per_second": "examples a second", "share_of_ceiling": "share of the machine's matrix product"}
    less = {
        "peak_mb": "peak memory in MB",
        "start_seconds": "seconds before the first step",
        "whole_seconds": "seconds of all",
    }
    found = []
    for key, words in (more | less).items():
        ours, theirs = getattr(said.ours, key), getattr(said.theirs, key)
        if (ours < theirs) == (key in more) and ours != theirs:
            found.append(f"{words}: {_shown(ours)}, TRL {_shown(theirs)}")
    return found or ["in none of these figures"]


def rounded(value: object) -> object:
    """Six digits are more than was measured."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
