"""`pegbox files`: what was uploaded to the server."""

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import progress, screen
from pegbox.cli.client import Api, path
from pegbox.cli.local import connect, existing_file
from pegbox.wire.base import Deleted, Page
from pegbox.wire.files import File

app = typer.Typer(
    name="files", help="Files on the server.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)
FileId = Annotated[str, typer.Argument(help="file-…")]
Limit = Annotated[int, typer.Option(min=1, help="How many of the newest to show.")]


@app.command("upload")
def upload(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A local file.", metavar="PATH")],
    purpose: Annotated[str, typer.Option(help="What it is for.")] = "fine-tune",
) -> None:
    """Upload a file; its id is the only thing on standard output."""
    with connect(ctx) as api:
        kept = send(api, file, purpose)
    screen.say(kept.id)


@app.command("list")
def list_files(
    ctx: typer.Context,
    limit: Limit = 20,
    purpose: Annotated[str | None, typer.Option(help="Only files for this.")] = None,
) -> None:
    """List files, newest first."""
    with connect(ctx) as api:
        found = api.pages("/files", Page[File])
        wanted = list(islice((f for f in found if purpose in (None, f.purpose)), limit + 1))
    if not wanted:
        screen.note("There are no files. Upload one with `pegbox files upload PATH`.")
        return
    rows = ((f.id, f.filename, screen.size(f.bytes), f.purpose, screen.moment(f.created_at)) for f in wanted[:limit])
    screen.table(("file", "name", "size", "purpose", "created"), rows)
    if len(wanted) > limit:
        screen.note(f"There are more; --limit {limit * 2} shows more of them.")


@app.command("get")
def get(ctx: typer.Context, file_id: FileId) -> None:
    """Show what is known of a file."""
    with connect(ctx) as api:
        file = api.get(path("files", file_id), File)
    screen.facts(
        (
            ("file", file.id),
            ("name", file.filename),
            ("size", f"{file.bytes:,} bytes"),
            ("purpose", file.purpose),
            ("status", file.status),
            ("created", screen.moment(file.created_at)),
            ("expires", screen.moment(file.expires_at) if file.expires_at is not None else None),
        )
    )


@app.command("content")
def content(
    ctx: typer.Context,
    file_id: FileId,
    output: Annotated[Path | None, typer.Option(help="Write to this file rather than to the screen.")] = None,
) -> None:
    """Fetch a file's content."""
    with connect(ctx) as api:
        if output is not None:
            _save(api, file_id, output)
        else:
            _show(api, file_id)


@app.command("delete")
def delete(ctx: typer.Context, file_id: FileId) -> None:
    """Delete a file. A job that was created from it keeps its own copy once its files are checked."""
    with connect(ctx) as api:
        gone = api.delete(path("files", file_id), Deleted)
    screen.say(f"{gone.id} is deleted.")


def send(api: Api, local: Path, purpose: str = "fine-tune") -> File:
    """Upload with a bar."""
    with progress.reading(existing_file(local)) as content:
        kept = api.upload(content, local.name, purpose, File)
    screen.note(f"{local} is uploaded as {kept.id} ({screen.size(kept.bytes)}).")
    return kept


def _save(api: Api, file_id: str, output: Path) -> None:
    """Under its final name only when whole."""
    partial = output.with_name(output.name + ".part")
    with api.download(path("files", file_id, "content")) as (chunks, length):
        try:
            with partial.open("wb") as out, progress.bytes_of(output.name, length) as came:
                for chunk in chunks:
                    out.write(chunk)
                    came(len(chunk))
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    screen.note(f"{file_id} is in {output}.")


def _show(api: Api, file_id: str) -> None:
    """As it is for a pipe; without control characters for a terminal."""
    with api.download(path("files", file_id, "content")) as (chunks, _):
        for chunk in chunks:
            if screen.on_terminal():
                screen.write(chunk.decode("utf-8", "replace"))
            else:
                sys.stdout.buffer.write(chunk)
    sys.stdout.flush()
