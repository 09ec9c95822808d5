"""Who may write when: one at a time, and a heartbeat goes past those who wait."""

import threading

import pytest
from conftest import only_postgres, only_sqlite
from following import wait_for
from sqlalchemy import select, text

from pegbox.errors import StorageBroken
from pegbox.storage.db import UNREACHABLE, Database
from pegbox.storage.tables import jobs
from pegbox.storage.trouble import trouble


@only_sqlite
def test_a_heartbeat_does_not_wait_in_line(db: Database) -> None:
    """On a slow disk a line of writers takes longer than a lease is long."""
    served: list[str] = []
    asking: set[str] = set()

    def write(name: str) -> None:
        asking.add(name)
        with (db.touch if name == "heartbeat" else db.write)() as tx:
            tx.execute(select(jobs.c.seq)).all()
            served.append(name)

    crowd = [threading.Thread(target=write, args=[str(number)]) for number in range(20)]
    heartbeat = threading.Thread(target=write, args=["heartbeat"])
    with db.write():
        for one in crowd:
            one.start()
        wait_for(lambda: len(asking) == len(crowd), "the line to form", 10)
        heartbeat.start()
        wait_for(lambda: "heartbeat" in asking, "the heartbeat to ask", 10)
    for one in (*crowd, heartbeat):
        one.join()
    assert len(served) == len(crowd) + 1
    assert served.index("heartbeat") <= 3, served  # the kernel may wake the first of the line before it


@only_postgres
def test_who_slept_in_a_transaction_has_lost_the_database_and_nothing_else(db: Database) -> None:
    """PostgreSQL ended its session, so that others can write. That is a setback for a job, and not its failure."""

    def is_there(session: int) -> bool:
        with db.read() as tx:
            query = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :session")
            return bool(tx.execute(query, {"session": session}).scalar_one())

    def sleep() -> None:
        with db.write() as tx:
            session = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            wait_for(lambda: not is_there(session), "the session to be ended", 30)
            tx.execute(select(jobs.c.seq))

    with pytest.raises(UNREACHABLE) as ended:
        sleep()
    assert isinstance(trouble(ended.value), StorageBroken)
    with db.write() as tx:
        assert tx.execute(select(jobs.c.seq)).all() == []
