"""What a run made, brought into the store and named: an adapter, or a whole model."""

import json

from sqlalchemy import Connection

from pegbox import ids
from pegbox.adapters import FILES, Adapter
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import MANIFEST, WHOLE_FILES, RunDir

WHOLE_KEPT = 1  # newest checkpoints of a job that trains all weights; the best is kept too


def key_of(job_id: str, step: int) -> str:
    """Of the bytes that a job made at a step, in the store."""
    return f"adapters/{job_id}/step-{step:06d}"


def name_of(tuning: Tuning, recipe: Recipe, settings: Settings, *, step: int | None = None) -> str:
    """A fresh name for what a job made, or for a checkpoint of it. Some programs look for the name that OpenAI would
    have given (`ft:gpt-4o-mini:…`): those the operator can have."""
    base = recipe.base
    if settings.tuned_names == "asked":
        asked = tuning.request.model
        base = asked.split(":")[1] if asked.startswith("ft:") else asked
    return ids.tuned_name(base, settings.organization, tuning.request.suffix, step=step)


def bring_in(desk: Desk, run: RunDir, recipe: Recipe, step: int) -> None:
    """Raises FileNotFoundError where the trainer has dropped it meanwhile, as it does with whole models."""
    source, key = run.checkpoints / f"step-{step:06d}", key_of(recipe.job_id, step)
    if recipe.weights == "all":
        # Its own list, because a base may lack some; files that go while we copy must not look like those.
        written = json.loads((source / MANIFEST).read_text("utf-8"))
        desk.adapters.store(source, key, [name for name in WHOLE_FILES if name in written], linked=WHOLE_FILES[:1])
    else:
        desk.adapters.store(source, key, FILES)


def publish(desk: Desk, tx: Connection, scope: Scope, recipe: Recipe, *, name: str, step: int) -> Adapter:
    """Name what was brought in, in the transaction of whoever announces the name."""
    key = key_of(recipe.job_id, step)
    return desk.adapters.publish(
        tx, scope, name=name, base=recipe.base, job_id=recipe.job_id, format_=recipe.format, key=key,
        model_folder=key if recipe.weights == "all" else recipe.base_key,
    )  # fmt: skip
