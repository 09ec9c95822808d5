"""API keys: minted once, stored as a hash, checked at every request."""

import hashlib
import secrets
import time

from sqlalchemy import delete, func, select

from pegbox.storage.db import Database, insert_if_new
from pegbox.storage.tables import api_keys


class Keys:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: frozenset[str] = frozenset()
        self._reload()

    def accepts(self, key: str) -> bool:
        """Whether a key is one of ours. Compares hashes, so timing tells nothing about the key."""
        return _hash(key) in self._known

    def ensure(self, configured: str | None) -> str | None:
        """See to it that there is a key: the configured one, or one minted now.

        Returns a key that was minted now, to be shown once, and None otherwise.
        """
        if configured is not None:
            with self._db.write() as tx:  # a key that the setting named earlier and no longer names is gone
                tx.execute(delete(api_keys).where(api_keys.c.source == "settings"))
            self._add(configured, "settings")
            return None
        with self._db.read() as tx:
            if tx.execute(select(func.count()).select_from(api_keys)).scalar():
                return None
        key = "sk-pegbox-" + secrets.token_urlsafe(32)
        self._add(key, "minted")
        return key

    def _add(self, key: str, source: str) -> None:
        values = {"sha256": _hash(key), "hint": key[-4:], "source": source, "created_at": int(time.time())}
        with self._db.write() as tx:
            insert_if_new(tx, api_keys, **values)
        self._reload()

    def _reload(self) -> None:
        with self._db.read() as tx:
            self._known = frozenset(tx.execute(select(api_keys.c.sha256)).scalars())


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
