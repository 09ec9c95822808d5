"""The workers of a process, and the parts that they work with. A server has a crew, and `pegbox worker` is one."""

import logging
from dataclasses import dataclass
from functools import partial

from pegbox import durable
from pegbox.adapters import Adapters
from pegbox.catalog.models import Catalog
from pegbox.engines.pool import EnginePool, PoolSettings
from pegbox.files import Files
from pegbox.jobs.execute import execute
from pegbox.jobs.prepare import prepare
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.states import Status
from pegbox.queue.worker import Rules, Worker
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.lock import Owners

log = logging.getLogger(__name__)
_RUNS = (Status.QUEUED, Status.RUNNING, Status.PAUSING)


def open_desk(settings: Settings) -> Desk:
    """Open database and files. Raises PegboxError where that can't be."""
    durable.make_folder(settings.root, mode=0o700)
    db = Database(settings.database)
    blobs = Blobs(settings.root / "blobs")
    return Desk(db, Files(db, blobs), Adapters(db, blobs), Catalog(settings.models))


def open_pool(settings: Settings) -> EnginePool:
    return EnginePool(
        PoolSettings(
            threads=settings.cpu_threads,
            loaded_adapters=settings.loaded_adapters,
            loaded_models=settings.loaded_models,
            concurrent_generations=settings.concurrent_generations,
            log_folder=settings.root / "logs",
        )
    )


@dataclass(frozen=True, slots=True)
class Crew:
    """One worker that checks files, and as many as the settings say that train."""

    db: Database
    owners: Owners
    workers: tuple[Worker, ...]

    def start(self) -> None:
        """Free what dead processes left behind, then work."""
        if freed := store.release(self.db, self.owners.is_dead):
            log.warning("%s jobs were left by a process that ended without a word; they go on", freed)
        self.owners.forget_dead()
        for worker in self.workers:
            worker.start()

    def wake(self) -> None:
        for worker in self.workers:
            worker.wake()

    def ask_to_close(self) -> None:
        """All at once, because each may have a run to stop."""
        for worker in self.workers:
            worker.ask_to_close()

    def close(self) -> None:
        """Return when all have dropped what they had in hand."""
        self.ask_to_close()
        for worker in self.workers:
            worker.close()
        self.owners.close()


def muster(desk: Desk, settings: Settings, pool: EnginePool) -> Crew:
    """The crew of this process, not yet at work; without workers where the settings want none."""
    owners = Owners(settings.root, one_machine=settings.database_url is None)
    rules = Rules(owners.name, settings.job_attempts, settings.project_jobs)
    if not settings.work_jobs:
        return Crew(desk.db, owners, ())
    run = partial(execute, desk, settings, pool)
    return Crew(
        desk.db,
        owners,
        (
            Worker(desk.db, (Status.VALIDATING,), partial(prepare, desk, settings), name="validate", rules=rules),
            *(Worker(desk.db, _RUNS, run, name=f"run-{i}", rules=rules) for i in range(settings.concurrent_jobs)),
        ),
    )
