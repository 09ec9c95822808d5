"""What a server does for its store while it serves: what has had its time goes, and a commit that failed is settled as
soon as the disk is well again."""

import logging
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from pegbox.jobs import repeats
from pegbox.jobs.submit import Desk
from pegbox.queue import outbox
from pegbox.settings import Settings
from pegbox.storage.trouble import trouble

log = logging.getLogger(__name__)
DAY_SECONDS = 86_400
_RETRY_SECONDS = 3_600
_LOOK_SECONDS = 1.0


def prune(desk: Desk, settings: Settings, now: float) -> None:
    """Forget what nobody asks for any more. The audit log and the events of jobs are kept for good."""
    desk.files.purge()
    repeats.prune(desk.db, now)
    if settings.keep_deliveries_days:
        outbox.prune(desk.db, now - settings.keep_deliveries_days * DAY_SECONDS)


class Rounds:
    """A thread: the first round when it starts, the next a day later."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self._desk = desk
        self._settings = settings
        self._due = 0.0  # by a clock that nobody sets
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rounds")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._look()
            except (OSError, SQLAlchemyError) as error:  # a disk that is full, say; the next look is soon enough
                log.warning("upkeep has to wait: %s", trouble(error) or error)
            except Exception:
                log.exception("upkeep failed")
            self._closing.wait(_LOOK_SECONDS)

    def _look(self) -> None:
        if self._desk.db.doubt.is_there:
            self._desk.db.doubt.settle()
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _RETRY_SECONDS  # if it breaks off
            prune(self._desk, self._settings, time.time())
            self._due = time.monotonic() + DAY_SECONDS
