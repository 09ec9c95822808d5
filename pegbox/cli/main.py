"""The `pegbox` command: its parts, the options before them, and the one place where an error becomes a sentence."""

import errno
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pegbox.cli import screen
from pegbox.cli.address import Address
from pegbox.errors import PegboxError

# In the order of a user's way; each is a file of this folder, read when it is asked for.
COMMANDS = (
    "serve", "worker", "check", "prepare", "clean", "split", "chat", "compare", "models", "files", "jobs", "webhooks",
    "keys", "projects", "audit", "backup", "restore", "collect", "doctor",
)  # fmt: skip


class Commands(TyperGroup):
    """Reads only the command that is asked for; says what went wrong in one sentence, with exit status 1."""

    def list_commands(self, _: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: Any, name: str) -> Any:
        if name not in COMMANDS:
            return None
        module = import_module(f"pegbox.cli.{name}")
        group = getattr(module, "app", None)
        if group is None:  # one command, a function of the file's name
            group = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
            group.command(name)(getattr(module, name))
        command = typer.main.get_command(group)
        command.name = name
        return command

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that can't show a character shows "?"
        try:
            return super().invoke(ctx)
        except PegboxError as error:
            screen.fail(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of `pegbox … | head` has seen enough
                raise
            screen.fail(f"{error.filename or 'a file'} can't be read or written: {error.strerror}.")
        raise typer.Exit(1)


app = typer.Typer(
    name="pegbox",
    cls=Commands,
    help="Fine-tune open models through the OpenAI API, on your own machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they show local variables, the key among them
)


@app.callback()
def _root(
    ctx: typer.Context,
    base_url: Annotated[
        str,
        typer.Option(help="The server's address.", envvar=["PEGBOX_BASE_URL", "OPENAI_BASE_URL"]),
    ] = "http://127.0.0.1:8000/v1",
    api_key: Annotated[
        str | None,
        typer.Option(help="The server's key.", envvar=["PEGBOX_API_KEY", "OPENAI_API_KEY"], show_default=False),
    ] = None,
) -> None:
    """Fine-tune open models through the OpenAI API, on your own machine."""
    ctx.obj = Address(base_url, api_key)


if __name__ == "__main__":
    app()
