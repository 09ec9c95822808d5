"""A job's curve, read from its events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Point:
    """What is known of one step. Step 0 is the model before training, where only validation has a figure."""

    step: int
    total_steps: int | None = None
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    train_reward_margin: float | None = None  # of dpo, here and below
    train_reward_accuracy: float | None = None
    valid_reward_margin: float | None = None
    valid_reward_accuracy: float | None = None
    full_valid_reward_margin: float | None = None
    full_valid_reward_accuracy: float | None = None


_FIGURES = [field.name for field in fields(Point) if field.name not in ("step", "total_steps")]


def point(data: Mapping[str, object] | None) -> Point | None:
    """An event's data as a point, or None where it measures nothing."""
    step, total = _whole((data or {}).get("step")), _whole((data or {}).get("total_steps"))
    if data is None or step is None:
        return None
    figures = {name: float(value) for name in _FIGURES if isinstance(value := data.get(name), (int, float))}
    return Point(step, total, **figures) if figures else None


def curve(events: Iterable[Mapping[str, object] | None]) -> list[Point]:
    """The points among the events' data, one a step, in order."""
    found = [p for p in map(point, events) if p is not None]
    return [p for _, p in sorted({p.step: p for p in found}.items())]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
