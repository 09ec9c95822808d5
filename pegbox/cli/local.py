"""What a command needs of this machine: the settings, files that exist, the address of the server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pegbox.cli.address import Address
from pegbox.cli.screen import note
from pegbox.errors import CommandFailed
from pegbox.settings import Settings

if TYPE_CHECKING:
    from pegbox.catalog.models import Resolved
    from pegbox.cli.client import Api

PULL = "Run `pegbox models pull` first."


def connect(ctx: typer.Context) -> "Api":
    """The connection that the options before the command name."""
    from pegbox.cli.client import Api

    address = ctx.find_object(Address)
    assert address is not None, "the root command sets it"
    return Api(address)


def read_settings(**given: object) -> Settings:
    """Settings from PEGBOX_*, under what was given as options. Raises CommandFailed for a value that can't be."""
    from pydantic import ValidationError

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = [f"{_setting(found['loc'])}: {found['msg']}" for found in error.errors(include_url=False)]
        raise CommandFailed(f"a setting has a value that can't be used. {'; '.join(wrong)}.") from None


def find_base(settings: Settings, model: str | None) -> "Resolved | None":
    """The base model to check a file against: the one named (a tuned model stands for its base), else the usual one.
    None where that one is not here. Raises CommandFailed for a name that means nothing here."""
    from pegbox.catalog.models import Catalog
    from pegbox.catalog.table import DEFAULT_BASE

    catalog = Catalog(settings.models)
    name = model or DEFAULT_BASE
    parts = name.split(":")
    resolved = catalog.find(parts[1] if parts[0] == "ft" and len(parts) > 1 else name)
    if resolved is None and model is not None:
        known = ", ".join(base.name for base in catalog.bases())
        raise CommandFailed(f"there is no base model {model} here. {f'Known: {known}.' if known else PULL}")
    if resolved is None:
        note(f"No base model is here, so tokens are not counted. {PULL}")
    return resolved


def keep_private() -> None:
    """What this process and its children write from here on is for their user alone."""
    os.umask(0o077)


def existing_file(path: Path) -> Path:
    """Raises CommandFailed where there is nothing to read."""
    if path.is_dir():
        raise CommandFailed(f"{path} is a folder; name a file.")
    if not path.is_file():
        raise CommandFailed(f"there is no file {path}; check the path (this is {Path.cwd()}).")
    return path


def _setting(loc: tuple[int | str, ...]) -> str:
    name = "_".join(map(str, loc))
    return name if name.upper().startswith("PEGBOX_") else f"PEGBOX_{name.upper()}"
