"""`pegbox prepare`: training rows from any table. Needs no server and no torch."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import existing_file
from pegbox.errors import CommandFailed

if TYPE_CHECKING:
    from pegbox.data.tables.prepare import Outline

_SHOWN_PROBLEMS = 5
_SHOWN_CHARACTERS = 1_000


def prepare(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, XLSX, Parquet, JSON, JSONL or text.", metavar="FILE")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the training rows here.", metavar="OUT")
    ] = None,
    apply: Annotated[str, typer.Option(help="Remedies to apply, like missing,duplicates,whitespace.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply all that is advised.")] = False,
    prompt: Annotated[str | None, typer.Option(help="The column that asks.", metavar="COLUMN")] = None,
    completion: Annotated[str | None, typer.Option(help="The column that answers.", metavar="COLUMN")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt for every row, or its column.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="chat (the default) or completion.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a text file; found out if not given.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Of a workbook; the first if not given.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV file; found out if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Make training rows of a table, and say what could be better. Without -o nothing is written."""
    from pegbox.data.tables.prepare import Wish, outline, write

    existing_file(file)
    if format_ not in (None, "chat", "completion"):
        raise CommandFailed(f"there is no format {format_}; use chat or completion.")
    if delimiter is not None:
        delimiter = delimiter.replace("\\t", "\t")
        if len(delimiter) != 1:
            raise CommandFailed("a delimiter is one character.")
    wish = Wish(prompt, completion, system, format_, encoding, sheet, delimiter)
    with _counted(f"reading {file.name}") as tell:
        found = outline(file, wish, tell)
    _show(found)
    names = {name.strip() for name in apply.split(",") if name.strip()}
    if yes:
        names |= {remedy.name for remedy in found.remedies if remedy.advised}
    if output is None:
        screen.note("Nothing was written; -o OUT writes the rows, and --yes applies what is advised.")
        return
    with _counted(f"writing {output.name}") as tell:
        done = write(found, output, names, force=force, tell=tell)
    screen.say()
    screen.facts(
        (
            ("read", f"{done.rows:,} rows"),
            ("written", f"{done.written:,} rows to {done.path}"),
            ("left out", _counts(done.removed)),
            ("changed", _counts(done.changed)),
            ("each change", str(done.log)),
        )
    )
    screen.note(f"Next: pegbox check {done.path}")


def _show(found: "Outline") -> None:
    kind = found.kind.upper() if found.kind != "xlsx" else "Excel"
    if found.encoding is not None:
        from pegbox.data.tables.encodings import spoken

        kind += f", {spoken(found.encoding)}"
    counts = {"unreadable": found.unreadable, "without a completion": found.missing}
    screen.facts(
        (
            ("file", f"{found.path} ({kind})"),
            (
                "rows",
                f"{found.rows:,}: {found.ready:,} ready" + "".join(f", {n:,} {t}" for t, n in counts.items() if n),
            ),
            ("columns", ", ".join(f"{column} = {role}" for column, role in found.roles.named().items())),
            ("left out", ", ".join(found.unused)),
            ("system prompt", found.roles.system_text),
            ("written as", f"{found.format} rows"),
        )
    )
    for number, problem in found.problems[:_SHOWN_PROBLEMS]:
        screen.say(f"  row {number}: {problem}")
    if found.unreadable > _SHOWN_PROBLEMS:
        screen.say(f"  and {found.unreadable - _SHOWN_PROBLEMS:,} more")
    if found.example is not None:
        shown = json.dumps(found.example, ensure_ascii=False)
        screen.say("\nthe first row as it will be:")
        screen.say("  " + (shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + "…"))
    if found.remedies or found.advice:
        screen.say("\nwhat could be better:")
    for remedy in found.remedies:
        screen.say(f"  {remedy.text}  (--apply {remedy.name}{'' if remedy.advised else '; a matter of taste'})")
    for advice in found.advice:
        screen.say(f"  {advice}")


@contextmanager
def _counted(what: str) -> Iterator[Callable[[int], None]]:
    """Call with the number of rows that are done. How many there will be, a table does not tell beforehand."""
    if not screen.err.is_terminal:
        yield lambda _: None
        return
    with screen.err.status(screen.one_line(what)) as shown:
        yield lambda rows: shown.update(f"{screen.one_line(what)}: {rows:,} rows")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {rows:,}" for name, rows in sorted(counts.items()))
