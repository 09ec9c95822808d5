"""`pegbox serve`: start the server and say how to reach it."""

import gc
import math
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from pegbox.cli.local import read_settings
from pegbox.errors import PegboxError


def serve(
    data_dir: Annotated[Path | None, typer.Option(help="Where files, jobs and tuned models are kept.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Start the server. Every setting of PEGBOX_* counts; these options win over it."""
    settings = read_settings(data_dir=data_dir, host=host, port=port)
    import uvicorn

    from pegbox import logs
    from pegbox.api.app import create_app

    logs.configure(settings.log, settings.log_level)
    try:
        server = create_app(settings)
    except PegboxError as error:
        raise SystemExit(f"pegbox: {error}") from None
    typer.echo(f"pegbox listens on http://{settings.host}:{settings.port}/v1 and keeps its data in {settings.root}")
    if server.new_key:
        typer.echo(f"API key (shown this once; clients need it as OPENAI_API_KEY): {server.new_key}")
    config = uvicorn.Config(
        server.app, host=settings.host, port=settings.port, log_config=None, log_level="warning", access_log=False,
        # Answers are ended by ourselves when their time is over; what is left then hangs.
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds) + 5,
    )  # fmt: skip

    class Uvicorn(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # Not in the handler itself: it interrupts a thread that may hold the locks that this takes.
            threading.Thread(target=server.begin_shutdown, name="shutdown").start()
            super().handle_exit(sig, frame)

    # What was made by now stays; a full collection that walks over all of it takes 50 ms, and answers wait for it.
    gc.collect()
    gc.freeze()
    Uvicorn(config).run()
