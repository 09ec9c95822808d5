"""`pegbox doctor`: what is wrong here, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import read_settings

_SIGNS = {"well": "ok", "watch": "look", "broken": "BROKEN"}


def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="The server's data directory.")] = None,
) -> None:
    """Check database, stored bytes, room, base models and mail. Exit status 1 if something is broken."""
    from pegbox.upkeep.doctor import examine

    broken = 0
    for finding in examine(read_settings(data_dir=data_dir)):
        screen.say(f"{_SIGNS[finding.state]:6}  {finding.name}: {finding.text}")
        if finding.remedy:
            screen.say(f"        {finding.remedy}")
        broken += finding.state == "broken"
    if broken:
        raise typer.Exit(1)
