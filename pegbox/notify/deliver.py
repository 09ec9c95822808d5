"""The thread that takes endings out of the outbox, finds who wants to hear of them, and tells each of those again and
again until it works or a day is over. A receiver that hangs holds up nobody but itself."""

import logging
import smtplib
import threading
import time
from collections.abc import Iterable

from sqlalchemy import Connection, select

from pegbox import metrics
from pegbox.egress import Lookup, Rules, system_lookup
from pegbox.jobs import records
from pegbox.jobs.records import checkpoint
from pegbox.jobs.submit import Desk
from pegbox.notify import endpoints, mail, webhook
from pegbox.queue import outbox, store
from pegbox.queue.outbox import Delivery, Ending, Outcome
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.storage.tables import checkpoints
from pegbox.wire.webhooks import Event, EventData

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_AT_ONCE = 8


class Deliverer:
    def __init__(
        self,
        desk: Desk,
        settings: Settings,
        *,
        waits: tuple[float, ...] = outbox.WAITS,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._desk = desk
        self._settings = settings
        self._waits = waits
        self._lookup = lookup
        self._closing = threading.Event()
        self._busy: dict[str | None, threading.Thread] = {}  # receiver → who tells it
        self._thread = threading.Thread(target=self._run, name="deliver", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Does not wait for a receiver that hangs: what it was sent is sent again after the next start."""
        self._closing.set()
        deadline = time.monotonic() + 2
        for thread in (self._thread, *self._busy.values()):
            if thread.ident is not None:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                outbox.route(self._desk.db, self._receivers)
                self._busy = {name: thread for name, thread in self._busy.items() if thread.is_alive()}
                for delivery in outbox.claim(self._desk.db, self._busy, _AT_ONCE - len(self._busy)):
                    self._begin(delivery)
            except Exception:
                log.exception("the outbox can't be drained")
            self._closing.wait(_POLL_SECONDS)

    def _receivers(self, tx: Connection, ending: Ending) -> Iterable[str | None]:
        """Mail set up later, and endpoints made later, are told no old stories."""
        if self._settings.smtp_host and self._settings.mail_to:
            yield None
        if job := store.get(tx, ending.job_id):
            yield from endpoints.listeners(tx, ending, Scope(job.project_id))

    def _begin(self, delivery: Delivery) -> None:
        """In a thread of its own: it waits for somebody else's machine nearly all the time."""
        thread = threading.Thread(target=self._deliver, args=[delivery], name="deliver-one", daemon=True)
        self._busy[delivery.endpoint_id] = thread
        thread.start()

    def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = self._attempt(delivery)
            by = "mail" if delivery.endpoint_id is None else "webhook"
            metrics.DELIVERIES.labels(by, "delivered" if outcome.error is None else "failed").inc()
            if outcome.error is not None:
                to = delivery.endpoint_id or by
                log.warning("%s about %s was not delivered: %s", to, delivery.ending.job_id, outcome.error)
            outbox.note(self._desk.db, delivery, outcome, self._waits)
            if outcome.final and delivery.endpoint_id is not None:
                endpoints.disable(self._desk.db, delivery.endpoint_id)
        except Exception:
            log.exception("a delivery about %s broke", delivery.ending.job_id)

    def _attempt(self, delivery: Delivery) -> Outcome:
        if delivery.endpoint_id is None:
            return self._mail(delivery.ending)
        with self._desk.db.read() as tx:
            endpoint = endpoints.find(tx, delivery.endpoint_id)
        if endpoint is None or not endpoint.enabled:
            return Outcome(0, "the endpoint was deleted or switched off", final=True)
        return webhook.send(endpoint, event_of(delivery.ending), rules_of(self._settings), lookup=self._lookup)

    def _mail(self, ending: Ending) -> Outcome:
        started = time.monotonic()
        error = None
        latest = select(checkpoints).where(checkpoints.c.job_id == ending.job_id).order_by(checkpoints.c.step.desc())
        with self._desk.db.read() as tx:
            job = store.get(tx, ending.job_id)
            tuning = records.find(tx, Scope(job.project_id), job.id) if job else None
            row = tx.execute(latest.limit(1)).first()
        if tuning is not None:
            try:
                mail.send(mail.compose(tuning, checkpoint(row) if row else None, self._settings), self._settings)
            except (OSError, smtplib.SMTPException) as failed:
                error = str(failed)
        return Outcome(int((time.monotonic() - started) * 1000), error)


def event_of(ending: Ending) -> Event:
    """The same at every attempt."""
    return Event(
        id=ending.event_id,
        created_at=ending.created_at,
        type=endpoints.event_type(ending),
        data=EventData(id=ending.job_id),
    )


def rules_of(settings: Settings) -> Rules:
    """What the operator lets webhooks reach."""
    return Rules(networks=settings.webhook_reach, plain_http=settings.webhook_http)
