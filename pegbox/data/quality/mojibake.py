"""Text whose bytes were read in the wrong encoding: found where it stands, and read again rightly.

Three ways of going wrong are known: UTF-8 read as Windows-1252 or Latin-1 (cafÃ©, itâ€™s), UTF-8 read as Shift_JIS
(縺薙ｓ縺ｫ縺｡縺ｯ), and Shift_JIS read as Windows-1252 (‚±‚ñ‚É‚¿‚Í). A piece counts only if its bytes, read again,
are good text: so much good text is full of accents and quotation marks that no single letter can tell.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Garbled(NamedTuple):
    start: int
    end: int
    meant: str  # what was meant; the piece as it is where that is lost


def _sloppy(byte: int) -> str:
    """Windows-1252 as browsers read it: the five bytes it leaves out are control characters."""
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


_BYTES = {**{_sloppy(byte): byte for byte in range(256)}, **{chr(byte): byte for byte in range(256)}}
_NEXT = "[" + re.escape("".join({_sloppy(byte) for byte in range(0x80, 0xC0)})) + "\x80-\xbf]"  # UTF-8's later bytes
# One pair tells, where the first letter is a rare capital; Greek and Cyrillic begin with common ones and come in rows,
# and so do kana; quotation marks, arrows and emoji need three or four bytes.
_WESTERN = re.compile(
    f"(?:[à-ï]{_NEXT}{{2}}){{2,}}|(?P<torn>(?:[à-ï]{_NEXT}{{1,2}}){{3,}})|(?:[Ä-ß]{_NEXT}){{2,}}|â{_NEXT}{{2}}|ð{_NEXT}{{3}}|(?P<pair>[ÂÃÄÅ]{_NEXT})"
)
# Capitals end, and these follow, in good text too: “AMANHÔ, «CAFÉ», the letter »Ä«.
_CLOSERS = frozenset("“”‘’«»‹›…–—")
_KANA = re.compile("[ぁ-ヺ]")
_UTF8_AS_SJIS = re.compile("[縺繧繝]")  # the first two bytes of all kana
_SJIS_AS_WESTERN = re.compile("(?:[‚ƒ][^\\s]){3}")  # the first byte of all kana
_WORD = re.compile(r"[^\x00-\x20　]+")
_SIGNS = re.compile("[\x80-\x9fÂ-ïð‚ƒ縺繧繝]")


def garbled(text: str) -> list[Garbled]:
    """The garbled pieces of a text, in order."""
    if text.isascii() or not _SIGNS.search(text):
        return []
    hits = list(_western(text))
    if len(_UTF8_AS_SJIS.findall(text)) > 1:
        hits += _words(text, _UTF8_AS_SJIS, _from_sjis)
    if _SJIS_AS_WESTERN.search(text):
        hits = [*_words(text, _SJIS_AS_WESTERN, _to_sjis)] or hits
    return sorted(hits)


def ungarble(text: str) -> str:
    """The text with every garbled piece read again rightly, as far as that is possible."""
    for _ in range(3):  # garbled twice is not rare
        hits = garbled(text)
        if all(text[hit.start : hit.end] == hit.meant for hit in hits):
            break
        pieces: list[str] = []
        at = 0
        for hit in hits:
            pieces += (text[at : hit.start], hit.meant)
            at = hit.end
        text = "".join(pieces) + text[at:]
    return text


def _western(text: str) -> Iterator[Garbled]:
    for match in _WESTERN.finditer(text):
        start, end = match.span()
        if match["pair"] and match[0][1] in _CLOSERS:
            before, after = text[start - 1 : start], text[end : end + 1]
            if not after.islower() and (before.isupper() or before in _CLOSERS):
                continue
        try:
            meant = bytes(_BYTES[c] for c in match[0]).decode()
        except UnicodeDecodeError:
            if not match["torn"]:
                continue
            meant = match[0]  # bytes were lost on the way: it can be told, but not mended
        yield Garbled(start, end, meant)


def _words(text: str, sign: re.Pattern[str], read: Callable[[str], str | None]) -> Iterator[Garbled]:
    for word in _WORD.finditer(text):
        if sign.search(word[0]):
            meant = read(word[0])
            if meant is not None:
                yield Garbled(*word.span(), meant)


def _from_sjis(word: str) -> str | None:
    signs = len(_UTF8_AS_SJIS.findall(word))
    try:
        meant = word.encode("cp932").decode()
    except UnicodeError:
        return word if signs > 2 and signs * 6 >= len(word) else None
    return meant if _KANA.search(meant) else None


def _to_sjis(word: str) -> str | None:
    try:
        meant = bytes(_BYTES[c] for c in word).decode("cp932")
    except (UnicodeError, KeyError):
        return None
    return meant if len(_KANA.findall(meant)) > 2 else None
