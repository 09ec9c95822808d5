"""The geometry of the page's drawings; how they look is the style sheet's."""

from bisect import bisect_right
from dataclasses import dataclass

from pegbox.data.report import Distribution, FileFacts

WIDTH = 320.0  # of a histogram, in the drawing's own units
HEIGHT = 96.0
_GAP = 1.5
_LEAST = 1.5  # height of a bin that holds any row, so that it is seen


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    label: str  # what it stands for, in words
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    bars: tuple[Bar, ...]
    median: float  # x
    p95: float  # x


def histogram(figures: Distribution) -> Histogram | None:
    """A bin as wide as the next, whatever its edges; None where there is nothing to draw."""
    if not figures.counts or len(figures.edges) != len(figures.counts) + 1 or not max(figures.counts):
        return None
    step, most = WIDTH / len(figures.counts), max(figures.counts)
    bars = []
    for i, n in enumerate(figures.counts):
        height = max(_LEAST, n / most * HEIGHT) if n else 0.0
        label = f"{n:,} from {figures.edges[i]:,.0f} to {figures.edges[i + 1]:,.0f}"
        bars.append(Bar(round(i * step, 2), round(HEIGHT - height, 2), round(step - _GAP, 2), round(height, 2), label))
    return Histogram(tuple(bars), _x(figures, figures.median), _x(figures, figures.p95))


def _x(figures: Distribution, value: float) -> float:
    """Where a value stands on the axis."""
    last = len(figures.counts) - 1
    i = min(max(bisect_right(figures.edges, value) - 1, 0), last)
    start, end = figures.edges[i], figures.edges[i + 1]
    within = min(max((value - start) / (end - start), 0.0), 1.0) if end > start else 0.0
    return round((i + within) * WIDTH / (last + 1), 2)


def accounting(facts: FileFacts) -> tuple[Bar, ...]:
    """Every row of the file in one bar of width 1,000: used, then refused by reason. What is there is seen."""
    parts = [("used", facts.used), *((reason, n) for reason, n in facts.refused.items())]
    parts = [(reason, n) for reason, n in parts if n]
    total = sum(n for _, n in parts)
    widths = [max(6.0, 1000 * n / total) for _, n in parts]
    x, bars = 0.0, []
    for i, ((reason, n), width) in enumerate(zip(parts, widths, strict=True)):
        wide = width * 1000 / sum(widths)
        kind = "used" if reason == "used" else f"refused-{min(i, 3)}"
        gap = 2 if i < len(parts) - 1 else 0
        bars.append(Bar(round(x, 2), 0, round(max(1.0, wide - gap), 2), 12, f"{n:,} {reason}", kind))
        x += wide
    return tuple(bars)
