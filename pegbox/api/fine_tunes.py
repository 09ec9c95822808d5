"""The routes below /v1/fine-tunes, which `openai.FineTune` and `openai api fine_tunes.create` of 2023 call.

A fine-tune is a fine-tuning job seen through that API: the same ids, so either API shows the jobs of both.
"""

from typing import Annotated, Literal, TypeVar

from fastapi import Depends, Response
from sqlalchemy import Connection

from pegbox.api import files, models
from pegbox.api.deps import Asker, Parts, Project, ServerParts, body
from pegbox.api.event_stream import respond
from pegbox.api.router import new_router
from pegbox.jobs import control, records, submit
from pegbox.jobs.records import ToldEvent, Tuning
from pegbox.jobs.repeats import Call
from pegbox.queue.states import Status
from pegbox.queue.store import Event
from pegbox.storage.scope import Scope
from pegbox.wire import fine_tunes as wire
from pegbox.wire.base import Deleted
from pegbox.wire.files import File
from pegbox.wire.fine_tuning import CreateJob, Hyperparameters

router = new_router("/v1/fine-tunes")
N = TypeVar("N", int, float)
_DEFAULT_MODEL = "curie"  # as it was
_STATUSES: dict[Status, Literal["pending", "running", "succeeded", "failed", "cancelled"]] = {
    Status.VALIDATING: "pending",
    Status.QUEUED: "pending",
    Status.PAUSED: "pending",
    Status.RUNNING: "running",
    Status.PAUSING: "running",
    Status.SUCCEEDED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}


@router.post("")
def create(
    request: Annotated[wire.CreateFineTune, Depends(body(wire.CreateFineTune))], asker: Asker, parts: ServerParts
) -> wire.FineTuneWithEvents:
    hyperparameters = Hyperparameters(
        n_epochs=request.n_epochs,
        batch_size=request.batch_size,
        learning_rate_multiplier=request.learning_rate_multiplier,
    )
    job = CreateJob(
        model=request.model or _DEFAULT_MODEL,
        training_file=request.training_file,
        validation_file=request.validation_file,
        hyperparameters=hyperparameters,
        suffix=request.suffix,
    )
    tuning = submit.create(parts.desk, asker.scope, job, Call(asker.key_id), also=_unheeded(request))
    parts.wake_workers()
    return _whole(parts, asker.scope, tuning.id)


@router.get("")
def list_fine_tunes(project: Project, parts: ServerParts) -> wire.FineTunes:
    with parts.desk.db.read() as tx:
        found = records.list_jobs(tx, project, after=None, limit=10_000, metadata={})
    return wire.FineTunes(data=[_bare(parts, project, tuning) for tuning in reversed(found.items)])


@router.get("/{job_id}")
def retrieve(job_id: str, project: Project, parts: ServerParts) -> wire.FineTuneWithEvents:
    return _whole(parts, project, job_id)


@router.post("/{job_id}/cancel")
def cancel(job_id: str, project: Project, parts: ServerParts) -> wire.FineTuneWithEvents:
    control.cancel(parts.desk, project, job_id)
    return _whole(parts, project, job_id)


@router.get("/{job_id}/events", response_model=wire.FineTuneEvents)
def list_events(
    job_id: str, project: Project, parts: ServerParts, stream: bool = False
) -> wire.FineTuneEvents | Response:
    submit.get(parts.desk, project, job_id)
    if stream:
        return respond(parts.feed, project, job_id, _event)
    with parts.desk.db.read() as tx:
        return wire.FineTuneEvents(data=_events(tx, project, job_id))


@router.delete("/{name:path}")
def delete(name: str, project: Project, parts: ServerParts) -> Deleted:
    """Delete a tuned model; the record of how it came about stays."""
    return models.delete(name, project, parts)


def _unheeded(request: wire.CreateFineTune) -> list[Event]:
    """What is accepted so that scripts run, and has no effect, is said."""
    told = []
    if request.prompt_loss_weight:
        text = "prompt_loss_weight has no effect: only completions are learnt (a weight of 0)."
        told.append(Event("prompt_loss_weight", text, level="warn"))
    if request.compute_classification_metrics:
        text = "Classification metrics are not computed in training; `pegbox compare` counts right answers."
        told.append(Event("classification", text, level="warn"))
    return told


def _whole(parts: Parts, scope: Scope, job_id: str) -> wire.FineTuneWithEvents:
    with parts.desk.db.read() as tx:
        tuning = records.get(tx, scope, job_id)
        told = _events(tx, scope, job_id)
    return wire.FineTuneWithEvents(**_bare(parts, scope, tuning).model_dump(), events=told)


def _bare(parts: Parts, scope: Scope, tuning: Tuning) -> wire.FineTune:
    job, chosen = tuning.job, tuning.hyperparameters
    return wire.FineTune(
        id=job.id,
        created_at=job.created_at,
        updated_at=job.finished_at or job.started_at or job.created_at,
        model=tuning.model,
        organization_id=f"org-{parts.settings.organization}",
        status=_STATUSES[job.status],
        fine_tuned_model=tuning.fine_tuned_model,
        hyperparams=wire.Hyperparams(
            n_epochs=_number(chosen.n_epochs),
            batch_size=_number(chosen.batch_size),
            learning_rate_multiplier=_number(chosen.learning_rate_multiplier),
        ),
        training_files=_files(parts, scope, tuning.request.training_file),
        validation_files=_files(parts, scope, tuning.request.validation_file),
        result_files=_files(parts, scope, tuning.result_file),
    )


def _number(value: N | Literal["auto"]) -> N | None:
    return None if value == "auto" else value


def _files(parts: Parts, scope: Scope, file_id: str | None) -> list[File]:
    """The one file as the list that this API has; empty if it was deleted since."""
    found = parts.desk.files.find(scope, file_id) if file_id else None
    return [files.to_wire(found)] if found else []


def _events(tx: Connection, scope: Scope, job_id: str) -> list[wire.FineTuneEvent]:
    """All, oldest first."""
    return [_event(event) for event in records.events_after(tx, scope, job_id, None, 100_000).items]


def _event(event: ToldEvent) -> wire.FineTuneEvent:
    return wire.FineTuneEvent(created_at=event.created_at, level=event.level, message=event.message)
