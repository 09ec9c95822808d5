"""A worker's hold on its job, and how a worker that can't prolong it stops itself in time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pegbox.errors import LostRace
from pegbox.queue import store
from pegbox.queue.states import QueuedJob
from pegbox.queue.store import LEASE_SECONDS
from pegbox.storage.db import UNREACHABLE, Database

log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
# Without a heartbeat that went through for so long, a worker gives up. What is left of the lease is the time to kill
# its process in.
FENCE_SECONDS = LEASE_SECONDS * 2 / 3


def steady() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """Of one claim. `since`: when the claim was asked for, by `clock`; the lease was granted then or later."""

    def __init__(
        self,
        db: Database,
        job: QueuedJob,
        closing: threading.Event,
        *,
        clock: Callable[[], float] = steady,
        since: float | None = None,
    ) -> None:
        self._db = db
        self._job = job
        self.closing = closing  # set when the server shuts down: drop the work, the next start goes on
        self._clock = clock
        self._fence = (clock() if since is None else since) + FENCE_SECONDS
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether the job is no longer ours, or may not be in a moment: nothing may be done for it any more."""
        if self._clock() >= self._fence:
            self._lost.set()
        return self._lost.is_set()

    def check(self) -> None:
        """Raises LostRace where the lease is lost."""
        if self.lost:
            raise LostRace(f"the lease of {self._job.id} is gone, or no heartbeat went through for too long")

    def beat(self) -> QueuedJob:
        """Prolong the lease, and see how the job stands. A database that can't be reached is borne for a while; then
        the job is as it was last seen.

        Raises LostRace if the lease is gone: stop at once, nothing may be written any more.
        """
        self.check()
        asked = self._clock()
        try:
            with self._db.touch() as tx:
                seen = store.hold(tx, self._job)
        except UNREACHABLE as error:
            log.warning("no heartbeat for %s: %s", self._job.id, error)
            return self._job
        except LostRace:
            self._lost.set()
            raise
        self.check()  # an answer that took too long comes too late
        self._fence = asked + FENCE_SECONDS
        self._job = seen
        return seen

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Beat from a thread of its own, around work that takes long and can't. A lease that is lost meanwhile is
        found out by the next write."""
        over = threading.Event()

        def beat() -> None:
            with suppress(LostRace):
                while not over.wait(BEAT_SECONDS):
                    self.beat()

        with _thread(beat, "heartbeat", over):
            yield

    @contextmanager
    def guarded(self, kill: Callable[[], None]) -> Iterator[None]:
        """Call `kill` when the lease is lost: from a thread of its own, because ours may be waiting for the database.

        The fence is well before the lease's end, so what is killed is gone before another worker can start it anew.
        """
        over = threading.Event()

        def watch() -> None:
            while not over.wait(min(1.0, max(0.01, self._fence - self._clock()))):
                if self.lost:
                    log.error("%s: the lease is lost; its process is killed", self._job.id)
                    kill()
                    return

        with _thread(watch, "fence", over):
            yield


@contextmanager
def _thread(run: Callable[[], None], name: str, over: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=run, name=name)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
