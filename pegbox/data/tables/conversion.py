"""One row of a table as a training row, or the reason why it can't be one."""

import json
from dataclasses import dataclass

from pegbox.data.formats import FormatError, parse_row
from pegbox.data.lines import MAX_LINE_BYTES
from pegbox.data.quality.text import digest
from pegbox.data.tables.roles import Pair, Roles, Row, RowError, chat_row, pair_of, preference_row, training_row
from pegbox.data.tables.rows import TableRow

GOOD, EMPTY, BAD = range(3)
_TOO_LONG = f"is longer than {MAX_LINE_BYTES >> 20} MiB"


@dataclass(slots=True)
class Converted:
    """A row of the table as a pair of texts or a training row; or why it is neither. Not frozen for speed alone."""

    state: int  # GOOD, EMPTY or BAD
    pair: Pair | None = None
    row: Row | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Converter:
    roles: Roles
    format: str  # chat, completion or preference

    def read(self, row: TableRow) -> Converted:
        if row.value is None:
            return Converted(BAD, problem=row.problem or "can't be read")
        try:
            if self.roles.completion:
                return _checked_pair(pair_of(row.value, self.roles))
            return Converted(GOOD, row=self._whole(row.value))
        except (RowError, FormatError) as error:
            return Converted(BAD, problem=str(error))

    def write(self, read: Converted) -> Row:
        """A good row as it is written."""
        if read.pair is not None:
            return training_row(read.pair, self.format)
        assert read.row is not None
        return read.row

    def _whole(self, value: Row) -> Row:
        if self.format == "preference":
            row = value if self.roles.whole else preference_row(value, self.roles)
            parse_row(row, "dpo")
        else:
            row = chat_row(value, self.roles)
            parse_row(row)
        if len(line_of(row)) > MAX_LINE_BYTES:
            raise RowError(_TOO_LONG)
        return row


def line_of(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"


def digest_of(read: Converted) -> int:
    """Of what the row says, bar the white space about it; never 0."""
    if read.pair is None:
        return digest(json.dumps(read.row, sort_keys=True)) or 1
    pair = read.pair
    return digest(f"{pair.system}\x00{pair.prompt.strip()}\x00{pair.completion.strip()}") or 1


def _checked_pair(pair: Pair) -> Converted:
    if not pair.completion.strip():
        return Converted(EMPTY, pair, problem="has no completion")
    if 6 * (len(pair.prompt) + len(pair.completion) + len(pair.system)) > MAX_LINE_BYTES:
        return Converted(BAD, problem=_TOO_LONG)  # JSON may take six bytes a character
    return Converted(GOOD, pair)
