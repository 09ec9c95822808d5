"""The routes below /v1/fine_tuning/jobs."""

from typing import Annotated, Literal

from fastapi import Depends, Request
from starlette.responses import Response

from pegbox.api.deps import Asker, Paging, Project, ServerParts, body, page, paging
from pegbox.api.event_stream import respond
from pegbox.api.router import new_router, short
from pegbox.auth.access import Caller
from pegbox.errors import InvalidRequest
from pegbox.jobs import control, records, submit
from pegbox.jobs.records import Checkpoint, ToldEvent, Tuning
from pegbox.jobs.repeats import Call
from pegbox.queue import turns
from pegbox.queue.states import Status
from pegbox.storage.paging import Slice
from pegbox.wire import fine_tuning as wire
from pegbox.wire.base import Page

router = new_router("/v1/fine_tuning/jobs")
_LONGEST_KEY = 255


@router.post("")
def create(
    request: Annotated[wire.CreateJob, Depends(body(wire.CreateJob))], http: Request, caller: Asker, parts: ServerParts
) -> wire.Job:
    tuning = submit.create(parts.desk, caller.scope, request, _call(http, caller))
    parts.wake_workers()
    return to_wire(tuning, parts.settings.organization)


@router.get("")
def list_jobs(
    http: Request, project: Project, parts: ServerParts, paging: Annotated[Paging, Depends(paging(20))]
) -> Page[wire.Job]:
    with parts.desk.db.read() as tx:
        found = records.list_jobs(tx, project, after=paging.after, limit=paging.limit, metadata=_metadata(http))
    jobs = [to_wire(tuning, parts.settings.organization) for tuning in found.items]
    return page(Slice(jobs, found.has_more), lambda job: job.id)


@router.get("/{job_id}")
@short
def retrieve(job_id: str, project: Project, parts: ServerParts) -> wire.Job:
    with parts.desk.db.read() as tx:
        tuning = records.get(tx, project, job_id)
        place = turns.position(tx, tuning.job)
    return to_wire(tuning, parts.settings.organization).model_copy(update={"queue_position": place})


@router.post("/{job_id}/cancel")
def cancel(job_id: str, project: Project, parts: ServerParts) -> wire.Job:
    return to_wire(control.cancel(parts.desk, project, job_id), parts.settings.organization)


@router.post("/{job_id}/pause")
def pause(job_id: str, project: Project, parts: ServerParts) -> wire.Job:
    return to_wire(control.pause(parts.desk, project, job_id), parts.settings.organization)


@router.post("/{job_id}/resume")
def resume(job_id: str, project: Project, parts: ServerParts) -> wire.Job:
    tuning = control.resume(parts.desk, project, job_id)
    parts.wake_workers()
    return to_wire(tuning, parts.settings.organization)


@router.get("/{job_id}/events", response_model=Page[wire.JobEvent])
@short
def list_events(
    job_id: str,
    project: Project,
    parts: ServerParts,
    paging: Annotated[Paging, Depends(paging(20))],
    stream: bool = False,
) -> Page[wire.JobEvent] | Response:
    """A page of events, newest first; or, with `stream=true`, all of them as they come (not in OpenAI's API)."""
    with parts.desk.db.read() as tx:
        records.check(tx, project, job_id)
        if not stream:
            found = records.list_events(tx, project, job_id, after=paging.after, limit=paging.limit)
    if stream:
        return respond(parts.feed, project, job_id, _event)
    return page(Slice([_event(event) for event in found.items], found.has_more), lambda event: event.id)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, project: Project, parts: ServerParts, paging: Annotated[Paging, Depends(paging(10))]
) -> Page[wire.Checkpoint]:
    submit.get(parts.desk, project, job_id)
    with parts.desk.db.read() as tx:
        found = records.list_checkpoints(tx, project, job_id, after=paging.after, limit=paging.limit)
    return page(Slice([_checkpoint(c) for c in found.items], found.has_more), lambda c: c.id)


def to_wire(tuning: Tuning, organization: str) -> wire.Job:
    job, request = tuning.job, tuning.request
    failure = job.failure
    return wire.Job(
        id=job.id,
        created_at=job.created_at,
        model=tuning.model,
        organization_id=f"org-{organization}",
        status=job.status,
        training_file=request.training_file,
        validation_file=request.validation_file,
        hyperparameters=tuning.hyperparameters,
        method=_method(tuning),
        fine_tuned_model=tuning.fine_tuned_model,
        finished_at=job.finished_at,
        trained_tokens=tuning.trained_tokens,
        estimated_finish=tuning.estimated_finish if job.status == Status.RUNNING else None,
        error=wire.JobError(code=failure.code, message=failure.message, param=failure.param) if failure else None,
        result_files=[tuning.result_file] if tuning.result_file else [],
        seed=tuning.seed,
        integrations=request.integrations or [],
        metadata=request.metadata,
        user_provided_suffix=request.suffix,
    )


def _method(tuning: Tuning) -> wire.ResolvedMethod:
    block = wire.ResolvedBlock(hyperparameters=tuning.hyperparameters)
    if tuning.request.tunes_by == "dpo":
        return wire.ResolvedMethod(type="dpo", dpo=block)
    return wire.ResolvedMethod(type="supervised", supervised=block)


def _event(event: ToldEvent) -> wire.JobEvent:
    return wire.JobEvent(
        id=event.id,
        created_at=event.created_at,
        level=event.level,
        message=event.message,
        type=event.type,
        data=event.data,
    )


def _checkpoint(checkpoint: Checkpoint) -> wire.Checkpoint:
    return wire.Checkpoint(
        id=checkpoint.id,
        created_at=checkpoint.created_at,
        fine_tuning_job_id=checkpoint.job_id,
        fine_tuned_model_checkpoint=checkpoint.model,
        step_number=checkpoint.step,
        metrics=checkpoint.metrics,
    )


def _call(http: Request, caller: Caller) -> Call:
    key = http.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"Invalid Idempotency-Key: 1 to {_LONGEST_KEY} printable ASCII characters, for example a UUID.",
            param="Idempotency-Key",
            code="invalid_value",
        )
    is_retry = http.headers.get("x-stainless-retry-count", "0") not in ("", "0")
    return Call(caller.key_id, key, is_retry)


def _metadata(http: Request) -> dict[str, str] | Literal["null"]:
    """The filter in the query: `metadata[key]=value`, any number of times, or the literal `metadata=null`, which
    clients in JavaScript write as `metadata=`."""
    if http.query_params.get("metadata") in ("null", ""):
        return "null"
    return {
        name[len("metadata[") : -1]: value
        for name, value in http.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
