"""Routers whose plain functions take one trip to a worker thread, answer included.

FastAPI makes a second trip to write the answer of such a function; where an answer takes 0.2 ms, trips are what a
request costs (see benchmarks/load.py).
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel


class _Route(APIRoute):
    def __init__(self, path: str, endpoint: Callable[..., Any], **others: Any) -> None:
        super().__init__(path, endpoint if inspect.iscoroutinefunction(endpoint) else _answering(endpoint), **others)


def _answering(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, with a wire type that it gives written as JSON where it was made."""

    @functools.wraps(endpoint)
    def answer(*args: Any, **kwargs: Any) -> Any:
        found = endpoint(*args, **kwargs)
        if isinstance(found, BaseModel):
            return Response(found.__pydantic_serializer__.to_json(found, by_alias=True), media_type="application/json")
        return found

    return answer


def new_router(prefix: str = "") -> APIRouter:
    return APIRouter(prefix=prefix, route_class=_Route)
