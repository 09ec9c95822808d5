"""What routes are given: the parts that `create_app` assembled, strict bodies, pages."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request
from pydantic import ValidationError

from pegbox.api.drain import Drain
from pegbox.api.errors import from_validation
from pegbox.api.event_stream import Feed
from pegbox.api.shell import CALLER
from pegbox.auth.access import Caller
from pegbox.auth.keys import Keys
from pegbox.auth.projects import Projects
from pegbox.data import strict_json
from pegbox.engines.pool import EnginePool
from pegbox.errors import InvalidRequest
from pegbox.jobs.submit import Desk
from pegbox.notify.deliver import Deliverer
from pegbox.queue.worker import Worker
from pegbox.settings import Settings
from pegbox.storage.paging import Slice
from pegbox.storage.scope import Scope
from pegbox.upkeep.rounds import Rounds
from pegbox.wire.base import Page, Response
from pegbox.wire.base import Request as WireRequest

Body = TypeVar("Body", bound=WireRequest)
Item = TypeVar("Item", bound=Response)
_LARGE = 1 << 16  # bytes of a body; a larger one is parsed in a thread, for 4 MB of brackets take a second


@dataclass(frozen=True, slots=True)
class Parts:
    """The server's parts, made once by `create_app`."""

    settings: Settings
    desk: Desk
    pool: EnginePool
    workers: tuple[Worker, ...]
    threads: tuple[Worker | Deliverer | Rounds, ...]  # the workers and whoever else must live
    drain: Drain
    feed: Feed
    keys: Keys
    projects: Projects

    def wake_workers(self) -> None:
        for worker in self.workers:
            worker.wake()


async def parts(request: Request) -> Parts:  # async: FastAPI runs others in a thread
    found: Parts = request.app.state.parts
    return found


async def caller(request: Request) -> Caller:
    found: Caller = request.scope[CALLER]
    return found


async def scope(request: Request) -> Scope:
    """The project of the key that asks: whose rows a route may see."""
    return (await caller(request)).scope


ServerParts = Annotated[Parts, Depends(parts)]
Asker = Annotated[Caller, Depends(caller)]
Project = Annotated[Scope, Depends(scope)]


def body(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads a JSON body strictly: no duplicate keys, no NaN, no unknown fields."""

    async def read(request: Request) -> Body:
        sent = await request.body()
        value = _parsed(sent) if len(sent) < _LARGE else await asyncio.to_thread(_parsed, sent)
        if not isinstance(value, dict):
            raise InvalidRequest("The JSON body must be an object.")
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise from_validation(error, value) from None

    read.reads = model  # type: ignore[attr-defined] # for the API's description
    return read


def _parsed(sent: bytes) -> object:
    """Raises InvalidRequest."""
    try:
        return strict_json.loads(sent.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8; send JSON in UTF-8.") from None
    except strict_json.JSONError as error:
        raise InvalidRequest(f"We could not parse the JSON body of your request: {error}.") from None


@dataclass(frozen=True, slots=True)
class Paging:
    after: str | None
    limit: int


def paging(default: int, most: int = 10_000) -> Callable[..., Awaitable[Paging]]:
    """A dependency that reads `after` and `limit`; `starting_after` and `cursor` are what old clients call it."""

    async def read(
        after: str | None = None,
        starting_after: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=0)] = default,
    ) -> Paging:
        return Paging(after or starting_after or cursor, min(limit, most))

    return read


def page(items: Slice[Item], name: Callable[[Item], str]) -> Page[Item]:
    found = items.items
    return Page(
        data=found,
        first_id=name(found[0]) if found else None,
        last_id=name(found[-1]) if found else None,
        has_more=items.has_more,
    )
