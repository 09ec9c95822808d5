"""The routes below /v1/webhook_endpoints: OpenAI's, and what it does not have, the log of deliveries."""

import time
from typing import Annotated

from fastapi import Depends

from pegbox import egress, ids
from pegbox.api.deps import Paging, Parts, Project, ServerParts, body, page, paging
from pegbox.api.router import new_router
from pegbox.errors import EgressRefused, InvalidRequest
from pegbox.notify import endpoints, log, webhook
from pegbox.notify.deliver import rules_of
from pegbox.notify.endpoints import Endpoint
from pegbox.notify.log import Told
from pegbox.storage.paging import Slice
from pegbox.wire import webhooks as wire
from pegbox.wire.base import Deleted, Page

router = new_router("/v1")
_SAMPLE_JOB = "ftjob-" + "0" * 24


@router.get("/webhook_event_types")
def list_event_types() -> wire.EventTypeList:
    return wire.EventTypeList(data=list(wire.EVENT_TYPES))


@router.post("/webhook_endpoints")
def create(
    request: Annotated[wire.CreateEndpoint, Depends(body(wire.CreateEndpoint))], parts: ServerParts, project: Project
) -> wire.EndpointWithSecret:
    """The answer holds the secret; no other does."""
    _check_url(parts, request.url)
    return _with_secret(endpoints.create(parts.desk.db, project, request))


@router.get("/webhook_endpoints")
def list_endpoints(
    parts: ServerParts, project: Project, paging: Annotated[Paging, Depends(paging(20))]
) -> Page[wire.Endpoint]:
    found = endpoints.list_endpoints(parts.desk.db, project, after=paging.after, limit=paging.limit)
    return page(Slice([_to_wire(endpoint) for endpoint in found.items], found.has_more), lambda e: e.id)


@router.get("/webhook_endpoints/{endpoint_id}")
def retrieve(endpoint_id: str, parts: ServerParts, project: Project) -> wire.Endpoint:
    return _to_wire(endpoints.get(parts.desk.db, project, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}")
def update(
    endpoint_id: str,
    request: Annotated[wire.UpdateEndpoint, Depends(body(wire.UpdateEndpoint))],
    parts: ServerParts,
    project: Project,
) -> wire.Endpoint:
    if request.url is not None:
        _check_url(parts, request.url)
    return _to_wire(endpoints.change(parts.desk.db, project, endpoint_id, request))


@router.delete("/webhook_endpoints/{endpoint_id}")
def delete(endpoint_id: str, parts: ServerParts, project: Project) -> Deleted:
    endpoints.remove(parts.desk.db, project, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook_endpoint.deleted")


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
def rotate_secret(
    endpoint_id: str,
    request: Annotated[wire.RotateSecret, Depends(body(wire.RotateSecret))],
    parts: ServerParts,
    project: Project,
) -> wire.EndpointWithSecret:
    keep_old = request.keep_old_secret_active_for_24_hours
    return _with_secret(endpoints.rotate(parts.desk.db, project, endpoint_id, keep_old=keep_old))


@router.post("/webhook_endpoints/{endpoint_id}/test")
def test(
    endpoint_id: str,
    request: Annotated[wire.TestEndpoint, Depends(body(wire.TestEndpoint))],
    parts: ServerParts,
    project: Project,
) -> wire.TestResult:
    """Send a sample now, once, and say what was answered. Raises InvalidRequest where nothing was."""
    endpoint = endpoints.get(parts.desk.db, project, endpoint_id)
    sample = wire.Event(
        id=ids.mint("told"),
        created_at=int(time.time()),
        type=request.event_type,
        data=wire.EventData(id=_SAMPLE_JOB),
    )
    outcome = webhook.send(endpoint, sample, rules_of(parts.settings))
    if outcome.status_code is None:
        raise InvalidRequest(
            f"The test event did not reach {endpoint.url}: {outcome.error}.", param="url", code="webhook_not_delivered"
        )
    return wire.TestResult(
        webhook_endpoint_id=endpoint.id, event_type=request.event_type, status_code=outcome.status_code
    )


@router.get("/webhook_endpoints/{endpoint_id}/deliveries")
def list_deliveries(
    endpoint_id: str, parts: ServerParts, project: Project, paging: Annotated[Paging, Depends(paging(20, most=100))]
) -> Page[wire.Delivery]:
    endpoints.get(parts.desk.db, project, endpoint_id)
    found = log.list_deliveries(parts.desk.db, endpoint_id, after=paging.after, limit=paging.limit)
    return page(Slice([_delivery(told) for told in found.items], found.has_more), lambda d: d.id)


def _check_url(parts: Parts, url: str) -> None:
    try:
        egress.check(url, rules_of(parts.settings))
    except EgressRefused as error:
        raise InvalidRequest(f"Invalid value for 'url': {error}", param="url", code="invalid_value") from None


def _to_wire(endpoint: Endpoint) -> wire.Endpoint:
    return wire.Endpoint(
        id=endpoint.id,
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
        name=endpoint.name,
        url=endpoint.url,
        event_types=list(endpoint.event_types),
        signing_secret_hint=endpoint.secret_hint,
        enabled=endpoint.enabled,
    )


def _with_secret(endpoint: Endpoint) -> wire.EndpointWithSecret:
    return wire.EndpointWithSecret(**_to_wire(endpoint).model_dump(), signing_secret=endpoint.secrets[0])


def _delivery(told: Told) -> wire.Delivery:
    over = "delivered" if told.delivered else "failed"
    return wire.Delivery(
        id=told.id,
        event_id=told.event_id,
        event_type=told.event_type,
        fine_tuning_job_id=told.job_id,
        created_at=told.created_at,
        status="pending" if told.next_attempt_at is not None else over,
        next_attempt_at=told.next_attempt_at,
        attempts=[
            wire.Attempt(
                created_at=attempt.created_at,
                milliseconds=attempt.milliseconds,
                status_code=attempt.status_code,
                error=attempt.error,
            )
            for attempt in told.attempts
        ],
    )
