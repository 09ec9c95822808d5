"""API keys: minted once, stored as a hash, checked at every request.

A key holds 256 random bits, so a plain sha256 is enough, and looking its hash up tells nothing about the key.
"""

import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, or_, select, update

from pegbox import ids
from pegbox.auth import audit
from pegbox.auth.access import Access, Caller
from pegbox.errors import InvalidRequest, NotFound, PegboxError
from pegbox.storage.db import Database
from pegbox.storage.paging import Slice, fetch, paged
from pegbox.storage.scope import DEFAULT, Scope
from pegbox.storage.tables import api_keys, projects

log = logging.getLogger(__name__)
_PREFIX = "sk-pegbox-"
_SHOWN = len(_PREFIX) + 4  # characters at the beginning of a minted key
_FRESH_SECONDS = 2.0  # another server of the same database may have revoked a key
_USED_SECONDS = 60  # "last used" is true to the minute, and costs a write a minute


@dataclass(frozen=True, slots=True)
class Key:
    """A row of `api_keys`, with its project's state. Times are unix seconds."""

    id: str
    scope: Scope
    name: str
    access: Access
    prefix: str
    hint: str
    source: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    archived: bool

    @property
    def redacted(self) -> str:
        return f"{self.prefix}...{self.hint}"

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()

    @property
    def is_good(self) -> bool:
        return self.revoked_at is None and not self.has_expired and not self.archived

    @property
    def caller(self) -> Caller:
        return Caller(self.id, self.scope, self.access)


