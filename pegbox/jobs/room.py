"""Room on the disk for a job: what it will write, looked for before it starts and told of when it ran out."""

from pegbox.catalog.models import BaseModel
from pegbox.errors import JobFailure, StorageFull
from pegbox.settings import Settings
from pegbox.storage.room import claim, look
from pegbox.train.recipe import Recipe

CODE = "insufficient_storage"
_ADAPTER_BYTES = 4  # a parameter, as published
_REST_BYTES = 8 * 2**20  # rows, figures and the log
_STATE_BYTES = 12  # beside it in a checkpoint: the value and the optimizer's two, in single precision


def needed(recipe: Recipe, base: BaseModel, keep_checkpoints: int) -> int:
    """Bytes that a run writes at most: a checkpoint an epoch and one in the making, and the adapters that are kept.
    Of whole models fewer are kept.

    An adapter of rank r has at most 2 r / width parameters for each of the base's: that is exact for square layers
    and too much for all others.
    """
    if recipe.weights == "all":  # the newest and one in the making, and the weights of the best
        return _REST_BYTES + base.parameters * (2 * (_ADAPTER_BYTES + _STATE_BYTES) + _ADAPTER_BYTES)
    parameters = 2 * recipe.lora_rank * base.parameters // base.hidden_size
    checkpoints = (recipe.n_epochs + 1) * parameters * (_ADAPTER_BYTES + _STATE_BYTES)
    return _REST_BYTES + checkpoints + (keep_checkpoints + 2) * parameters * _ADAPTER_BYTES


def make_sure(settings: Settings, recipe: Recipe, base: BaseModel) -> None:
    """Raises JobFailure, with the numbers, where the run would fill the disk."""
    room = look(settings.root, kept_free=settings.keep_free_bytes, quota=settings.max_stored_bytes)
    try:
        claim(room, needed(recipe, base, settings.keep_checkpoints), "the checkpoints of this job,")
    except StorageFull as full:
        raise JobFailure(CODE, f"{full.message} Then create the job again.") from None


def ran_out(settings: Settings) -> JobFailure:
    """For a run that found no room on its way."""
    room = look(settings.root, kept_free=settings.keep_free_bytes, quota=settings.max_stored_bytes)
    text = f"The disk was full while the job trained ({room}). Free some room, then create the job again."
    return JobFailure(CODE, text)


def broke(settings: Settings) -> JobFailure:
    """For a run whose disk refused to write."""
    text = f"The disk of {settings.root.name} refused to write a checkpoint; run `pegbox doctor`, then create the job "
    return JobFailure("storage_unavailable", f"{text}again.")
