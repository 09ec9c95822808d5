"""A fine-tuning job as the server sees it, and how it is read from the tables."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, bindparam

from pegbox.errors import NotFound
from pegbox.queue import store
from pegbox.queue.states import QueuedJob, Status, is_final
from pegbox.storage.kept import kept
from pegbox.storage.paging import Slice, fetch, paged
from pegbox.storage.scope import Scope
from pegbox.storage.tables import checkpoints, events, jobs, tunings
from pegbox.wire.fine_tuning import CheckpointMetrics, CreateJob, ResolvedHyperparameters


@dataclass(frozen=True, slots=True)
class Tuning:
    """A job's rows in `jobs` and `tunings`."""

    job: QueuedJob
    request: CreateJob
    model: str  # the base, or the tuned model that is trained on from
    seed: int
    hyperparameters: ResolvedHyperparameters
    fine_tuned_model: str | None
    trained_tokens: int | None
    result_file: str | None
    estimated_finish: int | None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def scope(self) -> Scope:
        """The project that the job belongs to; a worker has no other."""
        return Scope(self.job.project_id)


@dataclass(frozen=True, slots=True)
class ToldEvent:
    """A row of `job_events`."""

    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A row of `checkpoints`."""

    id: str
    job_id: str
    created_at: int
    step: int
    model: str
    metrics: CheckpointMetrics


def find(tx: Connection, scope: Scope, job_id: str) -> Tuning | None:
    row = tx.execute(_one(scope), {"of": job_id}).first()
    return None if row is None else _tuning(row)


def get(tx: Connection, scope: Scope, job_id: str) -> Tuning:
    """Raises NotFound in the API's own words."""
    tuning = find(tx, scope, job_id)
    if tuning is None:
        raise _not_found(job_id)
    return tuning


def check(tx: Connection, scope: Scope, job_id: str) -> None:
    """Raises NotFound as `get` does."""
    if tx.execute(_name(scope), {"of": job_id}).first() is None:
        raise _not_found(job_id)


def list_jobs(
    tx: Connection, scope: Scope, *, after: str | None, limit: int, metadata: dict[str, str] | Literal["null"]
) -> Slice[Tuning]:
    """Newest first; `metadata` keeps the jobs that carry all its pairs, "null" those that carry none."""
    query = _both(scope)
    stored = tunings.c.request["metadata"]
    if metadata == "null":
        query = query.where(stored.as_string().is_(None))
    else:
        for key, value in metadata.items():
            query = query.where(stored[key].as_string() == value)
    statement = paged(scope, query, jobs.c.seq, jobs.c.id, follows=after is not None)
    page = fetch(tx, statement, after, limit)
    return Slice([_tuning(row) for row in page.items], page.has_more)


def list_events(tx: Connection, scope: Scope, job_id: str, *, after: str | None, limit: int) -> Slice[ToldEvent]:
    page = fetch(tx, _events(scope, after is not None), after, limit, of=job_id)
    return Slice([_told(row) for row in page.items], page.has_more)


def events_after(tx: Connection, scope: Scope, job_id: str, last: str | None, limit: int) -> Slice[ToldEvent]:
    """What was told after the event `last`, or from the beginning; oldest first."""
    page = fetch(tx, _events(scope, last is not None, newest_first=False), last, limit, of=job_id)
    return Slice([_told(row) for row in page.items], page.has_more)


def list_checkpoints(tx: Connection, scope: Scope, job_id: str, *, after: str | None, limit: int) -> Slice[Checkpoint]:
    """Highest step first."""
    query = scope.select(checkpoints).where(checkpoints.c.job_id == job_id)
    statement = paged(scope, query, checkpoints.c.seq, checkpoints.c.id, follows=after is not None)
    page = fetch(tx, statement, after, limit)
    return Slice([checkpoint(row) for row in page.items], page.has_more)


def saved_checkpoints(tx: Connection, scope: Scope, job_id: str) -> list[Checkpoint]:
    """All of a job's, lowest step first."""
    mine = scope.select(checkpoints).where(checkpoints.c.job_id == job_id)
    return [checkpoint(row) for row in tx.execute(mine.order_by(checkpoints.c.step))]


def trained_on_by(tx: Connection, scope: Scope, model: str) -> str | None:
    """A job that has not ended and goes on from that tuned model, if there is one."""
    rows = tx.execute(_both(scope).where(tunings.c.model == model))
    return next((row.id for row in rows if not is_final(Status(row.status))), None)


def checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint(row.id, row.job_id, row.created_at, row.step, row.model, CheckpointMetrics(**row.metrics))


def _told(row: Row[Any]) -> ToldEvent:
    return ToldEvent(row.id, row.created_at, row.level, row.type, row.message, row.data)


def _not_found(job_id: str) -> NotFound:
    return NotFound(f"Could not find fine tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found")


@kept
def _both(scope: Scope) -> Select[Any]:
    return scope.select(jobs, tunings).join(tunings, tunings.c.job_id == jobs.c.id)


@kept
def _one(scope: Scope) -> Select[Any]:
    return _both(scope).where(jobs.c.id == bindparam("of"))


@kept
def _name(scope: Scope) -> Select[Any]:
    return scope.select(jobs).with_only_columns(jobs.c.id).where(jobs.c.id == bindparam("of"))


@kept
def _events(scope: Scope, follows: bool, *, newest_first: bool = True) -> Select[Any]:
    query = scope.select(events).where(events.c.job_id == bindparam("of"))
    return paged(scope, query, events.c.seq, events.c.id, follows=follows, newest_first=newest_first)


def _tuning(row: Row[Any]) -> Tuning:
    return Tuning(
        job=store.from_row(row),
        request=_request(row.request),
        model=row.model,
        seed=row.seed,
        hyperparameters=ResolvedHyperparameters(**row.hyperparameters),
        fine_tuned_model=row.fine_tuned_model,
        trained_tokens=row.trained_tokens,
        result_file=row.result_file,
        estimated_finish=row.estimated_finish,
    )


def _request(stored: dict[str, Any]) -> CreateJob:
    """The body as it was accepted. Supervised jobs of earlier versions may carry a `dpo` block that nobody read."""
    method = stored.get("method")
    if method and method["type"] == "supervised" and method.get("dpo"):
        stored = {**stored, "method": {**method, "dpo": None}}
    return CreateJob(**stored)
