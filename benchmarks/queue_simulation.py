"""The queue under a simulated clock: servers, workers that die, stall, lose their network or are frozen, and users who
cancel, pause and resume. The store, the leases and the moves are the real ones; what is simulated is time, the workers'
processes and who can reach the database.

    python benchmarks/queue_simulation.py --steps 100000
    python benchmarks/queue_simulation.py --claims 10000 [--database-url postgresql://…]

At every step: no job has two processes at once. At the end, when everything works again: every job has ended, once;
none succeeded that did not do all its work; none failed that was not given up for its setbacks. Raises AssertionError,
with the seed, where that isn't so. Prints a JSON object of figures.
"""

import argparse
import json
import logging
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import OperationalError

from pegbox.errors import IllegalMove, LostRace
from pegbox.queue import store
from pegbox.queue.lease import Lease
from pegbox.queue.states import Failure, QueuedJob, Status, is_final
from pegbox.queue.store import Event
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import jobs, outbox

ATTEMPTS = 5
WORK = 12  # steps that a job has to do
SAVED_EVERY = 4  # a checkpoint after so many
PROJECTS = ("a", "b", "c")
PROJECT_JOBS = 2  # in training at once


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Link:
    """A worker's way to the database, which may be cut. It stands in for `Database`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.cut = False

    @contextmanager
    def _way(self, kind: str) -> Iterator[Connection]:
        if self.cut:
            raise OperationalError("", {}, Exception("no route to the database"))
        with getattr(self._db, kind)() as tx:
            yield tx

    def read(self):  # noqa: ANN201
        return self._way("read")

    def write(self):  # noqa: ANN201
        return self._way("write")

    def touch(self):  # noqa: ANN201
        return self._way("touch")


@dataclass
class Process:
    """The trainer of a run: it does steps until it is killed. It can't reach the database."""

    job: str
    step: int


@dataclass
class Worker:
    name: str
    link: Link
    life: int = 0  # a new one at every start
    job: QueuedJob | None = None
    lease: Lease | None = None
    process: Process | None = None
    told: int = 0
    frozen: bool = False  # SIGSTOP: it does nothing, its guard does nothing, its process is stopped with it
    up: bool = True

    @property
    def owner(self) -> str:
        return f"{self.name}.{self.life}"

    def drop(self) -> None:
        self.job = self.lease = self.process = None


