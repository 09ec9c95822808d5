"""`pegbox backup`: copy a data directory, while its server works."""

from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import keep_private, read_settings


def backup(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    data_dir: Annotated[Path | None, typer.Option(help="The server's data directory.")] = None,
) -> None:
    """Copy database, files, models and runs of one moment into a folder. The server may go on working."""
    from pegbox.upkeep.backup import backup as make
    from pegbox.upkeep.store import opened

    keep_private()
    with opened(read_settings(data_dir=data_dir)) as store:
        made = make(store, folder)
    total = sum(entry.bytes for entry in made.manifest.files.values())
    screen.say(f"{len(made.manifest.files):,} files, {screen.size(total)}, in {folder}")
    for damaged in made.damaged:
        screen.fail(f"copied as it is, but it was damaged before: {damaged}. Run `pegbox doctor`.")
    if made.damaged:
        raise typer.Exit(1)
