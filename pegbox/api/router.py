"""Routers whose plain functions take one trip to a worker thread, answer included, or none at all.

FastAPI makes a second trip to write the answer of such a function; where an answer takes 0.2 ms, trips are what a
request costs (see benchmarks/load.py).
"""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_type_hints

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.params import Depends
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Find = Callable[[Request], Awaitable[Any]]
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
            if (arguments := _arguments(endpoint)) is not None:
                self.app = _direct(endpoint, arguments)
        else:
            super().__init__(path, endpoint, **others)


def _arguments(endpoint: Callable[..., Any]) -> dict[str, Find] | None:
    """How each argument is found in a request, where FastAPI need not read what a client wrote: words of the path, the
    request, and dependencies that ask for nothing else. None where there is anything more, or where the answer is not
    written by `_written`."""
    hints = get_type_hints(endpoint, include_extras=True)
    given = hints.pop("return", None)
    if not (inspect.isclass(given) and issubclass(given, BaseModel | Response)):
        return None
    found: dict[str, Find] = {}
    for name, hint in hints.items():
        depends = [of.dependency for of in getattr(hint, "__metadata__", ()) if isinstance(of, Depends)]
        if hint is str:
            found[name] = _word(name)
        elif hint is Request:
            found[name] = _itself
        elif depends and depends[0] and list(inspect.signature(depends[0]).parameters) == ["request"]:
            found[name] = depends[0]
        else:
            return None
    return found


async def _itself(request: Request) -> Request:
    return request


def _word(name: str) -> Find:
    async def find(request: Request) -> Any:
        return request.path_params[name]

    return find


def _direct(endpoint: Callable[..., Any], arguments: dict[str, Find]) -> ASGIApp:
    """The route without FastAPI's general way to its arguments, which costs more than looking up a job."""
    is_async = inspect.iscoroutinefunction(endpoint)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        found = {name: await find(request) for name, find in arguments.items()}
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


def _written(found: Any) -> Any:
    if isinstance(found, BaseModel):
        return Response(found.__pydantic_serializer__.to_json(found, by_alias=True), media_type="application/json")
    return found


def new_router(prefix: str = "") -> APIRouter:
    return APIRouter(prefix=prefix, route_class=_Route)
