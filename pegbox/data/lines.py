"""Bytes into numbered lines, in constant memory, whatever the bytes are."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

MAX_LINE_BYTES = 8 * 1024 * 1024
_UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(slots=True)
class Line:
    """One line of a file. Exactly one of `text` and `problem` is set. Not frozen, for speed alone."""

    number: int  # 1-based, as an editor counts
    text: str | None
    problem: str | None = None
    offset: int = field(default=0, compare=False)  # of its first byte in the file


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Yield every line, without its ending.

    Lines end at LF alone (U+2028 and its kin stay inside a line), with a CR before it dropped; a UTF-8 BOM at
    the start is dropped too. A line that is too long or not UTF-8 is yielded with its problem.
    """
    number = 0
    end = file.tell() if file.seekable() else 0
    while chunk := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        offset = end
        end += len(chunk)
        if number == 1 and (chunk.startswith(_UTF16_BOMS) or b"\x00" in chunk[:200]):
            yield Line(1, None, "the file is UTF-16 or binary, not UTF-8; save it as UTF-8 text", offset)
            return
        if len(chunk) > MAX_LINE_BYTES and not chunk.endswith(b"\n"):
            while not chunk.endswith(b"\n") and (chunk := file.readline(MAX_LINE_BYTES)):
                end += len(chunk)
            size = end - offset
            limit = MAX_LINE_BYTES // 2**20
            yield Line(
                number, None, f"the line is {size:,} bytes long, more than {limit} MiB; split the example", offset
            )
            continue
        if number == 1:
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        try:
            yield Line(number, chunk.rstrip(b"\n").removesuffix(b"\r").decode("utf-8"), None, offset)
        except UnicodeDecodeError as error:
            yield Line(number, None, f"byte {error.start + 1} is not UTF-8; save the file as UTF-8 text", offset)
