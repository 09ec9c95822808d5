"""Webhook endpoints, what is sent to them, and how that went."""

from typing import Annotated, Literal

from pydantic import Field

from pegbox.wire.base import Request, Response

EVENT_TYPES = ("fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled")  # that are sent
# An endpoint may ask for any event that OpenAI has, so that a script which lists them runs on; a slip is an error.
EventName = Literal[
    "fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled",
    "batch.completed", "batch.failed", "batch.expired", "batch.cancelled",
    "response.completed", "response.failed", "response.cancelled", "response.incomplete",
    "eval.run.succeeded", "eval.run.failed", "eval.run.canceled",
    "realtime.call.incoming", "video.completed", "video.failed", "safety.alert.created",
    "agent.environment.ready", "agent.environment.failed", "agent.environment.suspended", "agent.environment.expired",
    "agent.session.created", "agent.session.action_required", "agent.session.in_progress", "agent.session.idle",
    "agent.session.failed",
]  # fmt: skip
EventNames = Annotated[list[EventName], Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
URL = Annotated[str, Field(min_length=1, max_length=2048)]


class CreateEndpoint(Request):
    name: Name
    url: URL
    event_types: EventNames


class UpdateEndpoint(Request):
    """What is left out stays as it is."""

    name: Name | None = None
    url: URL | None = None
    event_types: EventNames | None = None
    enabled: bool | None = None  # not in OpenAI's API: an endpoint that answered 410 is switched on again by this


class RotateSecret(Request):
    keep_old_secret_active_for_24_hours: bool = False


class TestEndpoint(Request):
    event_type: EventName


class Endpoint(Response):
    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    enabled: bool  # not in OpenAI's API


class EndpointWithSecret(Endpoint):
    signing_secret: str


class TestResult(Response):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class EventTypeList(Response):
    object: Literal["list"] = "list"
    data: list[str]


class Attempt(Response):
    created_at: int
    milliseconds: int
    status_code: int | None
    error: str | None


class Delivery(Response):
    """Not in OpenAI's API: what became of one event for one endpoint."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    event_id: str
    event_type: str
    fine_tuning_job_id: str
    created_at: int
    status: Literal["pending", "delivered", "failed"]
    next_attempt_at: int | None
    attempts: list[Attempt]


class EventData(Response):
    id: str


class Event(Response):
    """The body of a webhook: it names the job, and says nothing more of it."""

    id: str
    object: Literal["event"] = "event"
    created_at: int
    type: str
    data: EventData