class Keys:
    """The keys of all projects, kept in memory: checking one costs no query."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[str, Key] = {}  # by sha256
        self._noted: dict[str, int] = {}  # id → the use that was written last
        self._read_at = 0.0
        self._reading = Lock()
        self.reload()

    # --- at every request ------------------------------------------------------------------------------------

    @property
    def is_stale(self) -> bool:
        return time.monotonic() - self._read_at > _FRESH_SECONDS

    def reload(self) -> None:
        with self._reading:  # else what was read before a key was revoked could be kept after it
            with self._db.read() as tx:
                known = {row.sha256: _key(row) for row in tx.execute(_all())}
            self._known, self._read_at = known, time.monotonic()

    def find(self, key: str) -> Key | None:
        """The row of a key that somebody sent, good or not. Compares hashes, so timing tells nothing about keys."""
        return self._known.get(_hash(key))

    def use_is_due(self, key: Key) -> bool:
        return int(time.time()) - max(self._noted.get(key.id, 0), key.last_used_at or 0) >= _USED_SECONDS

    def note_use(self, key: Key) -> None:
        """Write down that it was used. Never the reason why a request fails."""
        now = self._noted[key.id] = int(time.time())
        try:
            with self._db.touch() as tx:  # a read waits for it: it goes before all that is written
                tx.execute(update(api_keys).where(api_keys.c.id == key.id).values(last_used_at=now))
        except Exception:  # a full disk, say
            log.exception("the use of a key can't be written down")

    # --- for those who look after them -----------------------------------------------------------------------

    def list(self, scope: Scope, *, after: str | None, limit: int) -> Slice[Key]:
        """Newest first; revoked ones stay on the list, as the audit log does."""
        query = _all().where(scope.owns(api_keys))
        with self._db.read() as tx:
            statement = paged(scope, query, api_keys.c.seq, api_keys.c.id, follows=after is not None)
            page = fetch(tx, statement, after, limit)
        return Slice([_key(row) for row in page.items], page.has_more)

    def get(self, scope: Scope, key_id: str) -> Key:
        with self._db.read() as tx:
            return _get(tx, scope, key_id)

    def mint(
        self, actor: Caller | None, scope: Scope, name: str, access: Access, *, expires_in: int | None = None
    ) -> tuple[Key, str]:
        """A fresh key, and its text, which nobody can show again. `expires_in` is in seconds.

        Raises InvalidRequest in a project that is archived.
        """
        with self._db.write() as tx:
            made, text = _mint(tx, scope, name, access, expires_in)
            audit.note(tx, actor, scope, "api_key.created", made.id, {"name": name, "scopes": [access]})
        self.reload()
        return made, text

    def rotate(self, actor: Caller, scope: Scope, key_id: str, overlap: int) -> tuple[Key, str]:
        """A successor with the same name, scope and lifetime. The old one stays good for `overlap` seconds.

        Raises InvalidRequest for a key that is revoked, expired or the server's setting.
        """
        now = int(time.time())
        with self._db.write() as tx:
            old = _changeable(_get(tx, scope, key_id))
            if old.expires_at is not None and old.expires_at <= now:
                raise InvalidRequest("This key has expired; create a new one.", code="expired_key")
            lifetime = None if old.expires_at is None else max(1, old.expires_at - old.created_at)
            made, text = _mint(tx, scope, old.name, old.access, lifetime)
            until = now + overlap if old.expires_at is None else min(old.expires_at, now + overlap)
            tx.execute(scope.update(api_keys).where(api_keys.c.id == old.id).values(expires_at=until))
            details: dict[str, object] = {"rotated_to": made.id, "expires_at": until}
            audit.note(tx, actor, scope, "api_key.updated", old.id, details)
            audit.note(tx, actor, scope, "api_key.created", made.id, {"name": old.name, "scopes": [old.access]})
        self.reload()
        return made, text

    def revoke(self, actor: Caller, scope: Scope, key_id: str) -> None:
        """At once, and for good. Changes nothing where it was revoked already."""
        with self._db.write() as tx:
            key = _get(tx, scope, key_id)
            if key.revoked_at is not None:
                return
            if _changeable(key).is_good and scope == DEFAULT and _is_last_admin(tx, key):
                raise InvalidRequest(
                    "This is the last admin key of the default project; create another one first.",
                    code="last_admin_key",
                )
            gone = scope.update(api_keys).where(api_keys.c.id == key.id)
            tx.execute(gone.values(revoked_at=int(time.time())))
            audit.note(tx, actor, scope, "api_key.deleted", key.id, {"name": key.name})
        self.reload()

    # --- at the start of a server ----------------------------------------------------------------------------

    def ensure(self, configured: str | None) -> str | None:
        """See to it that somebody can come in: with the configured key, or with one minted now.

        Returns a key that was minted now, to be shown once, and None otherwise. Raises PegboxError for a configured
        key that was revoked or belongs to a project.
        """
        if configured is not None:
            self._configure(configured)
            return None
        with self._db.read() as tx:
            if _admins(tx):
                return None
        return self.mint(None, DEFAULT, "first key", Access.ADMIN)[1]

    def _configure(self, configured: str) -> None:
        sha256 = _hash(configured)
        with self._db.write() as tx:  # a key that the setting named earlier and no longer names is gone
            named = (api_keys.c.source == "settings") & (api_keys.c.sha256 != sha256) & api_keys.c.revoked_at.is_(None)
            tx.execute(update(api_keys).where(named).values(revoked_at=int(time.time())))
            row = tx.execute(_all().where(api_keys.c.sha256 == sha256)).first()
            key = None if row is None else _key(row)
            if key is None:
                values = _values(configured, DEFAULT, "PEGBOX_API_KEY", Access.ADMIN, None)
                tx.execute(insert(api_keys).values({**values, "source": "settings"}))
            elif key.source == "settings":
                tx.execute(update(api_keys).where(api_keys.c.id == key.id).values(revoked_at=None))
            elif not key.is_good or not key.caller.runs_the_server:
                raise PegboxError(
                    f"PEGBOX_API_KEY names the key {key.id}, which is revoked, expired or no admin key of the default "
                    "project; choose another one"
                )
        self.reload()


def _all() -> Select[Any]:
    return select(api_keys, projects.c.archived_at).join(projects, projects.c.id == api_keys.c.project_id)


def _get(tx: Connection, scope: Scope, key_id: str) -> Key:
    row = tx.execute(_all().where(scope.owns(api_keys), api_keys.c.id == key_id)).first()
    if row is None:
        raise NotFound(f"No such API key: {key_id}", param="api_key_id", code="api_key_not_found")
    return _key(row)


def _mint(tx: Connection, scope: Scope, name: str, access: Access, expires_in: int | None) -> tuple[Key, str]:
    text = _PREFIX + secrets.token_urlsafe(32)
    values = _values(text, scope, name, access, expires_in)
    tx.execute(insert(api_keys).values({**values, "source": "minted"}))
    made = _get(tx, scope, str(values["id"]))
    if made.archived:
        raise InvalidRequest("This project is archived: a key to it would open nothing.", code="project_archived")
    return made, text


def _values(key: str, scope: Scope, name: str, access: Access, expires_in: int | None) -> dict[str, object]:
    now = int(time.time())
    return {
        "id": ids.mint("key"), "project_id": scope.project_id, "name": name, "access": access, "sha256": _hash(key),
        # A key that an operator thought up may be short: then nearly nothing of it is shown.
        "prefix": key[:_SHOWN] if key.startswith(_PREFIX) else "", "hint": key[-4:] if len(key) > 12 else "",
        "created_at": now, "expires_at": now + expires_in if expires_in else None,
    }  # fmt: skip


def _changeable(key: Key) -> Key:
    """Raises InvalidRequest for what can't be rotated or revoked here."""
    if key.source == "settings":
        text = "This key is the server's setting PEGBOX_API_KEY; change it there and start the server anew."
        raise InvalidRequest(text, code="configured_key")
    if key.revoked_at is not None:
        raise InvalidRequest("This key is revoked; create a new one.", code="revoked_key")
    return key


def _admins(tx: Connection) -> int:
    """How many keys can look after the server now."""
    lives = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > int(time.time()))
    good = DEFAULT.owns(api_keys) & (api_keys.c.access == Access.ADMIN) & api_keys.c.revoked_at.is_(None) & lives
    return tx.execute(select(func.count()).select_from(api_keys).where(good)).scalar_one()


def _is_last_admin(tx: Connection, key: Key) -> bool:
    return key.access == Access.ADMIN and _admins(tx) <= 1


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        scope=Scope(row.project_id),
        name=row.name,
        access=Access(row.access),
        prefix=row.prefix,
        hint=row.hint,
        source=row.source,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        archived=row.archived_at is not None,
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
