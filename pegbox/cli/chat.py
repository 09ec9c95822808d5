"""`pegbox chat`: ask a model once, or talk with it."""

import sys
from contextlib import closing, suppress
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.client import Api
from pegbox.cli.local import connect
from pegbox.errors import CommandFailed
from pegbox.wire.chat import Chunk

Message = dict[str, str]


def chat(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A base model, an alias or a tuned model.")],
    message: Annotated[str | None, typer.Argument(help="Ask this and end; without it, a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 gives the likeliest answer each time.")] = None,
) -> None:
    """Talk with a model. What comes through a pipe is one message."""
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read()
    options = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    asked: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    with connect(ctx) as api:
        if message is not None:
            _answer(api, asked, [*before, {"role": "user", "content": message}])
        else:
            _talk(api, asked, before)


def _talk(api: Api, asked: dict[str, object], messages: list[Message]) -> None:
    """Turn by turn, until the end of input. A turn that fails is taken back and the conversation goes on."""
    with suppress(ImportError):
        import readline  # noqa: F401 - arrow keys at the prompt
    screen.note("Ctrl-D ends the conversation.")
    while True:
        try:
            said = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            screen.say()
            return
        if not said:
            continue
        messages.append({"role": "user", "content": said})
        try:
            messages.append({"role": "assistant", "content": _answer(api, asked, messages)})
        except CommandFailed as error:
            messages.pop()
            screen.fail(str(error))
        except KeyboardInterrupt:
            messages.pop()
            screen.say()


def _answer(api: Api, asked: dict[str, object], messages: list[Message]) -> str:
    """Show an answer as it is made, and give it back whole."""
    whole = ""
    with closing(api.stream("/chat/completions", Chunk, {**asked, "messages": messages})) as chunks:
        for chunk in chunks:
            piece = "".join(choice.delta.content or "" for choice in chunk.choices)
            screen.write(piece)
            whole += piece
    screen.write("\n")
    return whole
