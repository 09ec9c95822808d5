"""A thread that takes jobs in certain statuses, one after another, and hands each to its handler."""

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from pegbox import metrics
from pegbox.errors import JobFailure, LostRace, RequestError, Setback, StorageBroken
from pegbox.queue import store
from pegbox.queue.lease import Lease, steady
from pegbox.queue.states import Failure, QueuedJob, Status
from pegbox.queue.store import Event
from pegbox.storage.db import UNREACHABLE, Database
from pegbox.storage.trouble import trouble

log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.5

# Does the work and moves the job on. Raises JobFailure to fail it, and Setback to have it tried again.
Handler = Callable[[QueuedJob, Lease], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the workers of one process."""

    owner: str | None = None  # the process, as the leases name it
    attempts: int = 5  # how often in a row work on a job may break off without getting further
    project_jobs: int = 0  # jobs of one project in training at once; 0 for any number


class Worker:
    def __init__(
        self, db: Database, statuses: Collection[Status], handle: Handler, *, name: str, rules: Rules | None = None
    ) -> None:
        self._db = db
        self._statuses = statuses
        self._handle = handle
        self._rules = rules or Rules()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There may be something to do now."""
        self._wake.set()

    def ask_to_close(self) -> None:
        """Drop the job in hand, to be taken up at the next start; take no other."""
        self._closing.set()
        self._wake.set()

    def close(self) -> None:
        """Return once the thread has ended."""
        self.ask_to_close()
        if self._thread.ident is not None:  # else it was never started
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                since = steady()
                job = store.claim(
                    self._db, self._statuses, owner=self._rules.owner, project_jobs=self._rules.project_jobs
                )
                if job is not None:
                    self._work(job, Lease(self._db, job, self._closing, since=since))
                    continue
            except Exception:  # a full disk, say: keep the thread alive and try again
                log.exception("the queue can't be read")
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()

    def _work(self, job: QueuedJob, lease: Lease) -> None:
        try:
            with lease.kept():
                if job.setbacks >= self._rules.attempts:
                    raise _given_up(job)  # noqa: TRY301
                self._handle(job, lease)
            if self._closing.is_set():
                with self._db.write() as tx:
                    store.give_back(tx, job)
        except LostRace as lost:
            metrics.LEASE_LOST.inc()
            log.warning("%s; dropping it", lost)
        except Setback as setback:
            self._set_back(job, str(setback))
        except JobFailure as failure:
            self._fail(job, Failure(failure.code, failure.message, failure.param))
        except UNREACHABLE as error:
            log.warning("job %s broke off: %s", job.id, error)
            with suppress(*UNREACHABLE):  # if it can't be reached now, either, the lease runs out
                self._set_back(job, "The server's database could not be reached.")
        except Exception as error:
            log.exception("job %s broke", job.id)
            refused = trouble(error)  # the disk, or something else of the machine
            if isinstance(refused, StorageBroken):
                self._set_back(job, refused.message)
            else:
                self._fail(job, _failure(refused))

    def _set_back(self, job: QueuedJob, because: str) -> None:
        try:
            with self._db.write() as tx:
                store.set_back(tx, job, because)
        except LostRace as lost:
            log.warning("%s; dropping it", lost)

    def _fail(self, job: QueuedJob, failure: Failure) -> None:
        try:
            with self._db.write() as tx:
                current = store.get(tx, job.id)
                if current is not None and current.lease_token == job.lease_token:
                    because = Event("ended", failure.message, level="error")
                    store.move(tx, current, Status.FAILED, because=because, failure=failure)
        except LostRace as lost:
            log.warning("%s; its failure is dropped", lost)


def _failure(refused: RequestError | None) -> Failure:
    """Of what was not foreseen, or of a disk that is full: that does not pass until somebody has made room."""
    if refused is not None:
        return Failure(refused.code or "server_error", refused.message, None)
    message = "The job failed due to an internal error; the server's log has the details."
    return Failure("server_error", message, None)


def _given_up(job: QueuedJob) -> JobFailure:
    return JobFailure(
        "server_error",
        f"The job was given up: work on it broke off {job.setbacks} times in a row without getting further. Each time "
        "its process or the server ended without a word, as they do when memory runs out. Use shorter examples, a "
        "smaller base model or a larger machine, or ask the server's operator what ended them.",
    )
