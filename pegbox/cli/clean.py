"""`pegbox clean`: what a check found, taken out or mended in a new file. Needs no server and no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import existing_file, find_base, read_settings
from pegbox.cli.progress import through_files
from pegbox.data.formats import METHODS
from pegbox.errors import CommandFailed

if TYPE_CHECKING:
    from pegbox.data.survey import Target


def clean(
    train: Annotated[Path, typer.Argument(help="A JSONL file.", metavar="TRAIN")],
    apply: Annotated[str, typer.Option(help="Codes to apply, like Q06,Q20.", metavar="CODES")] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the rows that stay here.", metavar="OUT")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base model, for Q05 and tokens of Q04.")] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}; guessed if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Leave out or mend what `pegbox check` found, each row accounted for. Without -o nothing is written."""
    from pegbox.data.mending.clean import clean as run
    from pegbox.data.mending.verdicts import APPLICABLE

    if method is not None and method not in METHODS:
        raise CommandFailed(f"there is no method {method}; use one of {', '.join(METHODS)}.")
    codes = [code.strip().upper() for code in apply.split(",") if code.strip()]
    if not codes:
        known = "\n".join(f"  {code}  {what}" for code, what in APPLICABLE.items())
        raise CommandFailed(f"name the codes to apply, like --apply Q06,Q20:\n{known}")
    existing_file(train)
    target = _target(model) if model is not None or "Q05" in codes else None
    size = train.stat().st_size
    with through_files() as tick:
        done = run(
            train, output, codes, method=method, target=target, force=force, tick=lambda n: tick(train.name, n, size)
        )
    left_out = sum(done.removed.values())
    screen.facts(
        (
            ("read", f"{done.rows:,} rows = {done.kept:,} kept + {done.changed:,} changed + {left_out:,} left out"),
            ("left out", _counts(done.removed)),
            ("changed", _counts(done.mended)),
            ("written", done.path),
            ("each change", done.log),
        )
    )
    if output is None:
        screen.note("Nothing was written; -o OUT writes the rows that stay.")
    else:
        screen.note(f"Next: pegbox check {output}")


def _target(model: str | None) -> "Target | None":
    from pegbox.catalog.target import target_of

    base = find_base(read_settings(), model)
    return target_of(base, None) if base else None


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{code}: {rows:,}" for code, rows in sorted(counts.items()))
