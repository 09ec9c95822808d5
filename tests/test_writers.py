"""Who may write when: one at a time, and a heartbeat goes past those who wait."""

import threading

from conftest import only_sqlite
from following import wait_for
from sqlalchemy import select

from pegbox.storage.db import Database
from pegbox.storage.tables import jobs


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
