"""The first half of a job: check its files, resolve every "auto", lay out the run directory.

Whatever is wrong with the data ends here, as a failed job that names every bad example.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from sqlalchemy import update

from pegbox import durable
from pegbox.data.check import Looked, look
from pegbox.data.estimate import estimate
from pegbox.data.report import Estimate
from pegbox.errors import JobFailure
from pegbox.files import File
from pegbox.jobs import foresee, methods, records, reports, submit
from pegbox.jobs.announce import announcements
from pegbox.jobs.bases import Base, base_of, see_that_it_fits
from pegbox.jobs.layout import hold_out, lay_out
from pegbox.jobs.records import Tuning
from pegbox.jobs.refuse import refuse
from pegbox.jobs.resolve import resolve
from pegbox.jobs.submit import Desk, patience
from pegbox.queue import store
from pegbox.queue.lease import Lease
from pegbox.queue.states import QueuedJob, Status
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.storage.tables import tunings
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.wire.fine_tuning import ResolvedHyperparameters


@dataclass(frozen=True, slots=True)
class Source:
    """One of the job's files, open."""

    which: str  # "training" or "validation"
    file: File
    content: BinaryIO


def prepare(desk: Desk, settings: Settings, job: QueuedJob, lease: Lease) -> None:
    """The queue's handler for jobs in `validating_files`. Raises JobFailure."""
    with desk.db.read() as tx:
        tuning = records.find(tx, Scope(job.project_id), job.id)
    assert tuning is not None, "a queued job has its tuning row"
    base = base_of(desk, tuning)
    see_that_it_fits(base.model, submit.weights(tuning.request), settings)
    beat = _sparsely(lease.beat)
    place = settings.root / "runs" / job.id
    run = RunDir(place.with_name(f"{job.id}.{job.lease_token}"))  # ours alone, though we may have lost the job
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, run.path, ignore_errors=True)
        sources = _sources(desk, tuning, stack)
        method = tuning.request.tunes_by
        for source in sources:
            methods.suits(source.content, method, which=source.which, file_id=source.file.id)
        looked = look(
            [(source.which, source.content) for source in sources], target=base.target, method=method,
            seconds=settings.check_seconds, with_digests=True, tick=lambda *_: beat(),
        )  # fmt: skip
        reports.keep(desk, tuning.scope, settings, looked, [source.file for source in sources], base.model, base.target)
        refuse(looked, settings)
        run.create()
        held = hold_out(looked, tuning, settings)
        lay_out(run, looked, [source.content for source in sources], held, beat)
        training = looked.training
        can_validate = looked.validation is not None or len(held) > 0
        recipe = resolve(
            tuning, base, training, len(held), settings, patience(tuning.request) if can_validate else None
        )
        recipe.save(run.recipe_path)
        expected = _expect(run, recipe, looked, base, settings)
        told = announcements(tuning, base, looked, len(held), recipe, expected)
        shown = ResolvedHyperparameters(
            n_epochs=recipe.n_epochs,
            batch_size=recipe.batch_size,
            learning_rate_multiplier=recipe.learning_rate_multiplier,
            beta=recipe.beta if recipe.method == "dpo" else None,
        )
        durable.sync_tree(run.path, "run")
        with desk.db.write() as tx:
            store.hold(tx, job)
            shutil.rmtree(place, ignore_errors=True)  # of an earlier attempt that did not come to its end
            durable.rename(run.path, place, "run")
            row = update(tunings).where(tunings.c.job_id == job.id)
            tx.execute(row.values(hyperparameters=shown.model_dump()))
            store.tell(tx, job.id, *told)
            store.move(tx, job, Status.QUEUED)


def _sources(desk: Desk, tuning: Tuning, stack: ExitStack) -> list[Source]:
    """Raises JobFailure for a file that was deleted."""
    request = tuning.request
    named = [("training", request.training_file), ("validation", request.validation_file)]
    sources = []
    for which, file_id in named:
        if file_id is None:
            continue
        file = desk.files.find(tuning.scope, file_id)
        content = desk.files.open(file) if file else None
        if file is None or content is None:
            raise JobFailure("file_not_found", f"The {which} file {file_id} was deleted.", param=f"{which}_file")
        sources.append(Source(which, file, stack.enter_context(content)))
    return sources


def _expect(run: RunDir, recipe: Recipe, looked: Looked, base: Base, settings: Settings) -> Estimate:
    """What the job will take; its work is kept with the run, to learn from when it has ended."""
    load = foresee.load(
        looked.training, looked.validation, base.target,
        holdout=settings.holdout, epochs=recipe.n_epochs, batch_size=recipe.batch_size,
    )  # fmt: skip
    run.expect(load.work)
    return estimate(
        load, foresee.machine(settings, base.model, recipe.weights), micro_batch_tokens=recipe.micro_batch_tokens
    )


def _sparsely(beat: Callable[[], object], seconds: float = 1.0) -> Callable[[], None]:
    """Call at every row, act once a second."""
    due = time.monotonic() + seconds

    def maybe() -> None:
        nonlocal due
        if time.monotonic() >= due:
            beat()
            due = time.monotonic() + seconds

    return maybe