@dataclass
class World:
    seed: int
    folder: Path
    servers: int = 3
    workers: int = 4
    clock: Clock = field(default_factory=Clock)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        path = self.folder / f"queue-{self.seed}.db"
        self.databases = [Database(path, clock=self.clock) for _ in range(self.servers)]
        self.crew = [Worker(f"w{i}", Link(self.databases[i % self.servers])) for i in range(self.workers)]
        self.saved: Counter[str] = Counter()  # the newest checkpoint of each job: on the disk that all share
        self.done: Counter[str] = Counter()
        self.open: list[str] = []  # jobs that have not ended, as far as is known
        self.created = 0

    # --- what happens --------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        happenings = (
            (self.create, 4), (self.look, 30), (self.work, 60), (self.die, 2), (self.start, 6), (self.cut, 2),
            (self.mend, 5), (self.freeze, 1), (self.thaw, 4), (self.ask, 4), (self.kill_process, 1),
        )  # fmt: skip
        what, weights = zip(*happenings, strict=True)
        for _ in range(steps):
            self.pass_time(self.random.choice((0.05, 0.2, 0.5, 1.0, 3.0)))
            self.random.choices(what, weights)[0]()
            self.check()
        self.heal()

    def pass_time(self, seconds: float) -> None:
        """In small pieces: a guard that is not frozen kills its process as soon as the lease is lost."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + 1.0)
            for worker in self.crew:
                if worker.lease is not None and not worker.frozen and worker.lease.lost:
                    self.counts["fenced itself"] += worker.process is not None
                    worker.drop()

    def create(self) -> None:
        if len(self.open) > 40:
            with self.databases[0].read() as tx:
                left = tx.execute(select(jobs.c.id).where(jobs.c.finished_at.is_(None)).order_by(jobs.c.seq))
                self.open = list(left.scalars())
        if len(self.open) > 40:
            return
        self.created += 1
        name = f"j{self.created}"
        with self.random.choice(self.databases).write() as tx:
            store.enqueue(tx, Scope(self.random.choice(PROJECTS)), name)
        self.open.append(name)

    def look(self) -> None:
        """A free worker claims a job, and starts its process."""
        worker = self.one(lambda w: w.up and not w.frozen and w.job is None)
        if worker is None:
            return
        since = self.clock()
        try:
            statuses = self.random.choice(((Status.VALIDATING,), (Status.QUEUED, Status.RUNNING, Status.PAUSING)))
            job = store.claim(worker.link, statuses, owner=worker.owner, project_jobs=PROJECT_JOBS)  # type: ignore[arg-type]
            if job is None:
                return
            self.counts["claims"] += 1
            lease = Lease(worker.link, job, threading.Event(), clock=self.clock, since=since)  # type: ignore[arg-type]
            if job.setbacks >= ATTEMPTS:
                self.fail(worker, job)
                return
            worker.job, worker.lease, worker.told = job, lease, 0
            if job.status == Status.PAUSING:
                with worker.link.write() as tx:
                    store.move(tx, store.hold(tx, job), Status.PAUSED)
                worker.drop()
            elif job.status != Status.VALIDATING:
                with worker.link.write() as tx:
                    held = store.hold(tx, job)
                    if held.status == Status.QUEUED:
                        worker.job = store.move(tx, held, Status.RUNNING, keep_lease=True)
                worker.process = Process(job.id, self.saved[job.id])
        except OperationalError:
            self.counts["could not reach the database"] += 1
            worker.drop()
        except LostRace:
            self.counts["stale writes refused"] += 1
            worker.drop()

    def fail(self, worker: Worker, job: QueuedJob) -> None:
        with worker.link.write() as tx:
            store.move(tx, store.hold(tx, job), Status.FAILED, failure=Failure("given_up", "", None))

    def work(self) -> None:
        """A worker does a piece of its job: a step, a heartbeat, or the end."""
        worker = self.one(lambda w: w.up and not w.frozen and w.job is not None)
        if worker is None or worker.job is None or worker.lease is None:
            return
        try:
            seen = worker.lease.beat()
            if worker.job.status == Status.VALIDATING:
                with worker.link.write() as tx:
                    store.move(tx, store.hold(tx, worker.job), Status.QUEUED)
                worker.drop()
            elif worker.process is None:  # somebody killed it
                self.after_death(worker)
            elif seen.status == Status.PAUSING:
                self.saved[seen.id] = worker.process.step
                worker.process = None
                with worker.link.write() as tx:
                    store.move(tx, store.hold(tx, worker.job), Status.PAUSED)
                worker.drop()
            else:
                self.step(worker)
        except OperationalError:
            self.counts["could not reach the database"] += 1
        except LostRace:
            self.counts["stale writes refused"] += 1
            worker.drop()

    def step(self, worker: Worker) -> None:
        process, job = worker.process, worker.job
        assert process is not None
        assert job is not None
        process.step += 1
        if process.step % SAVED_EVERY == 0:
            self.saved[job.id] = process.step
        with worker.link.write() as tx:
            held = store.hold(tx, job)
            if store.tell(tx, job.id, Event(f"step:{process.step}", "")):
                store.progress(tx, job)
            if process.step >= WORK:
                store.tell(tx, job.id, Event("model", ""))
                store.move(tx, held, Status.SUCCEEDED, because=Event("ended", ""))
        if process.step >= WORK:
            self.done[job.id] += 1
            worker.drop()

    def after_death(self, worker: Worker) -> None:
        assert worker.job is not None
        with worker.link.write() as tx:
            held = store.hold(tx, worker.job)
            if held.status == Status.PAUSING:
                store.move(tx, held, Status.PAUSED)
            elif held.setbacks + 1 < ATTEMPTS:
                store.set_back(tx, worker.job, "It was killed.")
                self.counts["setbacks"] += 1
            else:
                store.move(tx, held, Status.FAILED, failure=Failure("given_up", "", None))
        worker.drop()

    def die(self) -> None:
        """kill -9: its process dies with it."""
        if worker := self.one(lambda w: w.up):
            self.counts["workers killed"] += 1
            worker.drop()
            worker.up = worker.frozen = False

    def start(self) -> None:
        """Half of the time it knows that its earlier life is over; else those leases have to run out."""
        worker = self.one(lambda w: not w.up)
        if worker is None:
            return
        worker.up, worker.life = True, worker.life + 1
        if self.random.random() < 0.5:
            alive = {w.owner for w in self.crew if w.up}
            store.release(self.databases[0], lambda owner: owner not in alive)

    def kill_process(self) -> None:
        if worker := self.one(lambda w: w.process is not None):
            self.counts["processes killed"] += 1
            worker.process = None

    def cut(self) -> None:
        if worker := self.one(lambda w: not w.link.cut):
            self.counts["partitions"] += 1
            worker.link.cut = True

    def mend(self) -> None:
        if worker := self.one(lambda w: w.link.cut):
            worker.link.cut = False

    def freeze(self) -> None:
        if worker := self.one(lambda w: w.up and not w.frozen):
            self.counts["freezes"] += 1
            worker.frozen = True

    def thaw(self) -> None:
        """It goes on where it was: what it does first is try to write."""
        worker = self.one(lambda w: w.frozen)
        if worker is None:
            return
        worker.frozen = False
        job = worker.job
        if job is None:
            return
        try:
            with worker.link.write() as tx:
                store.hold(tx, job)
                now = store.get(tx, job.id)
                assert now is not None
                assert now.lease_token == job.lease_token, f"seed {self.seed}: a stale worker wrote to {job.id}"
                store.tell(tx, job.id, Event("thawed", ""))
        except LostRace:
            self.counts["stale writes refused"] += 1
            worker.drop()
        except OperationalError:
            worker.drop()

    def ask(self) -> None:
        """A user cancels, pauses or resumes."""
        if not self.open:
            return
        with self.random.choice(self.databases).write() as tx:
            job = store.get(tx, self.random.choice(self.open))
            assert job is not None, "a job is lost"
            wish = self.random.choice((Status.CANCELLED, Status.PAUSING, Status.PAUSED, Status.QUEUED))
            if wish == Status.QUEUED and job.status != Status.PAUSED:
                return
            if wish == Status.PAUSED and job.status == Status.PAUSING:
                return  # only its worker may say that it is
            with suppress(IllegalMove):
                store.move(tx, job, wish, keep_lease=wish == Status.PAUSING)
                self.counts[f"asked: {wish}"] += 1

    # --- what must be true ---------------------------------------------------------------------------------

    def check(self) -> None:
        # A frozen worker's process is stopped with it: it does nothing until it is thawed.
        alive = Counter(w.process.job for w in self.crew if w.process is not None and not w.frozen)
        twice = [job for job, n in alive.items() if n > 1]
        assert not twice, f"seed {self.seed}: {twice} ran twice at the same time"

    def heal(self) -> None:
        """Everything works again, and nobody asks for anything but that paused jobs go on. Then all must end."""
        for worker in self.crew:
            worker.link.cut = False
            if not worker.up:
                worker.up, worker.life = True, worker.life + 1
            if worker.frozen:
                self.thaw_all()
        patience = 400 * (len(self.open) + 10)
        for _ in range(patience):
            self.pass_time(0.5)
            self.random.choice((self.look, self.work, self.work, self.work))()
            self.check()
            if self.random.random() < 0.02 and self.resume_all():
                break
        self.judge()

    def thaw_all(self) -> None:
        while any(w.frozen for w in self.crew):
            self.thaw()

    def resume_all(self) -> bool:
        """Returns whether all jobs have ended."""
        with self.databases[0].write() as tx:
            left = list(tx.execute(select(jobs.c.id, jobs.c.status)))
            for row in left:
                if row.status == Status.PAUSED:
                    job = store.get(tx, row.id)
                    assert job is not None
                    store.move(tx, job, Status.QUEUED)
        return all(is_final(Status(row.status)) for row in left)

    def judge(self) -> None:
        with self.databases[0].read() as tx:
            rows = tx.execute(select(jobs)).all()
            told = Counter(tx.execute(select(outbox.c.job_id)).scalars())
        where = f"seed {self.seed}"
        assert len(rows) == self.created, f"{where}: a job is lost"
        for row in rows:
            assert is_final(Status(row.status)), f"{where}: {row.id} is {row.status} and nobody works on it"
            assert told[row.id] == 1, f"{where}: the end of {row.id} was told {told[row.id]} times"
            assert self.done[row.id] == (row.status == Status.SUCCEEDED), f"{where}: {row.id} was published twice"
            self.counts[str(row.status)] += 1
            if row.status == Status.FAILED:
                assert row.setbacks >= ATTEMPTS - 1, f"{where}: {row.id} failed after {row.setbacks} setbacks"

    def one(self, wanted) -> Worker | None:  # noqa: ANN001
        found = [worker for worker in self.crew if wanted(worker)]
        return self.random.choice(found) if found else None

    def close(self) -> None:
        for database in self.databases:
            database.close()


def simulate(seed: int, steps: int, folder: Path) -> Counter[str]:
    """Raises AssertionError where a promise is broken. Returns what happened, counted."""
    world = World(seed, folder)
    try:
        world.run(steps)
    finally:
        world.close()
    return world.counts


def claim_latency(where: Path | str, waiting: int, claims: int = 500) -> dict[str, float]:
    """Milliseconds of a claim in a queue of so many jobs, of a hundred projects, of which one is at its limit."""
    db = Database(where)
    rows = [
        {
            "id": f"bench-{i}",
            "status": Status.QUEUED,
            "created_at": 1,
            "attempt": 0,
            "turn": i,
            "project_id": f"p{i % 100}",
        }
        for i in range(waiting)
    ]
    with db.write() as tx:
        tx.execute(insert(jobs), rows)
        tx.execute(insert(jobs), [{**rows[0], "id": "bench-busy", "status": Status.RUNNING, "lease_until": 1e12}])
    took = []
    for _ in range(claims):
        begun = time.perf_counter()
        job = store.claim(db, (Status.QUEUED, Status.RUNNING, Status.PAUSING), project_jobs=1)
        took.append((time.perf_counter() - begun) * 1000)
        assert job is not None
        with db.write() as tx:
            store.move(tx, job, Status.CANCELLED)
    db.close()
    took.sort()
    return {"claim_ms_median": statistics.median(took), "claim_ms_p99": took[int(len(took) * 0.99)]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--per-seed", type=int, default=5_000, help="steps of one simulated history")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--claims", type=int, default=0, help="measure claims in a queue of so many jobs, instead")
    parser.add_argument("--database-url", help="of an empty PostgreSQL database, for --claims")
    logging.disable(logging.WARNING)  # the simulated troubles
    parser.add_argument("--folder", type=Path, help="where the simulated database lies; /dev/shm is quick")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        if asked.claims:
            where = asked.database_url or Path(folder) / "claims.db"
            figures: dict[str, float] = {"jobs": asked.claims, **claim_latency(where, asked.claims)}
        else:
            counts: Counter[str] = Counter()
            for i in range(-(-asked.steps // asked.per_seed)):
                counts += simulate(asked.seed + i, min(asked.per_seed, asked.steps - i * asked.per_seed), Path(folder))
            figures = {"steps": asked.steps, "double_runs": 0, "lost_jobs": 0, **counts}
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
