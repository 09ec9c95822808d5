"""A worker in a process of its own: `python queue_worker.py DATABASE FOLDER`. Its jobs take half a second and hold a lock
that only one process can hold: whoever finds it held has found a job that runs twice."""

import sys
import time
from pathlib import Path

from pegbox.queue import lease, store
from pegbox.queue.states import QueuedJob, Status
from pegbox.queue.store import Event
from pegbox.queue.worker import Rules, Worker
from pegbox.storage.db import Database
from pegbox.storage.lock import try_lock

LEASE_SECONDS = 2.0
ATTEMPTS = 1000


def main() -> None:
    store.LEASE_SECONDS = LEASE_SECONDS
    lease.FENCE_SECONDS, lease.BEAT_SECONDS = LEASE_SECONDS * 2 / 3, 0.2
    db, folder = Database(sys.argv[1]), Path(sys.argv[2])

    def handle(job: QueuedJob, held: lease.Lease) -> None:
        lock = try_lock(folder / job.id)
        if lock is None:
            (folder / "doubled").open("a").write(f"{job.id}\n")
            return
        with lock:
            if job.status == Status.VALIDATING:
                with db.write() as tx:
                    store.move(tx, store.hold(tx, job), Status.QUEUED)
                return
            if job.status == Status.QUEUED:
                with db.write() as tx:
                    store.move(tx, store.hold(tx, job), Status.RUNNING, keep_lease=True)
            for _ in range(5):
                time.sleep(0.1)
                held.beat()
            with db.write() as tx:
                store.move(tx, store.hold(tx, job), Status.SUCCEEDED, because=Event("ended", ""))

    statuses = (Status.VALIDATING, Status.QUEUED, Status.RUNNING)
    worker = Worker(db, statuses, handle, name="test", rules=Rules(attempts=ATTEMPTS))
    worker.start()


if __name__ == "__main__":
    main()
