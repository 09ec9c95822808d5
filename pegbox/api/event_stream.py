"""A job's events as server-sent events: those that were told, then each as it comes, until the job has ended.

A stream that waits holds a coroutine and no thread: one look at the table, twice a second, serves all of them.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from anyio import to_thread
from sqlalchemy import func, select
from starlette.responses import StreamingResponse

from pegbox.api.drain import Drain
from pegbox.jobs import records
from pegbox.jobs.records import ToldEvent
from pegbox.queue.states import is_final
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import events
from pegbox.wire.base import Response

LOOK_SECONDS = 0.5
ALIVE_SECONDS = 15.0  # between two signs of life on a silent stream, so that nothing on the way hangs up
_PAGE = 1_000  # events read at once


class ServerClosingError(Exception):
    """The server ends before the job does; whoever follows may ask again."""


class Feed:
    """Tells streams when their job has news."""

    def __init__(self, db: Database, drain: Drain) -> None:
        self._db = db
        self._drain = drain
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)  # by job
        self._looking: asyncio.Task[None] | None = None

    async def follow(self, scope: Scope, job_id: str) -> AsyncIterator[ToldEvent | None]:
        """All events of a job, oldest first; ends when the job has ended. None is a sign of life.

        Raises ServerClosingError when the server ends first.
        """
        bell = asyncio.Event()
        self._bells[job_id].add(bell)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        last: str | None = None
        try:
            while True:
                bell.clear()
                news, over = await to_thread.run_sync(self._read, scope, job_id, last)
                for event in news:
                    last = event.id
                    yield event
                if over:
                    return
                if self._drain.begun:
                    raise ServerClosingError
                if len(news) < _PAGE and not await _rings(bell):
                    yield None
        finally:
            self._forget(job_id, bell)

    def _read(self, scope: Scope, job_id: str, last: str | None) -> tuple[list[ToldEvent], bool]:
        """What comes after the event `last`, and whether that is the end: both of one moment."""
        with self._db.read() as tx:
            found = records.events_after(tx, scope, job_id, last, _PAGE)
            over = is_final(records.get(tx, scope, job_id).job.status)
        return found.items, over and not found.has_more

    def _forget(self, job_id: str, bell: asyncio.Event) -> None:
        self._bells[job_id].discard(bell)
        if not self._bells[job_id]:
            del self._bells[job_id]
        if not self._bells and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look(self) -> None:
        latest = await to_thread.run_sync(self._latest)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            told = await to_thread.run_sync(self._told_since, latest)  # no row gets a lower number later: storage/db.py
            latest = max([latest, *told.values()])
            for job_id in self._bells.keys() if self._drain.begun else told.keys() & self._bells.keys():
                for bell in self._bells[job_id]:
                    bell.set()

    def _latest(self) -> int:
        with self._db.read() as tx:
            return tx.execute(select(func.max(events.c.seq))).scalar() or 0

    def _told_since(self, seq: int) -> dict[str, int]:
        """The jobs with an event after `seq`, and each one's newest."""
        newest = select(events.c.job_id, func.max(events.c.seq)).where(events.c.seq > seq).group_by(events.c.job_id)
        with self._db.read() as tx:
            return {row[0]: row[1] for row in tx.execute(newest)}


async def _rings(bell: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(ALIVE_SECONDS):
            await bell.wait()
            return True
    return False


def respond(feed: Feed, scope: Scope, job_id: str, to_wire: Callable[[ToldEvent], Response]) -> StreamingResponse:
    """The stream of a job that exists."""

    async def lines() -> AsyncIterator[str]:
        with suppress(ServerClosingError):  # no [DONE]: there is more to come
            async for event in feed.follow(scope, job_id):
                yield ": waiting\n\n" if event is None else f"data: {to_wire(event).model_dump_json()}\n\n"
            yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-cache"})
