"""Create jobs. Here only what is cheap to check is checked; what is in the files is checked later, in `prepare`, so
that bad data makes a failed job and never a refused request."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import Connection, Insert, insert

from pegbox import adapters, files, ids
from pegbox.adapters import Adapter, Adapters
from pegbox.catalog.models import Catalog
from pegbox.errors import InvalidRequest
from pegbox.files import Files
from pegbox.jobs import records
from pegbox.jobs.methods import METHODS
from pegbox.jobs.records import Tuning
from pegbox.jobs.repeats import Call, earlier_job, fingerprint, remember
from pegbox.queue import store
from pegbox.queue.store import Event
from pegbox.storage.db import Database
from pegbox.storage.kept import kept
from pegbox.storage.scope import Scope
from pegbox.storage.tables import tunings
from pegbox.wire.fine_tuning import EARLY_STOP_KEY, WEIGHTS_KEY, CreateJob, ResolvedHyperparameters

Weights = Literal["adapter", "all"]
_ONCE = Call()
_MOST_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Desk:
    """What jobs are made from."""

    db: Database
    files: Files
    adapters: Adapters
    catalog: Catalog


def create(desk: Desk, scope: Scope, request: CreateJob, call: Call = _ONCE, *, also: Sequence[Event] = ()) -> Tuning:
    """Store a job and acknowledge it; `also` is told with its first events. The answer to a call that was sent before
    is the job that it made then.

    Raises InvalidRequest for what can never become a job, and Conflict (see `repeats`).
    """
    body = request.model_dump(mode="json")
    sha256 = fingerprint(body)
    with desk.db.read() as tx:
        # First of all: a file may be gone since, and the job is there all the same.
        if call.may_repeat and (earlier := earlier_job(tx, scope, call, sha256)):
            return records.get(tx, scope, earlier)
        tuned = adapters.find(tx, scope, request.model)
        model = tuned.name if tuned else _base_name(desk, request.model)
        _check_method(request)
        patience(request)
        _check_weights(tuned, request)
        _check_file(tx, scope, "training_file", request.training_file)
        if request.validation_file is not None:
            _check_file(tx, scope, "validation_file", request.validation_file)
    asked = request.asked()
    unsaid = {"beta": "auto"} if request.tunes_by == "dpo" else {}
    shown = ResolvedHyperparameters(**{**unsaid, **asked.model_dump(exclude_none=True)})
    with desk.db.write() as tx:
        if earlier := earlier_job(tx, scope, call, sha256):
            return records.get(tx, scope, earlier)
        job_id = ids.mint("job")
        store.enqueue(tx, scope, job_id)
        remember(tx, scope, call, sha256, job_id)
        seed = request.seed if request.seed is not None else random.SystemRandom().randrange(2**31)
        values = {"job_id": job_id, "request": body, "model": model, "seed": seed}
        values |= {"created_by": call.key_id, "request_sha256": sha256}
        tx.execute(_second_half(), {**values, "hyperparameters": shown.model_dump()})
        validating = f"Validating training file: {request.training_file}"
        if request.validation_file is not None:
            validating += f" and validation file: {request.validation_file}"
        created = Event("created", f"Created fine-tuning job: {job_id}")
        store.tell(tx, job_id, created, Event("validating", validating), *_unheeded(request), *also)
        return records.get(tx, scope, job_id)


@kept
def _second_half() -> Insert:
    return insert(tunings)


def get(desk: Desk, scope: Scope, job_id: str) -> Tuning:
    """Raises NotFound in the API's own words."""
    with desk.db.read() as tx:
        return records.get(tx, scope, job_id)


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


def _check_weights(tuned: Adapter | None, request: CreateJob) -> None:
    """All weights can't be learnt from an adapter on: the model would be two things at once."""
    if weights(request) == "all" and tuned is not None and not tuned.is_whole:
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


def _base_name(desk: Desk, asked: str) -> str:
    """The name that the job shows: an alias becomes its base."""
    if resolved := desk.catalog.find(asked):
        return resolved.base.name
    known = ", ".join(model.name for model in desk.catalog.bases()) or "none: run `pegbox models pull`"
    raise InvalidRequest(
        f"Model {asked} is not available for fine-tuning or does not exist. Base models here: {known}.",
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


def _check_file(tx: Connection, scope: Scope, param: str, file_id: str) -> None:
    file = files.find(tx, scope, file_id)
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
