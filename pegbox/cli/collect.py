"""`pegbox collect`: remove what belongs to nothing."""

from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import keep_private, read_settings


def collect(
    data_dir: Annotated[Path | None, typer.Option(help="The server's data directory.")] = None,
) -> None:
    """Remove stored things that no file, model or job refers to. The server may go on working."""
    from pegbox.upkeep.collect import collect as clear
    from pegbox.upkeep.store import opened

    keep_private()
    with opened(read_settings(data_dir=data_dir)) as store:
        gone = clear(store)
    screen.say(
        f"removed {gone.blobs:,} stored things without an owner, {gone.halves:,} half-written ones, "
        f"what {gone.runs:,} ended runs had left, and {gone.reports:,} reports of deleted files"
    )
