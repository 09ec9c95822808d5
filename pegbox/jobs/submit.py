"""Create jobs. Here only what is cheap to check is checked; what is in the files is checked later, in `prepare`, so
that bad data makes a failed job and never a refused request."""

import random
import time
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import insert, select

from pegbox import ids
from pegbox.adapters import Adapters
from pegbox.catalog.models import Catalog
from pegbox.errors import InvalidRequest
from pegbox.files import Files
from pegbox.jobs import records
from pegbox.jobs.methods import METHODS
from pegbox.jobs.records import Tuning
from pegbox.queue import store
from pegbox.queue.store import Event
from pegbox.storage.db import Database
from pegbox.storage.tables import jobs, tunings
from pegbox.wire.fine_tuning import EARLY_STOP_KEY, WEIGHTS_KEY, CreateJob, ResolvedHyperparameters

Weights = Literal["adapter", "all"]
_RETRY_SECONDS = 60
_MOST_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Desk:
    """What jobs are made from."""

    db: Database
    files: Files
    adapters: Adapters
    catalog: Catalog


def create(desk: Desk, request: CreateJob, *, is_retry: bool = False) -> Tuning:
    """Store a job and acknowledge it.

    `is_retry` says that the client repeats a call whose answer it did not get: if the first one made a job within
    the last minute, that job is the answer. Raises InvalidRequest for what can never become a job.
    """
    model = _check_model(desk, request)
    _check_method(request)
    patience(request)
    _check_weights(desk, request)
    _check_file(desk, "training_file", request.training_file)
    if request.validation_file is not None:
        _check_file(desk, "validation_file", request.validation_file)
    body = request.model_dump(mode="json")
    asked = request.asked()
    unsaid = {"beta": "auto"} if request.tunes_by == "dpo" else {}
    shown = ResolvedHyperparameters(**{**unsaid, **asked.model_dump(exclude_none=True)})
    with desk.db.write() as tx:
        if is_retry:
            recent = jobs.c.created_at >= int(time.time()) - _RETRY_SECONDS
            query = select(tunings.c.job_id, tunings.c.request).join(jobs, jobs.c.id == tunings.c.job_id)
            for row in tx.execute(query.where(recent).order_by(jobs.c.seq.desc())):
                if row.request == body:
                    return records.get(tx, row.job_id)
        job_id = ids.mint("job")
        store.enqueue(tx, job_id)
        seed = request.seed if request.seed is not None else random.SystemRandom().randrange(2**31)
        values = {"job_id": job_id, "request": body, "model": model, "seed": seed}
        tx.execute(insert(tunings).values(**values, hyperparameters=shown.model_dump()))
        validating = f"Validating training file: {request.training_file}"
        if request.validation_file is not None:
            validating += f" and validation file: {request.validation_file}"
        created = Event("created", f"Created fine-tuning job: {job_id}")
        store.tell(tx, job_id, created, Event("validating", validating), *_unheeded(request))
        return records.get(tx, job_id)


def get(desk: Desk, job_id: str) -> Tuning:
    """Raises NotFound in the API's own words."""
    with desk.db.read() as tx:
        return records.get(tx, job_id)


def patience(request: CreateJob) -> int | None:
    """Epochs without a better validation loss after which the job ends early; None if it never does.

    Raises InvalidRequest for anything but a whole number from 1 to 10.
    """
    wish = (request.metadata or {}).get(EARLY_STOP_KEY)
    if wish is None:
        return None
    if wish not in map(str, range(1, _MOST_PATIENCE + 1)):
        raise InvalidRequest(
            f"Invalid value for 'metadata.{EARLY_STOP_KEY}': the number of epochs to wait for a better validation "
            f'loss, as text, from "1" to "{_MOST_PATIENCE}". Leave it out to train all epochs.',
            param=f"metadata.{EARLY_STOP_KEY}",
            code="invalid_value",
        )
    return int(wish)


def weights(request: CreateJob) -> Weights:
    """What the job learns: an adapter, or all weights. Raises InvalidRequest for any other wish."""
    wish = (request.metadata or {}).get(WEIGHTS_KEY, "adapter")
    if wish not in ("adapter", "all"):
        raise InvalidRequest(
            f"Invalid value for 'metadata.{WEIGHTS_KEY}': \"adapter\" (as if left out) learns an adapter over the "
            'frozen base, "all" learns all weights.',
            param=f"metadata.{WEIGHTS_KEY}",
            code="invalid_value",
        )
    return cast("Weights", wish)


def _check_weights(desk: Desk, request: CreateJob) -> None:
    """All weights can't be learnt from an adapter on: the model would be two things at once."""
    if weights(request) == "adapter":
        return
    tuned = desk.adapters.find(request.model)
    if tuned is not None and not tuned.is_whole:
        raise InvalidRequest(
            f"{tuned.name} is an adapter over {tuned.base}, and all weights can't be trained on from an adapter. "
            f"Leave out 'metadata.{WEIGHTS_KEY}' to train the adapter on, or name {tuned.base} as the model.",
            param=f"metadata.{WEIGHTS_KEY}",
            code="invalid_value",
        )


def _unheeded(request: CreateJob) -> list[Event]:
    """What is accepted so that scripts run, and has no effect, is said."""
    if not request.integrations:
        return []
    text = "Integrations are not supported by this server: nothing is sent to Weights & Biases."
    return [Event("integrations", text, level="warn")]


def _check_model(desk: Desk, request: CreateJob) -> str:
    """The name that the job shows: an alias becomes its base; a tuned model stays itself."""
    if adapter := desk.adapters.find(request.model):
        return adapter.name
    if resolved := desk.catalog.find(request.model):
        return resolved.base.name
    known = ", ".join(model.name for model in desk.catalog.bases()) or "none: run `pegbox models pull`"
    raise InvalidRequest(
        f"Model {request.model} is not available for fine-tuning or does not exist. Base models here: {known}.",
        param="model",
        code="model_not_available",
    )


def _check_method(request: CreateJob) -> None:
    """Nothing that was asked for is passed over in silence: not a method, and not the block of another one."""
    method = request.method
    if method is None:
        return
    if method.type not in METHODS:
        raise InvalidRequest(
            f"Method '{method.type}' is not supported by this server; use 'supervised' or 'dpo'.",
            param="method.type",
            code="unsupported_value",
        )
    blocks = {"supervised": method.supervised, "dpo": method.dpo, "reinforcement": method.reinforcement}
    for other, block in blocks.items():
        if other != method.type and block is not None:
            raise InvalidRequest(
                f"'method.{other}' is set, but 'method.type' is '{method.type}'; name the method that you mean once.",
                param=f"method.{other}",
                code="invalid_value",
            )


def _check_file(desk: Desk, param: str, file_id: str) -> None:
    file = desk.files.find(file_id)
    if file is None:
        raise InvalidRequest(
            f"invalid {param}: {file_id} does not exist. Upload it with purpose 'fine-tune' and use the id you get.",
            param=param,
            code="file_not_found",
        )
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"invalid {param}: {file_id} has purpose '{file.purpose}'; upload it again with purpose 'fine-tune'.",
            param=param,
            code="invalid_file_purpose",
        )
