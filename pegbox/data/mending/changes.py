"""A new file written beside the old one, and the log that accounts for every row that was left out or altered.

Nothing stands under the final names before all of it is on disk.
"""

import json
import os
from codecs import BOM_UTF8
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pegbox.errors import PegboxError

_CHUNK = 1 << 20
REMOVED, CHANGED = "removed", "changed"


class OutputError(PegboxError):
    """A file can't be written where it was asked for. `str(error)` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to one row, and why. Excerpts are redacted."""

    line: int  # 1-based, in the file that was read
    action: str  # REMOVED or CHANGED
    code: str | None  # Q01 …; None for a remedy that answers to no code
    kind: str  # kebab-case
    why: str  # a sentence
    kept_line: int | None = None  # of the row that stays in its place
    before: str | None = None
    after: str | None = None


@dataclass(slots=True)
class Output:
    """OUT and OUT.changes.jsonl, to be written in a `with`: whole at its end, or not at all."""

    path: Path
    source: Path
    force: bool = False
    removed: Counter[str] = field(default_factory=Counter)  # rows by code or kind
    changed: Counter[str] = field(default_factory=Counter)
    _rows: BinaryIO | None = None
    _log: BinaryIO | None = None

    @property
    def log_path(self) -> Path:
        return self.path.with_name(self.path.name + ".changes.jsonl")

    def __enter__(self) -> Self:
        for path in (self.path, self.log_path):
            refuse_to_lose(path, self.source, force=self.force)
        self._rows = part(self.path).open("wb")
        self._log = part(self.log_path).open("wb")
        return self

    def row(self, line: bytes) -> None:
        """A row, with or without its line's end."""
        assert self._rows is not None
        self._rows.write(line if line.endswith(b"\n") else line + b"\n")

    def copy(self, file: BinaryIO) -> None:
        """The line that begins where the file stands, byte for byte."""
        assert self._rows is not None
        copy_line(file, self._rows)

    def log(self, change: Change) -> None:
        counts = self.removed if change.action == REMOVED else self.changed
        counts[change.code or change.kind] += 1
        told = {key: value for key, value in _facts(change).items() if value is not None}
        self.note(told)

    def note(self, told: dict[str, object]) -> None:
        """A line of the log that is about no single row."""
        assert self._log is not None
        self._log.write(json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._rows is not None
        assert self._log is not None
        try:
            for file in (self._log, self._rows):
                settle(file, keep=kind is None)
            if kind is None:
                part(self.log_path).replace(self.log_path)
                part(self.path).replace(self.path)
        finally:
            part(self.path).unlink(missing_ok=True)
            part(self.log_path).unlink(missing_ok=True)


def copy_line(file: BinaryIO, out: BinaryIO) -> None:
    """The line that begins where the file stands, byte for byte and with an end, without a byte order mark."""
    at_start = file.tell() == 0
    chunk = file.readline(_CHUNK)
    out.write(chunk.removeprefix(BOM_UTF8) if at_start else chunk)
    while not chunk.endswith(b"\n") and (more := file.readline(_CHUNK)):
        chunk = more
        out.write(chunk)
    if not chunk.endswith(b"\n"):
        out.write(b"\n")


def part(path: Path) -> Path:
    """Where a file stands until it is whole."""
    return path.with_name(path.name + ".part")


def settle(file: BinaryIO, *, keep: bool) -> None:
    """Close it; on disk before that, if it is to be kept."""
    with file:
        if keep:
            file.flush()
            os.fsync(file.fileno())


def refuse_to_lose(path: Path, source: Path, *, force: bool) -> None:
    """Raises OutputError where writing would lose a file of the user's."""
    if path.exists() and path.samefile(source):
        raise OutputError(f"{path} is the file that is read; name another one with -o")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; name another file with -o, or overwrite it with --force")
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}; make it, or name another file with -o")


def _facts(change: Change) -> dict[str, object]:
    return {name: getattr(change, name) for name in Change.__slots__}
