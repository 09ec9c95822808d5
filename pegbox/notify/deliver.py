"""The thread that takes endings out of the outbox and mails them, again and again until it works or a day is over."""

import logging
import smtplib
import threading

from sqlalchemy import select

from pegbox.jobs import records
from pegbox.jobs.records import checkpoint
from pegbox.jobs.submit import Desk
from pegbox.notify import mail
from pegbox.queue import outbox, store
from pegbox.queue.outbox import Ending
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.storage.tables import checkpoints

log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0


class Deliverer:
    """Without mail settings the outbox is drained all the same, so that mail set up later tells no old stories."""

    def __init__(self, desk: Desk, settings: Settings, *, back_off: tuple[float, ...] = outbox.BACK_OFF) -> None:
        self._desk = desk
        self._settings = settings
        self._back_off = back_off
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Does not wait for a mail server that hangs: what it was sending is sent again at the next start."""
        self._closing.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                for ending in outbox.due(self._desk.db):
                    self._deliver(ending)
            except Exception:
                log.exception("the outbox can't be drained")
            self._closing.wait(_POLL_SECONDS)

    def _deliver(self, ending: Ending) -> None:
        try:
            if self._settings.smtp_host and self._settings.mail_to:
                self._mail(ending)
        except (OSError, smtplib.SMTPException) as error:
            log.warning("mail about %s was not sent: %s", ending.job_id, error)
            outbox.postpone(self._desk.db, ending, str(error), self._back_off)
        else:
            outbox.delivered(self._desk.db, ending)

    def _mail(self, ending: Ending) -> None:
        latest = select(checkpoints).where(checkpoints.c.job_id == ending.job_id).order_by(checkpoints.c.step.desc())
        with self._desk.db.read() as tx:
            job = store.get(tx, ending.job_id)
            tuning = records.find(tx, Scope(job.project_id), job.id) if job else None
            row = tx.execute(latest.limit(1)).first()
        if tuning is not None:
            mail.send(mail.compose(tuning, checkpoint(row) if row else None, self._settings), self._settings)
