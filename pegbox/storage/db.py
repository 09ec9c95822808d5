"""Open the database and run transactions. With doubt.py, the only module that knows which SQL database it is.

SQLite, in the data directory, is for one machine. It comes from the `pysqlite3` wheel: the system's own may carry the
WAL-reset bug (fixed in 3.51.3), which corrupts a database that two connections write to. PostgreSQL is for several
machines that share a data directory (docs/postgres.md).

What the rest of pegbox may count on is the same with both: transactions that write come one after another, over all
processes, so what `write()` has read stays true until it commits, and rows get their numbers in the order in which they
become visible. Nobody who follows a table by `seq` can miss a row.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2
from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Engine,
    Float,
    Insert,
    Integer,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from pegbox.errors import PegboxError
from pegbox.storage.doubt import Doubt
from pegbox.storage.group import Group
from pegbox.storage.kept import kept

_OLDEST_SAFE_SQLITE = (3, 51, 3)
_OLDEST_POSTGRES = 13
_MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0006"  # the newest migration; a test keeps it true
_WRITER_LOCK = 0x706567  # one number for all pegbox processes of a PostgreSQL database: "peg"
_PATIENCE_SECONDS = 30
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")  # in JSON text, and not a backslash before the letters u0000

# A whole number of any size that we count: bytes, seconds, rows. SQLite has one integer type and wants it called so.
Whole = BigInteger().with_variant(Integer, "sqlite")
# What a query raises where the database can't be reached or does not answer. Bad SQL and broken constraints are not it.
# The second is PostgreSQL's for a session that slept in a transaction.
UNREACHABLE = (OperationalError, InternalError, NoConnection)


@dataclass(frozen=True, slots=True)
class _Engines:
    writer: Engine
    toucher: Engine
    readers: Engine
    is_open: Callable[[Connection], bool]  # whether the database itself holds a transaction open


class Database:
    """One database: `write()` for a transaction that changes rows, `read()` for one that doesn't.

    They are context managers that yield a SQLAlchemy connection, commit on leaving and roll back on an exception.
    `write()` is the only writer there is, on this machine or another: keep it short, do no work inside. Those of this
    process that wait for each other share one commit (group.py).
    `clock` is what `now()` tells on SQLite, in unix seconds; PostgreSQL asks its own, which all servers share.
    """

    def __init__(self, where: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        if isinstance(where, Path):
            self.name = "sqlite"
            self.is_local = True
            self._engines = _sqlite(where, clock)
        else:
            self.name = "postgresql"
            self.is_local = False
            self._engines = _postgres(where)
        one_writer = threading.Lock()
        self.doubt = Doubt(self._engines.writer, one_writer)
        self._group = Group(self._engines.writer, one_writer, self.doubt, self._engines.is_open)
        try:
            self._migrate()
        except OperationalError as error:
            self.close()
            if self.name == "sqlite":
                raise
            raise PegboxError(f"PostgreSQL can't be used: {str(error.orig).strip()}") from None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._group.join() as tx:
            yield tx

    @contextmanager
    def touch(self) -> Iterator[Connection]:
        """For one UPDATE of one row that needs nothing else to stand still, such as a heartbeat: where the database
        lets it, it does not wait for writers; else it is served before those of this process that wait."""
        if self._engines.toucher is self._engines.writer:
            with self._group.alone() as tx:
                yield tx
        else:
            with self._engines.toucher.begin() as tx:
                yield tx

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """All that is read inside is of one moment."""
        with self._engines.readers.begin() as tx:
            yield tx

    def close(self) -> None:
        for engine in (self._engines.writer, self._engines.toucher, self._engines.readers):
            engine.dispose()

    def _migrate(self) -> None:
        with self._engines.readers.begin() as tx:
            if _version(tx) == HEAD:  # the usual case, and it saves importing Alembic at every start
                return
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self._engines.writer.begin() as tx:  # of several servers that start at once, one migrates
            config.attributes["connection"] = tx
            try:
                command.upgrade(config, "head")
            except CommandError:
                raise PegboxError(
                    f"the database is of a newer pegbox (its tables are of version {_version(tx)}, this one knows "
                    f"{HEAD}); run the newer one, or restore a backup made before the update."
                ) from None


def insert_if_new(tx: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one with the same unique value is there. Returns whether it was inserted."""
    return tx.execute(new_row(tx.dialect.name, table), values).first() is not None


@kept
def new_row(dialect: str, table: Table) -> Insert:
    """Inserts a row and returns its primary key; returns nothing where one with the same unique value is there."""
    make = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return make(table).on_conflict_do_nothing().returning(*table.primary_key)


class now(GenericFunction[float]):  # noqa: N801 - it is written like a function of SQL
    """The database's own clock, in unix seconds: one for all who share the database."""

    type = Float()
    name = "pegbox_now"
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: object, **_: object) -> str:
    return "pegbox_now()"


