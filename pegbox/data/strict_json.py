"""JSON as the standard means it. Python's own parser lets through what breaks later: NaN, duplicate keys,
lone surrogates, endless nesting. Each is refused here with a sentence that says what to change."""

import json
import math
import re
from typing import NoReturn

MAX_DEPTH = 64
# A surrogate that is not half of a pair; `json` joins proper pairs, so any left over is alone.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class JSONError(ValueError):
    """Not acceptable as JSON; `str(error)` says why, for a user."""


def _no_constant(name: str) -> NoReturn:
    raise JSONError(f"{name} is not JSON; use a number or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise JSONError(f"the number {digits[:20]} is too large")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 300:
        raise JSONError(f"an integer of {len(digits)} digits is too large")
    return int(digits)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JSONError(f'the key "{printable(twice)}" appears twice in one object; keep one')
    return out


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
)


def printable(text: str) -> str:
    """`text` made safe for a message: short, and without characters that UTF-8 can't write."""
    return text[:80].encode("utf-8", "backslashreplace").decode()


def loads(text: str) -> object:
    """Parse one JSON value.

    Raises JSONError, with the reason, for anything but one finite, unambiguous value of Unicode text that is
    nested at most MAX_DEPTH deep.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise JSONError(f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}") from None
    except RecursionError:
        raise JSONError(f"nested more than {MAX_DEPTH} levels deep") from None
    _check(value, MAX_DEPTH)
    return value


def _check(value: object, depth: int) -> None:
    if isinstance(value, str):
        _check_text(value)
        return
    if not isinstance(value, (dict, list)):
        return
    if depth == 0:
        raise JSONError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check(item, depth - 1)
    else:
        for item in value:
            _check(item, depth - 1)


def _check_text(text: str) -> None:
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise JSONError(f"\\u{ord(found.group()):04x} is half of a surrogate pair and no character; remove it")
