"""`pegbox worker`: work on the jobs of a data directory, beside its server."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli.local import keep_private, read_settings
from pegbox.errors import PegboxError


def worker(
    data_dir: Annotated[Path | None, typer.Option(help="The server's data directory.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs to train at the same time.")] = None,
) -> None:
    """Train jobs until stopped; answers no requests. Any number may run beside one server, or beside several.

    Every setting of PEGBOX_* counts, and has to be as the server has it. Stopped by SIGTERM or Ctrl-C, it saves where
    each job stands; another worker goes on with it.
    """
    keep_private()
    settings = read_settings(data_dir=data_dir, concurrent_jobs=jobs, work_jobs=True)
    from pegbox.jobs.crew import muster, open_desk, open_pool

    try:
        desk = open_desk(settings)
    except PegboxError as error:
        raise SystemExit(f"pegbox: {error}") from None
    over = threading.Event()
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: over.set())
    pool = open_pool(settings)
    crew = muster(desk, settings, pool)
    crew.start()
    typer.echo(f"pegbox works on the jobs of {settings.root}, {settings.concurrent_jobs} at a time")
    over.wait()
    crew.close()
    pool.close()
    desk.db.close()
