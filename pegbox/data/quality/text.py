"""Texts made comparable, and short pieces of them made fit to show."""

import re
import unicodedata

import xxhash

from pegbox.data.quality.secrets import redact

_SPACES = re.compile(r"\s+")
EXCERPT_CHARACTERS = 160


def normalise(text: str) -> str:
    """NFKC (full-width letters become plain ones), case and white space folded: what a reader takes for the same."""
    if text.isascii():
        return " ".join(text.casefold().split())
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def digest(text: str) -> int:
    """A 64-bit hash of a text as it is (normalise it first where that is meant)."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def excerpt(text: str, around: int = 0) -> str:
    """At most EXCERPT_CHARACTERS of the text about a position, on one line, with personal data and secrets redacted.
    Redacting comes first, so that no cut leaves half a secret."""
    marked = redact(text)
    if len(marked) <= EXCERPT_CHARACTERS:
        return _SPACES.sub(" ", marked).strip()
    start = max(0, min(around - EXCERPT_CHARACTERS // 2, len(marked) - EXCERPT_CHARACTERS))
    piece = marked[start : start + EXCERPT_CHARACTERS]
    return ("…" if start else "") + _SPACES.sub(" ", piece).strip() + ("…" if start + len(piece) < len(marked) else "")
