"""Q20: broken, invisible and unusual characters; and how to mend them without touching good text.

What is odd depends on where it stands: the joiner in 👩‍🚀, the non-joiner in Persian, the zero-width space between Thai
words, the direction mark in Hebrew and the narrow space of French punctuation are good writing.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.mojibake import garbled, ungarble
from pegbox.data.quality.tallies import Tally, turns


class Odd(NamedTuple):
    kind: str  # mojibake, replacement, control, invisible or space
    start: int
    end: int


class _Scripts(NamedTuple):
    """What a whole text is written in."""

    right_to_left: bool
    no_spaces: bool


_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
_PASSES = 8
_CONTROL = re.compile(rf"\x1b\[[0-9;?]{{0,20}}[A-Za-z]|[{_CONTROLS}]")  # the colours of a terminal are one
_LOST = "�\ud800-\udfff￾￿"
_INVISIBLE = "\xad᠎\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeffᅟᅠㅤﾠ￹-￻\U000e0000-\U000e007f"
_SPACES = "\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f"
_SIGN = re.compile(f"[{_CONTROLS}\x80-\x9f{_LOST}{_INVISIBLE}{_SPACES}]")
_LOST_ONE = re.compile(f"[{_LOST}]")

_JOINING = (  # scripts whose letters join: Arabic, Syriac …, and those of South and South-East Asia
    ("\u0600", "\u08ff"), ("\u0900", "\u0dff"), ("\u0e00", "\u109f"), ("\u1000", "\u109f"), ("\u1780", "\u18af"),
    ("\u1a00", "\u1aff"), ("\u1b00", "\u1cff"), ("\ufb50", "\ufdff"), ("\ufe70", "\ufefc"),
)  # fmt: skip
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1980-\u19df]"
)  # Thai, Lao, Burmese, Khmer, New Tai Lue
_AROUND_SPACE = frozenset("«»‹›:;!?%€$£°–—“”0123456789§№")  # where French, German and Russian hold things together


def odd(text: str) -> list[Odd]:
    """The odd characters of a text."""
    if text.isascii():
        if text.isprintable():  # the quickest of all questions
            return []
        return [Odd("control", *match.span()) for match in _CONTROL.finditer(text)]
    hits = [Odd("mojibake", hit.start, hit.end) for hit in garbled(text)]
    sign = _SIGN.search(text)
    if sign is None:
        return hits
    scripts = _Scripts(_RIGHT_TO_LEFT.search(text) is not None, _NO_SPACES.search(text) is not None)
    inside = {i for hit in hits for i in range(hit.start, hit.end)}
    for match in _SIGN.finditer(text, sign.start()):
        at = match.start()
        kind = _kind(text, at, scripts)
        if kind and at not in inside:
            hits.append(Odd(kind, at, at + 1))
    return hits


def _kind(text: str, at: int, scripts: _Scripts) -> str | None:
    """What an odd character is; None where it is in its place."""
    c = text[at]
    if c < "\xa0":
        return "control"
    if _LOST_ONE.match(c):
        return "replacement"
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if c in "\xa0\u202f\u2009":
        fixed = before in _AROUND_SPACE or after in _AROUND_SPACE
        alone = (
            before.isalpha() and not text[max(0, at - 2) : at - 1].isalpha()
        )  # v Praze, z domu: never at a line's end
        return None if fixed or alone else "space"
    if "\u2000" <= c <= "\u200a" or c in "\u1680\u2028\u2029\u205f":
        return "space"
    return None if _in_place(c, before, after, scripts) else "invisible"


def _in_place(c: str, before: str, after: str, scripts: _Scripts) -> bool:
    if c == "\u200d":
        return _joins(before) or (_pictured(before) and _pictured(after))
    if c == "\u200c":
        return _joins(before)
    if c == "\u200b":
        return scripts.no_spaces
    if c in "\u200e\u200f\u061c\u202a\u202b\u202c\u2066\u2067\u2068\u2069":
        return scripts.right_to_left
    if "\U000e0020" <= c <= "\U000e007f":  # the flags of England, Scotland and Wales
        return "\U0001f3f4" <= before <= "\U0001f3f4" or "\U000e0020" <= before <= "\U000e007e"
    return False


def _joins(c: str) -> bool:
    return any(first <= c <= last for first, last in _JOINING)


def _pictured(c: str) -> bool:
    """Emoji, their skin colours and the selector that colours a sign."""
    return c >= "\U0001f000" or "\u2190" <= c <= "\u2bff" or c == "\ufe0f"


def mend(text: str) -> str:
    """The text without what is odd: garbled pieces read rightly, control and invisible characters gone, unusual spaces
    made plain ones. What is lost (�) stays, for nobody knows what it was. Good text comes back as it is."""
    if text.isascii() and text.isprintable():
        return text
    for _ in range(_PASSES):  # what stood between two characters may have kept them from being read as garbled
        mended = _mend(text)
        if mended == text:
            break
        text = mended
    return text


def _mend(text: str) -> str:
    text = ungarble(text)
    pieces: list[str] = []
    at = 0
    for hit in sorted(odd(text), key=lambda h: h.start):
        if hit.start >= at and hit.kind in ("control", "invisible", "space"):
            end = _CONTROL.match(text, hit.start)
            pieces += (text[at : hit.start], _instead(text[hit.start], hit.kind))
            at = end.end() if end else hit.end
    return "".join(pieces) + text[at:]


def _instead(c: str, kind: str) -> str:
    if c in "\x0b\x0c\u2028\u2029":
        return "\n"
    if kind == "space":
        return " "
    if "\x80" <= c <= "\x9f":  # a byte of Windows-1252 that went through as it was
        meant = bytes([ord(c)]).decode("cp1252", "ignore")
        return meant if c != "\x85" else "\n"
    return ""


_SAID = {
    "mojibake": "text that was read in the wrong encoding (Ã© for é, 縺 for kana)",
    "replacement": "characters that were lost in reading (�)",
    "control": "control characters",
    "invisible": "invisible characters where nothing calls for them",
    "space": "unusual spaces where nothing calls for them",
}
_WORTH = {"mojibake": Severity.WARNING, "replacement": Severity.WARNING, "control": Severity.WARNING}


class Characters:
    """Counts rows by what is odd in them, and which characters it is."""

    codes = ("Q20",)

    def __init__(self, _: Context) -> None:
        self._tallies = {kind: Tally() for kind in _SAID}
        self._learnt = dict.fromkeys(_SAID, 0)
        self._which: dict[str, dict[str, int]] = {kind: {} for kind in _SAID}

    def see(self, item: Item) -> None:
        seen: dict[str, bool] = {}
        for turn, text in turns(item):
            if text.isascii() and text.isprintable():
                continue
            for hit in odd(text):
                learnt = turn < len(item.trained) and item.trained[turn]
                if hit.kind not in seen:
                    self._tallies[hit.kind].show(item, turn, hit.start, text=_around(text, hit))
                seen[hit.kind] = seen.get(hit.kind, False) or learnt
                self._name(hit.kind, text[hit.start : hit.end])
        for kind, learnt in seen.items():
            self._tallies[kind].add(item)
            self._learnt[kind] += learnt

    def _name(self, kind: str, piece: str) -> None:
        which = self._which[kind]
        name = piece[:12] if kind == "mojibake" else f"U+{ord(piece[0]):04X}"
        if name in which or len(which) < 100:
            which[name] = which.get(name, 0) + 1

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        for kind, tally in self._tallies.items():
            if tally.rows:
                common = sorted(self._which[kind].items(), key=lambda pair: -pair[1])[:5]
                rows = f"{tally.rows:,} row has" if tally.rows == 1 else f"{tally.rows:,} rows have"
                yield finding(
                    "Q20",
                    kind,
                    f"{rows} {_SAID[kind]}: mostly {', '.join(name for name, _ in common)}; "
                    f"{self._learnt[kind]:,} of them in answers that are learnt",
                    count=tally.rows,
                    rows=corpus.read,
                    lines=tally.lines,
                    samples=tally.samples(corpus.which),
                    severity=_WORTH.get(kind),
                    data={"learnt_rows": self._learnt[kind], "characters": dict(common)},
                    file=corpus.which,
                )


def _around(text: str, hit: Odd) -> str:
    """The piece with what can't be seen spelt out."""
    from pegbox.data.quality.text import excerpt

    if hit.kind in ("mojibake", "replacement"):
        return excerpt(text, hit.start)
    return excerpt(f"{text[: hit.start]}<U+{ord(text[hit.start]):04X}>{text[hit.end :]}", hit.start)
