"""The `pegbox` command: its parts, the options before them, and the one place where an error becomes a sentence."""

import errno
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pegbox.cli import chat, check, clean, compare, files, jobs, models, prepare, screen, split
from pegbox.cli.client import Address
from pegbox.cli.serve import serve
from pegbox.errors import PegboxError


class Commands(TyperGroup):
    """Says what went wrong in one sentence, with exit status 1."""

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


app.command()(serve)
app.command()(check.check)
app.command()(prepare.prepare)
app.command()(clean.clean)
app.command()(split.split)
app.add_typer(models.app)
app.add_typer(files.app)
app.add_typer(jobs.app)
app.command()(chat.chat)
app.command()(compare.compare)


if __name__ == "__main__":
    app()
