"""Loss curves over one another, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

_COLOURS = ("#4269d0", "#ff8a3d", "#2f9e6e")


def draw(picture: Path, title: str, curves: Mapping[str, Sequence[float]]) -> None:
    """One line a name, by step from 1; each thinner than the one before, so that equal curves are all seen."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(curves.items()):
        steps = range(1, len(values) + 1)
        axes.plot(
            steps, values, color=_COLOURS[i % 3], linewidth=max(1.2, 5 - 3 * i), label=name, marker="o", markersize=3
        )
    axes.set_title(title, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
