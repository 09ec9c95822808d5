"""Routers whose plain functions take one trip to a worker thread, answer included, or none at all.

FastAPI makes a second trip to write the answer of such a function; where an answer takes 0.2 ms, trips are what a
request costs (see benchmarks/load.py).
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

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
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = _at_once(endpoint) if hasattr(endpoint, _SHORT) else _answering(endpoint)
        super().__init__(path, endpoint, **others)


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


def _written(found: Any) -> Any:
    if isinstance(found, BaseModel):
        return Response(found.__pydantic_serializer__.to_json(found, by_alias=True), media_type="application/json")
    return found


def new_router(prefix: str = "") -> APIRouter:
    return APIRouter(prefix=prefix, route_class=_Route)
