"""The composition root: every part is made here, once, and handed to those who use it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp

from pegbox import __version__
from pegbox.adapters import Adapters
from pegbox.api import chat, completions, errors, files, fine_tuning, models, receipt
from pegbox.api.deps import Parts
from pegbox.api.shell import Shell
from pegbox.auth import Keys
from pegbox.catalog.models import Catalog
from pegbox.engines.pool import EnginePool, PoolSettings
from pegbox.files import Files
from pegbox.jobs.execute import execute, sweep
from pegbox.jobs.prepare import prepare
from pegbox.jobs.submit import Desk
from pegbox.notify.deliver import Deliverer
from pegbox.queue import store
from pegbox.queue.states import Status
from pegbox.queue.worker import Worker
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.lock import lock_folder


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is assembled and not yet running."""

    app: ASGIApp
    new_key: str | None  # minted at the first start; shown once


def create_app(settings: Settings) -> Server:
    """Assemble the server of one data directory. Raises PegboxError if another server has it open."""
    settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = lock_folder(settings.root)
    db = Database(settings.root / "pegbox.db")
    blobs = Blobs(settings.root / "blobs")
    desk = Desk(db, Files(db, blobs), Adapters(db, blobs), Catalog(settings.models))
    pool = EnginePool(
        PoolSettings(
            threads=settings.cpu_threads,
            loaded_adapters=settings.loaded_adapters,
            loaded_models=settings.loaded_models,
            concurrent_generations=settings.concurrent_generations,
            log_folder=settings.root / "logs",
        )
    )
    runs = {Status.QUEUED, Status.RUNNING, Status.PAUSING}
    workers = (
        Worker(db, {Status.VALIDATING}, partial(prepare, desk, settings), name="validate"),
        *(
            Worker(db, runs, partial(execute, desk, settings, pool), name=f"run-{i}")
            for i in range(settings.concurrent_jobs)
        ),
    )
    threads: tuple[Worker | Deliverer, ...] = (*workers, Deliverer(desk, settings))
    keys = Keys(db)
    new_key = keys.ensure(settings.api_key.get_secret_value() if settings.api_key else None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store.release_all(db)
        desk.files.purge()
        sweep(desk, settings)
        for thread in threads:
            thread.start()
        yield
        for worker in workers:  # all at once, because each may have a run to stop
            worker.ask_to_close()
        for thread in threads:
            thread.close()
        pool.close()
        db.close()
        lock.close()

    app = FastAPI(title="pegbox", version=__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.parts = Parts(settings, desk, pool, workers)
    for room in (files, fine_tuning, receipt, models, chat, completions):
        app.include_router(room.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"])
    errors.install(app)
    return Server(Shell(app, keys, settings), new_key)


def _healthz() -> dict[str, str]:
    return {"status": "ok", "version": __version__}
