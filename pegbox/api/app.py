"""The composition root: every part is made here, once, and handed to those who use it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Lifespan

from pegbox import __version__, durable
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
from pegbox.api.strangers import Neighbours
from pegbox.api.watch import Watch
from pegbox.auth.keys import Keys
from pegbox.auth.projects import Projects
from pegbox.jobs.crew import muster, open_desk, open_pool
from pegbox.jobs.execute import sweep
from pegbox.notify.deliver import Deliverer
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.lock import lock_folder
from pegbox.upkeep.collect import collect
from pegbox.upkeep.rounds import Rounds
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
    shared = settings.database_url is not None  # then several servers may use one data directory
    lock = None if shared else lock_folder(settings.root)
    desk = open_desk(settings)
    db = desk.db
    pool = open_pool(settings)
    crew = muster(desk, settings, pool)
    deliverer = Deliverer(desk, settings)
    rounds = Rounds(desk, settings)
    drain = Drain(settings.shutdown_seconds)

    def begin_shutdown() -> None:
        drain.begin()
        crew.ask_to_close()

    keys = Keys(db)
    new_key = keys.ensure(settings.api_key.get_secret_value() if settings.api_key else None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweep(desk, settings)
        if not shared:  # of a folder that others write to, `pegbox collect` is run by hand
            collect(Store(settings.root, db, Blobs(settings.root / "blobs")))
        crew.start()
        deliverer.start()
        rounds.start()
        yield
        begin_shutdown()
        rounds.close()
        crew.close()
        deliverer.close()
        pool.close()
        db.close()
        if lock is not None:
            lock.close()

    app = make_api(lifespan)
    app.state.parts = Parts(
        settings, desk, pool, crew.workers, (*crew.workers, deliverer, rounds),
        drain, Feed(db, drain), keys, Projects(db),
    )  # fmt: skip
    shell: ASGIApp = Shell(app, Gate(keys, settings), settings)
    if origins := Neighbours.of(settings).origins:
        told = ["x-request-id", "openai-processing-ms", "retry-after"]
        # Outermost, because a browser asks whether it may without a key.
        shell = CORSMiddleware(shell, tuple(origins), ("*",), ("*",), expose_headers=told)
    return Server(Watch(shell), begin_shutdown, new_key)


def all_routes() -> Iterator[APIRoute]:
    """Of all rooms; what is asked without a key is not among them."""
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def make_api(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """All routes, and how their errors are answered; no parts yet."""
    # The routes themselves: through an included router every request is matched twice.
    routes = [*all_routes(), *health.router.routes]
    app = FastAPI(
        title="pegbox", version=__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False, routes=routes
    )
    errors.install(app)
    return app
