"""Which of a job's checkpoints is the best on the held-out rows, which becomes the model, and what is said of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pegbox.jobs.records import Checkpoint
from pegbox.queue.store import Event
from pegbox.train.rundir import StepMetrics

_WORSE = 1.02  # a final loss above this many times the best one is a warning


@dataclass(frozen=True, slots=True)
class Choice:
    step: int  # the model is what the adapter was after this step
    told: tuple[Event, ...]


def best(saved: Iterable[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest full validation loss, of equal ones the earliest; None where nothing was held out."""
    scored = [(c.metrics.full_valid_loss, c.step, c) for c in saved if c.metrics.full_valid_loss is not None]
    return min(scored, key=lambda one: one[:2])[2] if scored else None


def choose(saved: Sequence[Checkpoint], final: StepMetrics, *, early_stop: bool) -> Choice:
    """The model is the final checkpoint, and with early stopping the best one. `final` is the run's last step."""
    found = best(saved)
    lowest = found.metrics.full_valid_loss if found else None
    if found is None or lowest is None or final.full_valid_loss is None:
        return Choice(final.step, ())
    text = f"Best checkpoint by full validation loss: step {found.step}, {found.model} ({lowest:.3f})"
    level = "info"
    if found.step == final.step:
        text += "; it is the final model"
    elif early_stop:
        text += f"; it becomes the model, as early stopping wants it, and not step {final.step}"
        text += f" ({final.full_valid_loss:.3f})"
    else:
        text += f"; the final model is of step {final.step} ({final.full_valid_loss:.3f})"
        if final.full_valid_loss > lowest * _WORSE:
            level = "warn"
            text += '. Use the checkpoint, or train again with fewer epochs or with metadata {"pegbox.early_stop": "2"}'
    # Not "step" and "full_valid_loss": who draws the curve from events would take it for another point.
    data: dict[str, object] = {
        "best_step": found.step, "best_model": found.model, "best_full_valid_loss": lowest,
        "final_step": final.step, "final_full_valid_loss": final.full_valid_loss,
    }  # fmt: skip
    return Choice(found.step if early_stop else final.step, (Event("best", text, level=level, data=data),))
