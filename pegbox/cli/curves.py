"""One picture of a job: how loss and token accuracy went, step by step; of a dpo job, loss and rewards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pegbox.cli import screen
from pegbox.cli.metrics import Point

_TRAIN, _VALID, _FULL = "#4269d0", "#ff8a3d", "#c2410c"
_INK, _GREY = "#22262e", "#7b828f"


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    figure: str  # train_…, valid_… and full_valid_… of a point
    legend: str  # its place
    is_share: bool = False
    is_signed: bool = False  # may be below zero


_SUPERVISED = (
    Panel("Loss", "nats per learnt token", "loss", "upper right"),
    Panel("Token accuracy", "share of learnt tokens predicted right", "mean_token_accuracy", "lower right", True),
)
_PREFERENCE = (
    Panel("Loss", "nats per pair; 0.69 before training", "loss", "upper right"),
    Panel("Reward accuracy", "share of pairs whose better answer won", "reward_accuracy", "lower right", True),
    Panel("Reward margin", "better answer's reward less the other's", "reward_margin", "upper left", is_signed=True),
)


def draw(picture: Path, title: str, points: Sequence[Point], *, model_step: int | None = None) -> None:
    """Draw the curves as a PNG. `model_step` marks the step that a checkpoint was taken at."""
    from matplotlib.figure import Figure  # drawn without a window; here because it takes a second to load
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.05)
    drawn = _PREFERENCE if any(p.train_reward_margin is not None for p in points) else _SUPERVISED
    figure = Figure(figsize=(6 * len(drawn), 5), dpi=130, facecolor="white", layout=layout)
    figure.suptitle(screen.one_line(title), fontsize=13, fontweight="bold", color=_INK, parse_math=False)
    for axes, panel in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        _series(axes, points, *(f"{rows}_{panel.figure}" for rows in ("train", "valid", "full_valid")))
        if model_step is not None:
            axes.axvline(model_step, color=_INK, linewidth=1, linestyle="--", label=f"this model, step {model_step}")
        axes.set_title(panel.title, loc="left", fontsize=12, color=_INK, pad=22)
        axes.text(0, 1.03, panel.unit, transform=axes.transAxes, fontsize=9, color=_GREY)
        axes.set_xlabel("step", color=_GREY)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#e6e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#c4c9d2")
        axes.tick_params(colors=_GREY, length=0, labelsize=9.5)
        last = max((p.step for p in points), default=1)
        axes.set_xlim(-0.02 * last, 1.02 * last)
        if panel.is_share:
            axes.set_ylim(0, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        elif not panel.is_signed:
            axes.set_ylim(bottom=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc=panel.legend, frameon=False, fontsize=9.5, labelcolor=_INK)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


def _series(axes: Any, points: Sequence[Point], train: str, valid: str, full: str) -> None:
    """Each step of training faint, its running mean strong; validation above them."""
    steps, values = _known(points, train)
    if values:
        axes.plot(steps, values, color=_TRAIN, alpha=0.28, linewidth=1.1)
        dot = "o" if len(values) == 1 else None  # a line of one step could not be seen
        mean = _running_mean(values)
        axes.plot(steps, mean, color=_TRAIN, linewidth=2, marker=dot, label="training (running mean)")
    steps, values = _known(points, valid)
    if values:
        axes.plot(
            steps,
            values,
            color=_VALID,
            linewidth=1.2,
            marker="o",
            markersize=3.5,
            alpha=0.9,
            label="validation, some rows",
        )
    steps, values = _known(points, full)
    if values:
        axes.plot(
            steps, values, color=_FULL, linewidth=1.1, linestyle=":", marker="D", markersize=6.5,
            markeredgecolor="white", label="validation, all rows", clip_on=False,
        )  # fmt: skip


def _known(points: Sequence[Point], name: str) -> tuple[list[int], list[float]]:
    found = [(p.step, value) for p in points if (value := getattr(p, name)) is not None]
    return [step for step, _ in found], [value for _, value in found]


def _running_mean(values: Sequence[float]) -> list[float]:
    """Over a tenth of the curve around each step, narrower towards the ends so that these stay where they are."""
    reach = max(1, len(values) // 20)
    means = []
    for i in range(len(values)):
        side = min(reach, i, len(values) - 1 - i)
        window = values[i - side : i + side + 1]
        means.append(sum(window) / len(window))
    return means
