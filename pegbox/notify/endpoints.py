"""Webhook endpoints: who wants to hear of which events, and the secrets that sign what they hear."""

import base64
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from pegbox import ids
from pegbox.errors import InvalidRequest, NotFound
from pegbox.queue import outbox
from pegbox.queue.outbox import Ending
from pegbox.storage.db import Database
from pegbox.storage.paging import Slice, fetch, paged
from pegbox.storage.scope import Scope
from pegbox.storage.tables import webhook_endpoints
from pegbox.wire.webhooks import CreateEndpoint, UpdateEndpoint

_SECRET_BYTES = 32
_OLD_SECRET_SECONDS = 24 * 3600
_MOST = 50  # endpoints of a project: each event is sent to every one of them


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of `webhook_endpoints`."""

    id: str
    name: str
    url: str
    event_types: tuple[str, ...]
    secrets: tuple[str, ...]  # whsec_…, the newest first; more than one after a rotation
    created_at: int
    updated_at: int
    enabled: bool

    @property
    def secret_hint(self) -> str:
        return f"whsec_***{self.secrets[0][-4:]}"


def listeners(tx: Connection, ending: Ending, scope: Scope) -> list[str]:
    """The ids of a project's endpoints that want to hear of an ending."""
    listening = scope.select(webhook_endpoints).where(webhook_endpoints.c.disabled_at.is_(None))
    found = tx.execute(listening.order_by(webhook_endpoints.c.seq))
    return [row.id for row in found if event_type(ending) in row.event_types]


def event_type(ending: Ending) -> str:
    return f"fine_tuning.job.{ending.status}"


def create(db: Database, scope: Scope, wish: CreateEndpoint) -> Endpoint:
    """Raises InvalidRequest where there are too many. The URL was looked at by the caller."""
    now = int(time.time())
    values: dict[str, object] = {
        "id": ids.mint("webhook"), "name": wish.name, "url": wish.url,
        "event_types": wish.event_types, "secret": _new_secret(), "created_at": now, "updated_at": now,
    }  # fmt: skip
    with db.write() as tx:
        if len(tx.execute(scope.select(webhook_endpoints)).all()) >= _MOST:
            raise InvalidRequest(
                f"There are {_MOST} webhook endpoints already; delete one first.", code="too_many_webhook_endpoints"
            )
        row = tx.execute(scope.insert(webhook_endpoints).values(values).returning(webhook_endpoints)).one()
    return _endpoint(row)


def get(db: Database, scope: Scope, endpoint_id: str) -> Endpoint:
    """Raises NotFound."""
    with db.read() as tx:
        row = tx.execute(scope.select(webhook_endpoints).where(_named(endpoint_id))).first()
    return _found(row, endpoint_id)


def find(tx: Connection, endpoint_id: str) -> Endpoint | None:
    """For a delivery, whose receiver was chosen when it was routed: of whichever project, deleted ones are None."""
    row = tx.execute(select(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)).first()
    return None if row is None else _endpoint(row)


def list_endpoints(db: Database, scope: Scope, *, after: str | None, limit: int) -> Slice[Endpoint]:
    """Newest first."""
    query = scope.select(webhook_endpoints)
    with db.read() as tx:
        statement = paged(scope, query, webhook_endpoints.c.seq, webhook_endpoints.c.id, follows=after is not None)
        page = fetch(tx, statement, after, limit)
    return Slice([_endpoint(row) for row in page.items], page.has_more)


def change(db: Database, scope: Scope, endpoint_id: str, wish: UpdateEndpoint) -> Endpoint:
    """Raises NotFound. A wish that changes nothing leaves `updated_at` alone."""
    with db.write() as tx:
        row = tx.execute(scope.select(webhook_endpoints).where(_named(endpoint_id))).first()
        old = _found(row, endpoint_id)
        values: dict[str, object] = wish.model_dump(exclude_none=True, exclude={"enabled"})
        if wish.enabled is not None and wish.enabled != old.enabled:
            values["disabled_at"] = None if wish.enabled else int(time.time())
        if all(getattr(row, name) == value for name, value in values.items()):
            return old
        if values.get("disabled_at"):
            outbox.drop(tx, endpoint_id)
        return _write(tx, scope, endpoint_id, values)


def remove(db: Database, scope: Scope, endpoint_id: str) -> None:
    """With all its deliveries. Raises NotFound."""
    with db.write() as tx:
        if not tx.execute(scope.delete(webhook_endpoints).where(_named(endpoint_id))).rowcount:
            raise _unknown(endpoint_id)


def rotate(db: Database, scope: Scope, endpoint_id: str, *, keep_old: bool) -> Endpoint:
    """A new secret. The one before it signs as well for a day if it is kept, and never again if not."""
    with db.write() as tx:
        old = _found(tx.execute(scope.select(webhook_endpoints).where(_named(endpoint_id))).first(), endpoint_id)
        kept = {"old_secret": old.secrets[0], "old_secret_until": time.time() + _OLD_SECRET_SECONDS}
        values = {"secret": _new_secret(), **(kept if keep_old else dict.fromkeys(kept))}
        return _write(tx, scope, endpoint_id, values)


def disable(db: Database, endpoint_id: str) -> None:
    """The receiver said that it wants no more: nothing is sent to it until its owner switches it on again."""
    with db.write() as tx:
        row = update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id)
        tx.execute(row.values(disabled_at=int(time.time())))
        outbox.drop(tx, endpoint_id)


def _write(tx: Connection, scope: Scope, endpoint_id: str, values: dict[str, object]) -> Endpoint:
    row = scope.update(webhook_endpoints).where(_named(endpoint_id))
    values = {**values, "updated_at": int(time.time())}
    return _endpoint(tx.execute(row.values(values).returning(webhook_endpoints)).one())


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _named(endpoint_id: str) -> ColumnElement[bool]:
    return webhook_endpoints.c.id == endpoint_id


def _found(row: Row[Any] | None, endpoint_id: str) -> Endpoint:
    if row is None:
        raise _unknown(endpoint_id)
    return _endpoint(row)


def _unknown(endpoint_id: str) -> NotFound:
    return NotFound(
        f"No such webhook endpoint: {endpoint_id}", param="webhook_endpoint_id", code="webhook_endpoint_not_found"
    )


def _endpoint(row: Row[Any]) -> Endpoint:
    old = (row.old_secret,) if row.old_secret and row.old_secret_until > time.time() else ()
    return Endpoint(
        id=row.id,
        name=row.name,
        url=row.url,
        event_types=tuple(row.event_types),
        secrets=(row.secret, *old),
        created_at=row.created_at,
        updated_at=row.updated_at,
        enabled=row.disabled_at is None,
    )
