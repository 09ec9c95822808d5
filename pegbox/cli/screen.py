"""All that the commands print goes through here, so that text from a server can do nothing to a terminal.

Standard output carries results, the error stream carries talk: `FILE=$(pegbox files upload rows.jsonl)` works.
Tables become tab-separated lines where nobody looks at them.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Markup off: a file named "[red]" is a file named "[red]".
out = Console(markup=False, emoji=False, highlight=False)
err = Console(stderr=True, markup=False, emoji=False, highlight=False)

# Control characters but for line ends and tabs, and the marks that turn the direction of text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell them, no encoding can write them


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell that stands out."""

    text: str
    style: str


def clean(text: str) -> str:
    """The text without what a terminal would act upon."""
    return _HALF_CHARACTER.sub("\ufffd", _CONTROL.sub("", text))


def one_line(text: str) -> str:
    return " ".join(clean(text).split())


def on_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty()


def say(text: str = "") -> None:
    """A result, on standard output; never cut or wrapped, so that names can be copied whole."""
    sys.stdout.write(clean(text) + "\n")


def note(text: str) -> None:
    """Talk, on the error stream."""
    err.print(clean(text), soft_wrap=True, style="dim")


def fail(text: str) -> None:
    """What went wrong and what to do about it."""
    err.print(Text.assemble(("pegbox: ", "bold red"), clean(text)), soft_wrap=True)


def write(text: str) -> None:
    """A piece of running text, shown at once."""
    sys.stdout.write(clean(text))
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Cell]], title: str | None = None) -> None:
    if not on_terminal():
        for row in (columns, *rows):
            say("\t".join(one_line(cell.text if isinstance(cell, Cell) else cell) for cell in row))
        return
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    out.print(drawn)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing, a line a fact; facts that aren't there yet are left out."""
    known = [(name, str(value)) for name, value in pairs if value not in (None, "", [])]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        say(f"{name:{width}}  {value}")


def moment(timestamp: int) -> str:
    """Unix seconds as this machine's date and time."""
    try:
        return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # no server of ours says that
        return str(timestamp)


def size(n: int) -> str:
    """Bytes for people."""
    value = float(n)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _cell(cell: str | Cell) -> Text:
    return Text(clean(cell.text), style=cell.style) if isinstance(cell, Cell) else Text(clean(cell))
