"""What a command needs of this machine: the settings, files that exist, the address of the server."""

from pathlib import Path

import typer

from pegbox.cli.client import Address, Api, CommandFailed
from pegbox.settings import Settings


def connect(ctx: typer.Context) -> Api:
    """The connection that the options before the command name."""
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
