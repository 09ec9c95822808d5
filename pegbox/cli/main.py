"""The `pegbox` command."""

import typer

from pegbox.cli.serve import serve

app = typer.Typer(name="pegbox", help="Fine-tune open models through the OpenAI API, on your own machine.", no_args_is_help=True)
app.command()(serve)


@app.callback()
def _root() -> None:
    """Fine-tune open models through the OpenAI API, on your own machine."""


if __name__ == "__main__":
    app()
