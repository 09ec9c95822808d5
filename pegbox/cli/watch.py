"""Look at a job again and again until it has ended; every event is told once, oldest first."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pegbox.cli.client import Api, Unreachable, path
from pegbox.queue.states import Status, is_final
from pegbox.wire.base import Page
from pegbox.wire.fine_tuning import Job, JobEvent

ENDED = frozenset(status for status in Status if is_final(status))
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 30.0  # a server that is started anew goes on with the job


@dataclass(frozen=True, slots=True)
class Look:
    """The job as it stands, and what was said since the last look."""

    job: Job
    news: tuple[JobEvent, ...]
    newly_paused: bool  # and was not at the last look


def watch(api: Api, job_id: str) -> Iterator[Look]:
    """The last look is at a job that has ended. Raises Unreachable where the server is gone for long."""
    seen: str | None = None
    paused = False
    heard = time.monotonic()
    while True:
        try:
            # The job first: once it has ended, the events fetched after that are all there will be.
            job = api.get(path("fine_tuning", "jobs", job_id), Job)
            news = _events_since(api, job_id, seen)
        except Unreachable:
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise
        else:
            heard = time.monotonic()
            seen = news[-1].id if news else seen
            was_paused, paused = paused, job.status == Status.PAUSED
            yield Look(job, tuple(news), newly_paused=paused and not was_paused)
            if job.status in ENDED:
                return
        time.sleep(_LOOK_SECONDS)


def all_events(api: Api, job_id: str) -> list[JobEvent]:
    """Oldest first."""
    pages = api.pages(path("fine_tuning", "jobs", job_id, "events"), Page[JobEvent])
    return list(pages)[::-1]


def _events_since(api: Api, job_id: str, seen: str | None) -> list[JobEvent]:
    news: list[JobEvent] = []
    for event in api.pages(path("fine_tuning", "jobs", job_id, "events"), Page[JobEvent], limit=20):
        if event.id == seen:
            break
        news.append(event)
    return news[::-1]
