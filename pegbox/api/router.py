"""Routers whose plain functions take one trip to a worker thread, answer included, or none at all.

FastAPI makes a second trip to write the answer of such a function; where an answer takes 0.2 ms, trips are what a
request costs (see benchmarks/load.py).
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args, get_type_hints

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from pegbox.api.arguments import Find, finder

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_SHORT = "_pegbox_is_short"


def short(endpoint: Endpoint) -> Endpoint:
    """Mark a route that only looks up a few rows by their keys.

    In SQLite that takes less time than a worker thread needs to be woken, so it is done at once. Another database may
    let us wait, and then nobody else would be answered: there it takes the trip.
    """
    setattr(endpoint, _SHORT, True)
    return endpoint


class _Route(APIRoute):
    def __init__(self, path: str, endpoint: Callable[..., Any], **others: Any) -> None:
        is_plain = not inspect.iscoroutinefunction(endpoint)
        if is_plain:
            endpoint = _at_once(endpoint) if hasattr(endpoint, _SHORT) else _answering(endpoint)
        super().__init__(path, endpoint, **others)
        if is_plain and _is_written(endpoint) and (arguments := finder(endpoint)) is not None:
            self.app = _direct(endpoint, arguments)


def _direct(endpoint: Callable[..., Any], arguments: Find) -> ASGIApp:
    """The route without FastAPI's general way to its arguments, which costs more than looking up a job."""
    is_async = inspect.iscoroutinefunction(endpoint)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        found = await arguments(request)
        response = await (endpoint(**found) if is_async else run_in_threadpool(endpoint, **found))
        await response(scope, receive, send)

    return app


def _answering(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, with a wire type that it gives written as JSON where it was made."""

    @functools.wraps(endpoint)
    def answer(*args: Any, **kwargs: Any) -> Any:
        return _written(endpoint(*args, **kwargs))

    return answer


def _at_once(endpoint: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(endpoint)
    async def answer(*args: Any, **kwargs: Any) -> Any:
        if kwargs["parts"].desk.db.is_local:
            return _written(endpoint(*args, **kwargs))
        return await run_in_threadpool(lambda: _written(endpoint(*args, **kwargs)))

    return answer


def _is_written(endpoint: Callable[..., Any]) -> bool:
    """Whether all that it gives is an answer, or a wire type that becomes one."""
    given = get_type_hints(endpoint).get("return")
    return all(inspect.isclass(kind) and issubclass(kind, BaseModel | Response) for kind in get_args(given) or (given,))


def _written(found: Any) -> Any:
    if isinstance(found, BaseModel):
        return Response(found.__pydantic_serializer__.to_json(found, by_alias=True), media_type="application/json")
    return found


def new_router(prefix: str = "") -> APIRouter:
    return APIRouter(prefix=prefix, route_class=_Route)