@compiles(now, "postgresql")
def _now_postgres(_element: now, _compiler: object, **_: object) -> str:
    return "CAST(EXTRACT(epoch FROM clock_timestamp()) AS double precision)"


def _version(tx: Connection) -> str | None:
    if not inspect(tx).has_table("alembic_version"):
        return None
    at: str | None = tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return at


# --- SQLite --------------------------------------------------------------------------------------------------


def _sqlite(path: Path, clock: Callable[[], float]) -> _Engines:
    if dbapi2.sqlite_version_info < _OLDEST_SAFE_SQLITE:
        raise PegboxError(f"SQLite {dbapi2.sqlite_version} can lose data; install pysqlite3 0.6.1 or newer.")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = _sqlite_engine(path, clock, begin="BEGIN IMMEDIATE", pool_size=1)
    return _Engines(writer, writer, _sqlite_engine(path, clock, begin="BEGIN", pool_size=16), _sqlite_is_open)


def _sqlite_is_open(tx: Connection) -> bool:
    raw = tx.connection.dbapi_connection
    return isinstance(raw, dbapi2.Connection) and bool(raw.in_transaction)


def _sqlite_engine(path: Path, clock: Callable[[], float], *, begin: str, pool_size: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),  # a path may hold what means something in a URL
        module=dbapi2,
        hide_parameters=True,  # errors are logged, rows are not
        pool_size=pool_size,
        max_overflow=0 if pool_size == 1 else 64,
        connect_args={"check_same_thread": False, "timeout": _PATIENCE_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: dbapi2.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's "begin" below opens transactions, not the driver
        connection.create_function("pegbox_now", 0, clock)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if begin == "BEGIN":  # it touches nothing and can't fail, and SQLAlchemy's way costs more than a read
            connection.connection.execute(begin)
        else:
            connection.exec_driver_sql(begin)

    return engine


# --- PostgreSQL ----------------------------------------------------------------------------------------------


def _postgres(address: str) -> _Engines:
    try:
        url = make_url(address)
    except ArgumentError:
        raise PegboxError("PEGBOX_DATABASE_URL is not a URL; write postgresql://USER:PASSWORD@HOST/NAME.") from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise PegboxError(
            f"PEGBOX_DATABASE_URL names {url.drivername}; pegbox knows postgresql://…, and SQLite where it is not set."
        )
    url = url.set(drivername="postgresql+psycopg")
    writer = _postgres_engine(url, "READ COMMITTED", pool_size=1, most=1)

    @event.listens_for(writer, "begin")
    def _alone(connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER_LOCK})")

    return _Engines(
        writer,
        _postgres_engine(url, "READ COMMITTED", pool_size=2, most=8),
        _postgres_engine(url, "REPEATABLE READ", pool_size=4, most=16, execution_options={"postgresql_readonly": True}),
        _postgres_is_open,
    )


def _postgres_is_open(tx: Connection) -> bool:
    """COMMIT of a transaction that an error has aborted is answered without an error, and commits nothing."""
    from psycopg.pq import TransactionStatus

    session: Any = tx.connection.dbapi_connection
    return session is not None and session.info.transaction_status == TransactionStatus.INTRANS


def _postgres_engine(url: URL, isolation: Any, *, pool_size: int, most: int, **options: Any) -> Engine:
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            isolation_level=isolation,
            pool_size=pool_size,
            max_overflow=most - pool_size,
            pool_timeout=_PATIENCE_SECONDS,
            pool_pre_ping=True,  # the database may have been restarted since
            json_serializer=_json_without_nul,
            # A server that went away without a word is noticed before a lease is over.
            connect_args={
                "connect_timeout": 10, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
                "tcp_user_timeout": 15_000, "application_name": "pegbox",
            },
            **options,
        )  # fmt: skip
    except ModuleNotFoundError:
        raise PegboxError("for PostgreSQL, install its driver: pip install 'pegbox[postgres]'.") from None
    from psycopg.types.string import StrDumper

    class Text(StrDumper):
        """PostgreSQL's text holds every character but NUL. A name that has one finds nothing, as it should."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd"))

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        version = connection.info.server_version // 10_000
        if version < _OLDEST_POSTGRES:
            raise PegboxError(f"PostgreSQL {version} is too old; pegbox needs {_OLDEST_POSTGRES} or newer.")
        connection.adapters.register_dumper(str, Text)
        connection.autocommit = True
        for setting in (
            f"lock_timeout = '{_PATIENCE_SECONDS}s'",
            # A server that hangs in the middle of a transaction must not stop all others.
            f"idle_in_transaction_session_timeout = '{_PATIENCE_SECONDS}s'",
            "timezone = 'UTC'",
        ):
            connection.execute(f"SET {setting}")
        if connection.execute("SHOW synchronous_commit").fetchone()[0] == "off":
            connection.execute("SET synchronous_commit = on")  # what is acknowledged is on the disk
        connection.autocommit = False

    return engine


def _json_without_nul(value: object) -> str:
    return _NUL.sub(r"\1\\ufffd", json.dumps(value))
