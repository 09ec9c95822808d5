"""The values of a JSON array of any length, one after another, in constant memory."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pegbox.data.lines import MAX_LINE_BYTES
from pegbox.data.tables.encodings import TableError

_CHUNK = 1 << 18  # characters
_MARK = re.compile(r'["\[\]{},]')
_IN_TEXT = re.compile(r'["\\]')


def json_texts(text: io.TextIOWrapper) -> Iterator[str]:
    """The source of each value of the outermost array, or of each object where there is none.

    Raises TableError for a file that breaks off, or a value that is too long.
    """
    cutter = _Cutter()
    for chunk in _chunks(text):
        yield from cutter.feed(chunk)
        if cutter.size > MAX_LINE_BYTES:
            raise TableError(f"a value of the JSON file is longer than {MAX_LINE_BYTES >> 20} MiB; write a row a line")
    if cutter.depth or "".join(cutter.pieces).strip():
        raise TableError("the JSON file breaks off, or holds something after its end; is it whole?")


@dataclass(slots=True)
class _Cutter:
    """Follows brackets and quotes, no more: what stands between them is for a parser to judge."""

    depth: int = 0  # of open brackets
    in_text: bool = False
    in_array: bool | None = None  # None: the first bracket is yet to come
    opened: bool = False  # the array's own bracket is dropped
    pieces: list[str] = field(default_factory=list)  # of the value that is not whole yet
    size: int = 0  # of these

    def feed(self, chunk: str) -> Iterator[str]:
        start = at = 0
        while found := (_IN_TEXT if self.in_text else _MARK).search(chunk, at):
            mark, at = found.group(), found.end()
            if self.in_text:
                at += mark == "\\"  # pass over what it escapes
                self.in_text = mark != '"'
            elif mark == '"':
                self.in_text = True
            elif self._ends(mark):
                if one := self._taken(chunk[start : at if mark == "}" else at - 1]):
                    yield one
                start = at
        self.pieces.append(chunk[start:])
        self.size += len(chunk) - start

    def _ends(self, mark: str) -> bool:
        """Whether a value ends here."""
        if mark in "[{":
            self.in_array = mark == "[" if self.in_array is None else self.in_array
            self.depth += 1
            return False
        if mark in "]}":
            self.depth -= 1
            return self.depth == 0
        return self.depth == bool(self.in_array)

    def _taken(self, piece: str) -> str:
        one = "".join((*self.pieces, piece)).strip()
        if self.in_array and not self.opened:
            one, self.opened = one[1:].strip(), True
        self.pieces, self.size = [], 0
        return one


def _chunks(text: io.TextIOWrapper) -> Iterator[str]:
    """Pieces that never end in a backslash, so that what it escapes is in the same piece."""
    while chunk := text.read(_CHUNK):
        while chunk.endswith("\\") and (more := text.read(1)):
            chunk += more
        yield chunk
