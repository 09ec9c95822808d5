"""Which encoding a text file is in. A guess that is not sure is refused: a wrong one spoils every row in silence.

UTF-8 proves itself: other text hardly ever passes for it. Japanese encodings are taken only where the result holds
kana, as Japanese text does. What is left is taken for Western where accented letters stand alone, as they mostly do in
French or German.
"""

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from pegbox.errors import PegboxError

_CHUNK = 1 << 20
_SAMPLE = 8 << 20  # bytes that are looked at closely where a file is not UTF-8
_BOMS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_KANA = re.compile("[\u3041-\u30ff]")  # full-width; half-width ones are what Western letters look like in cp932
_BEYOND = re.compile("[^\x00-\x7f]")
_ACCENTED = re.compile(rb"[\x80-\xff]")
_RUNS = re.compile(rb"[\x80-\xff]{3,}")
_VALID_UTF8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_KANA_SHARE = 0.1
_RUN_SHARE = 0.2  # of the bytes beyond ASCII that stand three or more together: most in Cyrillic or Chinese
_NAMES = {"cp932": "Shift_JIS (cp932)", "euc_jp": "EUC-JP", "cp1252": "Windows-1252", "latin-1": "Latin-1"}


class TableError(PegboxError):
    """A table can't be read, or not as training rows. `str(error)` says where, why and what to do."""


def encoding_of(file: BinaryIO) -> str:
    """Python's name of the file's encoding, found by reading all of it. The file is left at its start.

    Raises TableError where it can't be told.
    """
    head = file.read(4096)
    file.seek(0)
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    if b"\x00" in head:
        return _without_bom(head)
    wrong = _first_wrong_byte(file)
    file.seek(0)
    if wrong is None:
        return "utf-8"
    found = _older(file, wrong)
    file.seek(0)
    return found


def spoken(encoding: str) -> str:
    """The encoding's name for people."""
    return _NAMES.get(encoding, encoding.upper().removesuffix("-SIG"))


def _without_bom(head: bytes) -> str:
    """UTF-16 without a mark: of mostly plain letters, every other byte is zero."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if odd > 0.4 * len(head) / 2 and odd > 10 * even:
        return "utf-16-le"
    if even > 0.4 * len(head) / 2 and even > 10 * odd:
        return "utf-16-be"
    raise TableError("the file holds zero bytes, as binary files do; save it as CSV, XLSX, Parquet or JSONL")


def _first_wrong_byte(file: BinaryIO) -> int | None:
    """Where the file stops being UTF-8, counted from 0."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    while True:
        chunk = file.read(_CHUNK)
        waiting = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return done - waiting + error.start
        done += len(chunk)
        if not chunk:
            return None


def _older(file: BinaryIO, wrong: int) -> str:
    """The encoding of a file that is not UTF-8 at byte `wrong`."""
    sample = b"".join(_telling(file))
    advice = "save it as UTF-8, or name its encoding with --encoding"
    beyond = len(_ACCENTED.findall(sample))
    if sum(map(len, _VALID_UTF8.findall(sample))) > 0.5 * beyond:
        raise TableError(f"byte {wrong + 1} is not UTF-8, though the rest of the file is; mend it there, or {advice}")
    for name in ("cp932", "euc_jp"):
        if _japanese(sample, name) and _decodes(file, name):
            return name
    if sum(map(len, _RUNS.findall(sample))) <= _RUN_SHARE * beyond:
        for name in ("cp1252", "latin-1"):
            if _decodes(file, name):
                return name
    raise TableError(
        f"byte {wrong + 1} is not UTF-8, and the file is in no encoding that can be told for sure; {advice}"
    )


def _telling(file: BinaryIO) -> Iterator[bytes]:
    """Lines that hold more than ASCII, up to a few megabytes of them."""
    file.seek(0)
    size = 0
    while (line := file.readline(_CHUNK)) and size < _SAMPLE:
        if not line.isascii():
            size += len(line)
            yield line


def _japanese(sample: bytes, name: str) -> bool:
    text = sample.decode(name, "replace")
    beyond = len(_BEYOND.findall(text))
    return len(_KANA.findall(text)) >= _KANA_SHARE * beyond and text.count("\ufffd") <= 0.01 * beyond


def _decodes(file: BinaryIO, name: str) -> bool:
    """Whether all of it can be read so. Latin-1 takes any byte, so there control characters count as wrong."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(name)()
    while True:
        chunk = file.read(_CHUNK)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError:
            return False
        if name == "latin-1" and re.search("[\x80-\x84\x86-\x9f]", text):
            return False
        if not chunk:
            return True
