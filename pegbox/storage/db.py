"""Open the database and run transactions. The only module that knows which SQL database it is.

SQLite comes from the `pysqlite3` wheel: the system's own may carry the WAL-reset bug (fixed in 3.51.3),
which corrupts a database that two connections write to. There is one writer connection; readers are many.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pysqlite3 import dbapi2
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text

from pegbox.errors import PegboxError

_OLDEST_SAFE_SQLITE = (3, 51, 3)
_MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0006"  # the newest migration; a test keeps it true


class Database:
    """One SQLite file: `write()` for a transaction that changes rows, `read()` for one that doesn't.

    Both are context managers that yield a SQLAlchemy connection, commit on leaving and roll back on an
    exception. `write()` holds the only writer connection: keep it short, do no work inside.
    """

    def __init__(self, path: Path) -> None:
        if dbapi2.sqlite_version_info < _OLDEST_SAFE_SQLITE:
            raise PegboxError(f"SQLite {dbapi2.sqlite_version} can lose data; install pysqlite3 0.6.1 or newer.")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _engine(path, begin="BEGIN IMMEDIATE", pool_size=1)
        self._readers = _engine(path, begin="BEGIN", pool_size=16)
        self._one_writer = threading.Lock()
        self._migrate()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._one_writer, self._writer.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._readers.begin() as tx:
            yield tx

    def close(self) -> None:
        self._writer.dispose()
        self._readers.dispose()

    def _migrate(self) -> None:
        with self._writer.begin() as tx:
            known = inspect(tx).has_table("alembic_version")
            at = tx.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None
        if at == HEAD:  # the usual case, and it saves importing Alembic at every start
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self._writer.begin() as tx:
            config.attributes["connection"] = tx
            command.upgrade(config, "head")


def _engine(path: Path, *, begin: str, pool_size: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),  # a path may hold what means something in a URL
        module=dbapi2,
        pool_size=pool_size,
        max_overflow=0 if pool_size == 1 else 64,
        connect_args={"check_same_thread": False, "timeout": 30},
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: dbapi2.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's "begin" below opens transactions, not the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
