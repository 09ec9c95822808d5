"""A look at an upload, before it is acknowledged: whether its rows can be read at all."""

import time
from typing import BinaryIO

from pegbox.data.rows import guess_method, read_rows

_SECONDS = 5.0
_EVERY = 1_000  # rows between two looks at the clock


def glance(content: BinaryIO, seconds: float = _SECONDS) -> str | None:
    """What to tell the user of a file's rows that can't be read; None where there are none, as far as was looked."""
    ends = time.monotonic() + seconds
    bad, first, row = 0, None, None
    for row in read_rows(content, guess_method(content)):
        if row.problem is not None:
            bad += 1
            first = first or row.problem
        if not row.example % _EVERY and time.monotonic() >= ends:
            break
    if row is None:
        return "The file holds no rows; a job needs at least one example a line."
    if first is None:
        return None
    return f"{bad:,} of {row.example:,} rows can't be read; a job would fail. The first: {first}"
