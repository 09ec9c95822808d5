"""The composition root: every part is made here, once, and handed to those who use it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Lifespan

from pegbox import __version__, durable
from pegbox.adapters import Adapters
from pegbox.api import (
    chat,
    completions,
    errors,
    files,
    fine_tunes,
    fine_tuning,
    health,
    models,
    organization,
    receipt,
    webhooks,
)
from pegbox.api.deps import Parts
from pegbox.api.drain import Drain
from pegbox.api.event_stream import Feed
from pegbox.api.gate import Gate
from pegbox.api.shell import Shell
from pegbox.api.watch import Watch
from pegbox.auth.keys import Keys
from pegbox.auth.projects import Projects
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
from pegbox.upkeep.collect import collect
from pegbox.upkeep.store import Store

ROUTERS = (
    fine_tuning.router,
    files.router,
    fine_tunes.router,
    receipt.router,
    models.router,
    models.engines,
    chat.router,
    completions.router,
    webhooks.router,
    organization.router,
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is assembled and not yet running."""

    app: ASGIApp
    begin_shutdown: Callable[[], None]  # at once: what is in flight goes on for a while, trainers save and end
    new_key: str | None  # minted at the first start; shown once


def create_app(settings: Settings) -> Server:
    """Assemble the server of one data directory. Raises PegboxError if another server has it open."""
    durable.make_folder(settings.root, mode=0o700)
    lock = lock_folder(settings.root)
    db = Database(settings.root / "pegbox.db")
    blobs = Blobs(settings.root / "blobs")
    desk = Desk(db, Files(db, blobs), Adapters(db, blobs), Catalog(settings.models))
    pool = EnginePool(
        PoolSettings(
            threads=settings.cpu_threads,
            loaded_adapters=settings.loaded_adapters,
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
    drain = Drain(settings.shutdown_seconds)

    def begin_shutdown() -> None:
        drain.begin()
        for worker in workers:  # all at once, because each may have a run to stop
            worker.ask_to_close()

    keys = Keys(db)
    new_key = keys.ensure(settings.api_key.get_secret_value() if settings.api_key else None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store.release_all(db)
        desk.files.purge()
        sweep(desk, settings)
        collect(Store(settings.root, db, blobs))
        for thread in threads:
            thread.start()
        yield
        begin_shutdown()
        for thread in threads:
            thread.close()
        pool.close()
        db.close()
        lock.close()

    app = make_api(lifespan)
    app.state.parts = Parts(settings, desk, pool, workers, threads, drain, Feed(db, drain), keys, Projects(db))
    return Server(Watch(Shell(app, Gate(keys, settings), settings)), begin_shutdown, new_key)


def all_routes() -> Iterator[APIRoute]:
    """Of all rooms; what is asked without a key is not among them."""
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def make_api(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """All routes, and how their errors are answered; no parts yet."""
    app = FastAPI(title="pegbox", version=__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(health.router)
    errors.install(app)
    return app
