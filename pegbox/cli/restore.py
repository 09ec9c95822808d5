"""`pegbox restore`: make a backup a data directory again."""

from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import keep_private, read_settings


def restore(
    folder: Annotated[Path, typer.Argument(help="What `pegbox backup` made.")],
    data_dir: Annotated[Path | None, typer.Option(help="Where to; empty or not there yet.")] = None,
) -> None:
    """Check every byte of a backup and make it a data directory. Then start `pegbox serve` on it."""
    from pegbox.upkeep.backup import restore as bring_back

    keep_private()
    settings = read_settings(data_dir=data_dir)
    manifest = bring_back(folder, settings.root)
    screen.say(f"{len(manifest.files):,} files, of {screen.moment(manifest.made_at)}, are in {settings.root}")
