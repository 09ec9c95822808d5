"""What a job would do with a file, before there is a job: the choices that `prepare` will make, and what they cost on
this machine."""

from collections.abc import Callable

from pegbox.catalog.models import BaseModel
from pegbox.data.epochs import epochs_for
from pegbox.data.estimate import Load, Machine, estimate, load_timings, sharing
from pegbox.data.report import Estimate
from pegbox.data.survey import Survey, Target
from pegbox.settings import Settings
from pegbox.train.recipe import MICRO_BATCH_TOKENS, VALID_EVERY, VALID_ROWS, batch_size_for
from pegbox.train.sampler import steps_per_epoch

HOLDOUT_FROM = 200  # rows
_HOLDOUT_SHARE = 0.1
_HOLDOUT_ROWS = (20, 500)
TIMINGS = "timings.jsonl"  # in the data directory


def held_out(used: int) -> int:
    """How many of a file's rows are held out to validate on, where no file says which."""
    least, most = _HOLDOUT_ROWS
    return min(most, max(least, round(used * _HOLDOUT_SHARE))) if used >= HOLDOUT_FROM else 0


def machine(settings: Settings, base: BaseModel, weights: str = "adapter") -> Machine:
    """What is known of that base and this machine."""
    timings = load_timings(settings.root / TIMINGS)
    return Machine(base.fingerprint, base.parameters, settings.cpu_threads, timings, weights)


def load(
    training: Survey,
    validation: Survey | None,
    target: Target,
    *,
    holdout: bool,
    epochs: int | None = None,
    batch_size: int | None = None,
) -> Load:
    """What a job with this file computes. What is not said is chosen as a job would."""
    held = held_out(training.used) if validation is None and holdout else 0
    rows = training.used - held
    method = training.corpus.method
    epochs = epochs or epochs_for(method, training.used)[0]
    batch_size = batch_size or batch_size_for(method, rows, epochs)[0]
    shared = sharing(
        training.sample, target.template, limit=target.limit, batch_size=batch_size, budget=MICRO_BATCH_TOKENS
    )
    tokens = round(training.kept * rows / training.used)
    steps = steps_per_epoch(rows, batch_size) * epochs
    apart = validation.kept if validation else training.kept - tokens
    n_apart = validation.used if validation else held
    looks = (steps // VALID_EVERY + epochs) * min(VALID_ROWS, n_apart) if n_apart else 0
    scored = apart * (1 + epochs) + round(looks * apart / n_apart) if n_apart else training.kept
    if method == "dpo":  # the reference scores every pair once before training, which is step 0 as well
        scored = scored + tokens if n_apart else tokens
    return Load(tokens, round(tokens * shared), epochs, steps, round(scored * shared))


def estimator(settings: Settings, base: BaseModel) -> Callable[[Survey, Survey | None, Target], Estimate]:
    """For `check`: the estimate of a job with every choice left to us."""

    def foresee(training: Survey, validation: Survey | None, target: Target) -> Estimate:
        made = load(training, validation, target, holdout=settings.holdout)
        return estimate(made, machine(settings, base), micro_batch_tokens=MICRO_BATCH_TOKENS)

    return foresee
