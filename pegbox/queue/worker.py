"""A thread that takes jobs in certain statuses, one after another, and hands each to its handler."""

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from pegbox import metrics
from pegbox.errors import JobFailure, LostRace
from pegbox.queue import store
from pegbox.queue.states import Failure, QueuedJob, Status
from pegbox.queue.store import Event
from pegbox.storage.db import Database

log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.5
_BEAT_SECONDS = 5.0


class Lease:
    """A handler's hold on its job: beat it at least every LEASE_SECONDS."""

    def __init__(self, db: Database, job: QueuedJob, closing: threading.Event) -> None:
        self._db = db
        self._job = job
        self.closing = closing  # set when the server shuts down: drop the work, the next start goes on

    def beat(self) -> QueuedJob:
        """Prolong the lease, and see how the job stands. Raises LostRace if the lease is gone: stop at once,
        nothing may be written any more."""
        with self._db.write() as tx:
            return store.hold(tx, self._job)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Beat from a thread of its own, around work that takes long and can't. A lease that is lost meanwhile is
        found out by the next write."""
        over = threading.Event()

        def beat() -> None:
            with suppress(LostRace):
                while not over.wait(_BEAT_SECONDS):
                    self.beat()

        thread = threading.Thread(target=beat, name="lease")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


# Does the work and moves the job on. Raises JobFailure to fail it.
Handler = Callable[[QueuedJob, Lease], None]


class Worker:
    def __init__(self, db: Database, statuses: Collection[Status], handle: Handler, *, name: str) -> None:
        self._db = db
        self._statuses = statuses
        self._handle = handle
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
                job = store.claim(self._db, self._statuses)
                if job is not None:
                    self._work(job)
                    continue
            except Exception:  # a full disk, say: keep the thread alive and try again
                log.exception("the queue can't be read")
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()

    def _work(self, job: QueuedJob) -> None:
        try:
            self._handle(job, Lease(self._db, job, self._closing))
        except LostRace as lost:
            metrics.LEASE_LOST.inc()
            log.warning("%s; dropping it", lost)
        except JobFailure as failure:
            self._fail(job, Failure(failure.code, failure.message, failure.param))
        except Exception:
            log.exception("job %s broke", job.id)
            message = "The job failed due to an internal error; the server's log has the details."
            self._fail(job, Failure("server_error", message, None))

    def _fail(self, job: QueuedJob, failure: Failure) -> None:
        try:
            with self._db.write() as tx:
                current = store.get(tx, job.id)
                if current is not None and current.lease_token == job.lease_token:
                    because = Event("ended", failure.message, level="error")
                    store.move(tx, current, Status.FAILED, because=because, failure=failure)
        except LostRace as lost:
            log.warning("%s; its failure is dropped", lost)
