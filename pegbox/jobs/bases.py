"""What a job tunes: a base of the catalogue, or what an earlier job made of one."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pegbox.catalog.models import BaseModel
from pegbox.catalog.target import target_of
from pegbox.data.survey import Target
from pegbox.errors import JobFailure
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.settings import Settings
from pegbox.wire.fine_tuning import WEIGHTS_KEY

# A weight's, at the worst moment: a checkpoint with the optimizer's moments in the making beside the one before, and
# the weights of the newest that users may ask and of the best.
_WHOLE_BYTES = 12 + 12 + 4 + 4


@dataclass(frozen=True, slots=True)
class Base:
    """What the job tunes."""

    model: BaseModel
    target: Target  # the same, as the data desk sees it; its folder is where the weights lie
    adapter_folder: Path | None = None  # train on from this
    key: str | None = None  # where the store has the folder, if that is a whole tuned model


def base_of(desk: Desk, tuning: Tuning) -> Base:
    """Raises JobFailure for a model that was deleted since the job was created."""
    adapter = desk.adapters.find(tuning.scope, tuning.request.model)
    resolved = desk.catalog.find(adapter.base if adapter else tuning.request.model)
    if resolved is None:
        raise JobFailure("model_not_found", f"The model {tuning.model} is no longer here.", param="model")
    target = target_of(resolved)
    if adapter is None:
        return Base(resolved.base, target)
    target = replace(target, formats=(adapter.format,))
    if adapter.model_folder:
        target = replace(target, folder=desk.adapters.folder(adapter.model_folder))
    return Base(resolved.base, target, None if adapter.is_whole else desk.adapters.path(adapter), adapter.model_folder)


def see_that_it_fits(model: BaseModel, weights: str, settings: Settings) -> None:
    """Raises JobFailure where the disk has no room for the whole models that a job with all weights keeps."""
    needed, free = _WHOLE_BYTES * model.parameters, shutil.disk_usage(settings.root).free
    if weights == "all" and free < needed:
        raise JobFailure(
            "insufficient_disk",
            f"To learn all {model.parameters:,} weights takes {needed / 1e9:,.1f} GB of disk while it runs, but "
            f"{free / 1e9:,.1f} GB are free where the data directory is. Free some, take a smaller base, or leave out "
            f"{WEIGHTS_KEY} to train an adapter.",
        )
