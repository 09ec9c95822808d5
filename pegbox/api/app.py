"""The composition root: every part is made here, once, and handed to those who use it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp

from pegbox import __version__
from pegbox.api import chat, completions, errors, files, fine_tuning, models, receipt
from pegbox.api.deps import Parts
from pegbox.api.shell import Shell
from pegbox.auth import Keys
from pegbox.jobs.crew import muster, open_desk, open_pool
from pegbox.jobs.execute import sweep
from pegbox.notify.deliver import Deliverer
from pegbox.settings import Settings
from pegbox.storage.lock import lock_folder


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is assembled and not yet running."""

    app: ASGIApp
    new_key: str | None  # minted at the first start; shown once


def create_app(settings: Settings) -> Server:
    """Assemble the server of one data directory. Raises PegboxError if another server has it open."""
    settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    shared = settings.database_url is not None  # then several servers may use one data directory
    lock = None if shared else lock_folder(settings.root)
    desk = open_desk(settings, shared=shared)
    db = desk.db
    pool = open_pool(settings)
    crew = muster(desk, settings, pool)
    deliverer = Deliverer(desk, settings)
    keys = Keys(db)
    new_key = keys.ensure(settings.api_key.get_secret_value() if settings.api_key else None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        desk.files.purge()
        sweep(desk, settings)
        crew.start()
        deliverer.start()
        yield
        crew.close()
        deliverer.close()
        pool.close()
        db.close()
        if lock is not None:
            lock.close()

    app = FastAPI(title="pegbox", version=__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.parts = Parts(settings, desk, pool, crew.workers)
    for room in (files, fine_tuning, receipt, models, chat, completions):
        app.include_router(room.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"])
    errors.install(app)
    return Server(Shell(app, keys, settings), new_key)


def _healthz() -> dict[str, str]:
    return {"status": "ok", "version": __version__}
