"""One call makes one job, however often it is sent.

A client that says which calls are the same sends an `Idempotency-Key`. The stock client sends none: it repeats a call
whose answer it did not get and says so in `x-stainless-retry-count`, so that such a call is known by its body and by
the API key that sent it.
"""

import hashlib
import json
import time
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from pegbox.errors import Conflict
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import idempotency, jobs, tunings

KEPT_SECONDS = 86_400
# The stock client waits ten minutes for an answer before it asks again; the answer may have got lost at the very start.
RETRY_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a create call beside its body."""

    key_id: str | None = None  # the API key that sent it
    idempotency_key: str | None = None
    is_retry: bool = False  # the client says that it has sent it before

    @property
    def may_repeat(self) -> bool:
        return self.is_retry or self.idempotency_key is not None


def fingerprint(body: dict[str, object]) -> str:
    """Of a body with its defaults filled in: the order of its fields does not matter."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def earlier_job(tx: Connection, scope: Scope, call: Call, sha256: str) -> str | None:
    """The job that an earlier sending of this call made, or None. To be asked in the transaction that makes the job.

    Raises Conflict where the Idempotency-Key was sent with another body.
    """
    if call.idempotency_key is not None:
        return _same_key(tx, scope, call.idempotency_key, sha256)
    return _same_body(tx, scope, call, sha256) if call.is_retry else None


def remember(tx: Connection, scope: Scope, call: Call, sha256: str, job_id: str) -> None:
    """In the transaction that makes the job. The primary key lets only one of two such calls through."""
    if call.idempotency_key is None:
        return
    now = int(time.time())
    _forget(tx, now)
    values = {"key": call.idempotency_key, "request_sha256": sha256, "job_id": job_id, "created_at": now}
    tx.execute(insert(idempotency).values(project_id=scope.project_id, **values))


def prune(db: Database, now: float) -> None:
    """Forget the keys of more than a day ago, where no call has done so."""
    with db.write() as tx:
        _forget(tx, now)


def _forget(tx: Connection, now: float) -> None:
    tx.execute(delete(idempotency).where(idempotency.c.created_at <= now - KEPT_SECONDS))


def _same_key(tx: Connection, scope: Scope, key: str, sha256: str) -> str | None:
    young = idempotency.c.created_at > int(time.time()) - KEPT_SECONDS
    known = scope.select(idempotency).where(idempotency.c.key == key, young)
    row = tx.execute(known).first()
    if row is None:
        return None
    if row.request_sha256 != sha256:
        raise Conflict(
            f"This Idempotency-Key was sent with another body before, and made {row.job_id}. "
            "Send a new key with a new request.",
            code="idempotency_key_reused",
        )
    return str(row.job_id)


def _same_body(tx: Connection, scope: Scope, call: Call, sha256: str) -> str | None:
    query = (
        select(tunings.c.job_id)
        .join(jobs, jobs.c.id == tunings.c.job_id)
        .where(
            scope.owns(jobs),
            tunings.c.request_sha256 == sha256,
            tunings.c.created_by.is_not_distinct_from(call.key_id),
            jobs.c.created_at >= int(time.time()) - RETRY_SECONDS,
        )
    )
    return tx.execute(query.order_by(jobs.c.seq.desc()).limit(1)).scalar()
