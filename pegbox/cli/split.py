"""`pegbox split`: training and validation rows that do not know each other. Needs no server and no torch."""

from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import existing_file
from pegbox.cli.progress import through_files
from pegbox.errors import CommandFailed


def split(
    file: Annotated[Path, typer.Argument(help="A JSONL file.", metavar="FILE")],
    valid: Annotated[float, typer.Option(help="The share of rows to validate on, or their number.")] = 0.1,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write PREFIX.train.jsonl and PREFIX.valid.jsonl.", metavar="PREFIX"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split.", min=0)] = 0,
    by: Annotated[
        str, typer.Option(help="What keeps rows on one side: a like prompt, or row for equal rows.")
    ] = "prompt",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the two files.")] = False,
) -> None:
    """Split a file for training and validation; like rows stay on one side."""
    from pegbox.data.mending.split import BY
    from pegbox.data.mending.split import split as run

    existing_file(file)
    if by not in BY:
        raise CommandFailed(f"there is no --by {by}; use {' or '.join(BY)}.")
    if not (0 < valid < 1 or (valid >= 1 and valid.is_integer())):
        raise CommandFailed("--valid is a share between 0 and 1, like 0.1, or a number of rows, like 200.")
    if output is not None and output.is_dir():
        output /= file.name.removesuffix(".jsonl")
    size = file.stat().st_size
    with through_files() as tick:
        done = run(file, valid, output, seed=seed, by=by, force=force, tick=lambda n: tick(file.name, n, size))
    kept = f"{done.groups:,} groups, the largest of {done.largest:,} rows; each is on one side"
    screen.facts(
        (
            ("read", f"{done.rows:,} rows = {done.train:,} train + {done.valid:,} valid"),
            ("train", done.train_path),
            ("valid", done.valid_path),
            ("together", kept),
            ("on both sides", f"{done.shared:,} {'like rows or prompts' if by == 'prompt' else 'rows'}"),
            ("balanced", f"by {done.classes:,} different answers" if done.classes else None),
        )
    )
    if done.unreadable:
        screen.note(
            f"{done.unreadable:,} rows can't be read; they are in {done.train_path.name}: pegbox check names them."
        )
