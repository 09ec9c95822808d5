"""A commit of SQLite whose flush failed: what is known then, and what has to be done before the next.

The transaction was not acknowledged, and it is rolled back; but its pages may lie whole in the write-ahead log, where
the next one to open the database finds them and takes them for good. A second flush proves nothing, because the kernel
may have dropped what it could not write. So nothing more is committed until all that was acknowledged has been written
anew, from the log into the data file, and flushed there, and the log is empty: `rewrite`. See docs/decisions/0017.
"""

import logging
import threading
from typing import Any

from pysqlite3 import dbapi2
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

log = logging.getLogger(__name__)


class InDoubt(OperationalError):  # noqa: N818 - it says what is known, and that is not that it failed
    """Nobody knows whether the transaction is on the disk; once the disk is well again it is not."""


class Doubt:
    """Of one database, as this process knows it. PostgreSQL looks after its own: there, there is none."""

    def __init__(self, writer: Engine, one_writer: threading.Lock) -> None:
        self._writer = writer
        self._one_writer = one_writer  # whoever calls `look` or `arose` holds it
        self.is_there = False

    def arose(self, error: OperationalError) -> OperationalError:
        """What to raise for a commit that failed: the error, where it could be settled at once that nothing of the
        transaction stays, and else InDoubt."""
        if not self._is_sqlite or "disk is full" in str(error.orig):
            return error  # on a full disk the last page, which makes it a commit, was not even written
        log.error("a commit failed (%s); nothing more is stored until the database was written anew", error.orig)
        self.is_there = True
        try:
            self.look()
        except OperationalError:
            return InDoubt(None, None, error.orig or error, hide_parameters=True)
        return error

    def look(self) -> None:
        """Before a transaction. Raises OperationalError as long as a doubt can't be settled."""
        if self.is_there:
            rewrite(self._writer)
            log.warning("the database was written anew after the commit that failed; storing goes on")
            self.is_there = False

    def settle(self, *, of_others: bool = False) -> None:
        """At any time. `of_others`: even if no commit of this process failed, because one of another may have. Raises
        OperationalError."""
        with self._one_writer:
            self.look()
            if of_others and self._is_sqlite:
                rewrite(self._writer)

    @property
    def _is_sqlite(self) -> bool:
        return self._writer.dialect.name == "sqlite"


def rewrite(writer: Engine) -> None:
    """Bring all that was committed from the log into the data file, empty the log, and look whether the whole is
    sound."""
    connection = writer.raw_connection()
    try:
        busy, *_ = _ask(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise OperationalError("wal_checkpoint", {}, Exception("database is locked"))
        (said,) = _ask(connection, "PRAGMA quick_check(1)")
        if said != "ok":
            raise OperationalError("quick_check", {}, Exception("database disk image is malformed"))
    finally:
        connection.close()


def _ask(connection: Any, pragma: str) -> tuple[Any, ...]:
    cursor = connection.cursor()
    try:
        row: tuple[Any, ...] = cursor.execute(pragma).fetchone()
    except dbapi2.Error as error:
        raise OperationalError(pragma, {}, error) from None
    finally:
        cursor.close()
    return row
