"""Group commit: whoever writes while others wait for their turn leaves the transaction open for the next of them, and
all wait for one commit and its flush. As in every database that flushes; here one level up, because SQLite has one
writer and waits for its flush alone.

A block of its own is a savepoint, so one that fails takes nothing of the others with it. Nobody is told of success
before the flush that made it true; if the commit fails, it fails for all.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Connection, Engine, Transaction
from sqlalchemy.exc import DBAPIError, OperationalError

from pegbox import durable, metrics
from pegbox.storage.doubt import Doubt

_MOST_SECONDS = 0.5  # a group may grow as long as the last flush took, and no longer than this


@dataclass(slots=True)
class _Open:
    """A transaction that several blocks share, one after another."""

    tx: Connection
    began: float
    blocks: int = 0  # that are in it and await its commit
    ended: threading.Event = field(default_factory=threading.Event)
    error: DBAPIError | None = None


class Group:
    """The blocks of `join` run one at a time; `one_writer` is held from a transaction's begin to its commit."""

    def __init__(
        self, writer: Engine, one_writer: threading.Lock, doubt: Doubt, is_open: Callable[[Connection], bool]
    ) -> None:
        self._writer = writer
        self._is_open = is_open  # asks the database itself
        self._one_writer = one_writer
        self._doubt = doubt
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0
        self._urgent = 0  # who goes past the line
        self._open: _Open | None = None  # belongs to who has the turn
        self._flush_seconds = 0.0  # what the last commit took

    @contextmanager
    def join(self) -> Iterator[Connection]:
        """A block whose changes are on the disk when it is left. Raises what the block raises, and what the database
        raises for the transaction; then nothing of the block is there, unless it is InDoubt."""
        with self._counted("_waiting"):
            self._turn.acquire()
        try:
            shared = self._open or self._begin()
            self._open = None
            own: Transaction | None = None
            try:
                own = shared.tx.begin_nested() if shared.blocks else None
                yield shared.tx
                durable.step("commit.before")
                if own is not None:
                    own.commit()
            except BaseException as error:
                self._leave(shared, own, error)
                raise
            shared.blocks += 1
            self._hand_on(shared)
        finally:
            self._turn.release()
        shared.ended.wait()
        if shared.error is not None:
            raise copy.copy(shared.error) from None
        durable.step("commit.done")

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """A transaction of one block, past the line of those who wait for `join`."""
        with self._counted("_urgent"):
            shared = self._begin()
        try:
            yield shared.tx
            durable.step("commit.before")
        except BaseException as error:
            self._leave(shared, None, error)
            raise
        self._commit(shared)
        if shared.error is not None:
            raise shared.error from None
        durable.step("commit.done")

    @contextmanager
    def _counted(self, as_: Literal["_waiting", "_urgent"]) -> Iterator[None]:
        with self._count:
            setattr(self, as_, getattr(self, as_) + 1)
        try:
            yield
        finally:
            with self._count:
                setattr(self, as_, getattr(self, as_) - 1)

    def _begin(self) -> _Open:
        self._one_writer.acquire()
        try:
            self._doubt.look()
            tx = self._writer.connect()
            try:
                tx.begin()
            except BaseException:
                tx.close()
                raise
        except BaseException:
            self._one_writer.release()
            raise
        return _Open(tx, time.perf_counter())

    def _leave(self, shared: _Open, own: Transaction | None, error: BaseException) -> None:
        """A block failed. What the others did stays, unless the database has ended the whole transaction."""
        told = error if isinstance(error, DBAPIError) else _lost()
        if not shared.blocks:
            self._end(shared, None)
        elif own is None:
            self._end(shared, told)
        else:
            try:
                own.rollback()
            except DBAPIError:  # what it would roll back to is gone
                self._end(shared, told)
            else:
                self._hand_on(shared)

    def _hand_on(self, shared: _Open) -> None:
        """To the next in line, if there is one; the last commits."""
        longest = min(self._flush_seconds, _MOST_SECONDS)
        may_grow = not self._urgent and time.perf_counter() - shared.began < longest
        if self._waiting and may_grow and self._lives(shared.tx):
            self._open = shared
        else:
            self._commit(shared)

    def _commit(self, shared: _Open) -> None:
        started = time.perf_counter()
        if not self._lives(shared.tx):
            self._end(shared, _lost())
            return
        try:
            shared.tx.commit()
        except OperationalError as error:
            _give_back(shared.tx)  # for the doubt is settled with it
            told: DBAPIError = error
            try:
                told = self._doubt.arose(error)
            finally:
                self._end(shared, told)
        except BaseException as error:
            self._end(shared, error if isinstance(error, DBAPIError) else _lost())
            raise
        else:
            self._flush_seconds = time.perf_counter() - started
            metrics.COMMIT_SECONDS.observe(self._flush_seconds)
            self._end(shared, None)

    def _end(self, shared: _Open, error: DBAPIError | None) -> None:
        shared.error = error
        try:
            _give_back(shared.tx)
        finally:
            self._one_writer.release()
            shared.ended.set()

    def _lives(self, tx: Connection) -> bool:
        """Whether what the blocks did is still to be committed. A database may end a transaction by itself: SQLite on a
        full disk or an I/O error, PostgreSQL when it loses the session."""
        return not tx.invalidated and not tx.closed and tx.in_transaction() and self._is_open(tx)


def _give_back(tx: Connection) -> None:
    """Roll back what was not committed. After a commit that failed SQLAlchemy takes the transaction for ended, and the
    driver does not."""
    with suppress(Exception):
        tx.connection.rollback()
    with suppress(DBAPIError):
        tx.close()


def _lost() -> OperationalError:
    return OperationalError(None, None, Exception("the database ended the transaction"), hide_parameters=True)
