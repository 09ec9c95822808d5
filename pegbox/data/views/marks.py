"""Where two texts differ, for a person to see: by words, or by characters where the script has no spaces."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

# A word of a script that writes spaces; or one character of any other, or a sign. White space goes by itself.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_UNIT = re.compile(rf"\s+|[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|.", re.DOTALL)
_MAX_UNITS = 2_000  # of a text that is compared; difflib's time grows with the square
_LIKE = 0.3  # below this the texts have nothing but small words in common, and marks would be confetti


@dataclass(frozen=True, slots=True)
class Marked:
    """A piece of a text; `differs` where the other text has something else or nothing."""

    text: str
    differs: bool


def differences(a: str, b: str) -> tuple[list[Marked], list[Marked]]:
    """Both texts in pieces. Texts that have hardly anything in common are marked as a whole."""
    left, right = units(a)[:_MAX_UNITS], units(b)[:_MAX_UNITS]
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    if matcher.ratio() < _LIKE:
        return [Marked(a, differs=True)], [Marked(b, differs=True)]
    blocks = matcher.get_matching_blocks()
    return (
        list(_pieces(left, [(m.a, m.a + m.size) for m in blocks])),
        list(_pieces(right, [(m.b, m.b + m.size) for m in blocks])),
    )


def units(text: str) -> list[str]:
    """The words, signs, spaces and unspaced characters of a text, in order; joined they are the text."""
    return _UNIT.findall(text)


def _pieces(of: list[str], same: list[tuple[int, int]]) -> Iterator[Marked]:
    """A space between two words that differ belongs to the difference."""
    differs = [True] * len(of)
    for start, end in same:
        differs[start:end] = [False] * (end - start)
    for i in range(1, len(of) - 1):
        if of[i].isspace() and differs[i - 1] and differs[i + 1]:
            differs[i] = True
    start = 0
    for i in range(1, len(of) + 1):
        if i == len(of) or differs[i] != differs[start]:
            yield Marked("".join(of[start:i]), differs[start])
            start = i
