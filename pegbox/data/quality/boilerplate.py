"""Q18: answers that open or end with the same words.

The first and the last five words; in scripts without spaces, characters. Speaks of prose alone: labels, short answers
and JSON are alike for a reason.
"""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import CODES
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import digest, excerpt, normalise
from pegbox.data.quality.worst import ending, percent, place

_FEWEST = 30  # answers
_WORDS = 5
_HEAD, _TAIL = 8, 10  # characters, where words have no spaces between them
_LONG_WORDS, _LONG_CHARACTERS = 12, 25  # of an answer long enough to have boilerplate
_PROSE = 0.5  # share of answers that are long enough, and share of them that differ
_THRESHOLD = CODES["Q18"].threshold or 0.2

_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_STOP = re.compile(r"[.!?,;:。！？、，…—–]")
_ANSWERS_ITSELF = frozenset(
    ("yes,", "no,", "yes.", "no.", "はい、", "いいえ、", "はい。", "いいえ。", "true.", "false.")
)


class Boilerplate:
    codes = ("Q18",)

    def __init__(self, context: Context) -> None:
        del context
        self._openings = Column("Q")  # a hash of each answer's; 0: no prose
        self._endings = Column("Q")
        self._answers = 0
        self._long = 0  # of these, prose by its length

    def see(self, item: Item) -> None:
        at = item.answer_index
        text = item.texts[at] if at >= 0 else ""
        self._answers += at >= 0
        long = _is_long(text)
        self._long += long
        head, tail = (opening(text), closing(text)) if long else ("", "")
        self._openings.append(digest(head) if head else 0)
        self._endings.append(digest(tail) if tail else 0)
        self._openings.roll()
        self._endings.roll()

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        n = self._long
        if n < max(_FEWEST, _PROSE * self._answers):
            return
        for kind, column in (("same-opening", self._openings), ("same-ending", self._endings)):
            hashes = column.load()
            prose = hashes != 0
            values, counts = np.unique(hashes[prose], return_counts=True)
            common = [i for i in np.argsort(-counts, kind="stable")[:MAX_SAMPLES] if counts[i] > _THRESHOLD * n]
            if common and len(np.unique(corpus.answers.load()[prose])) >= _PROSE * prose.sum():
                shares = [(values[i], float(counts[i]) / n) for i in common]
                yield self._finding(corpus, kind, hashes, shares)

    def _finding(
        self, corpus: Corpus, kind: str, hashes: NDArray[np.uint64], shares: list[tuple[np.uint64, float]]
    ) -> Finding:  # fmt: skip
        opens = kind == "same-opening"
        at = np.flatnonzero(np.isin(hashes, [value for value, _ in shares]))
        told, samples = [], []
        for value, share in shares:
            item = corpus.item(int(np.flatnonzero(hashes == value)[0]))
            turn = item.answer_index
            phrase = excerpt(opening(item.texts[turn]) if opens else closing(item.texts[turn]))
            told.append((phrase, share))
            samples.append(Sample((place(item, turn) if opens else ending(item, turn),), percent(share)))
        shown = ", ".join(f"“{phrase}” ({percent(share)})" for phrase, share in told)
        return finding(
            "Q18", kind, f"Many answers {'open' if opens else 'end'} with the same words: {shown}.", count=len(at),
            rows=self._answers, lines=[int(line) for line in corpus.lines.load()[at[:MAX_LINES]]], samples=samples,
            data={"phrases": {phrase: round(share, 4) for phrase, share in told}},
        )  # fmt: skip


def opening(text: str) -> str:
    """How a text opens, normalised: up to its first stop, or the first five words (eight characters). "" where that is
    no prose."""
    head = normalise(text[:160])
    piece = head[:_HEAD] if _NO_SPACES.search(head[:_HEAD]) else " ".join(head.split(" ")[:_WORDS])
    stop = _STOP.search(piece, 2)
    if stop:
        piece = piece[: stop.end()]
    return piece if piece[:1].isalpha() and piece not in _ANSWERS_ITSELF else ""


def closing(text: str) -> str:
    """The last five words (ten characters), normalised; "" where they are no prose."""
    tail = normalise(text[-160:])
    piece = tail[-_TAIL:] if _NO_SPACES.search(tail[-_TAIL:]) else " ".join(tail.split(" ")[-_WORDS:])
    letters = sum(map(str.isalpha, piece))
    return piece if letters > len(piece) // 2 and not piece.endswith(("}", "]", ">", "`")) else ""


def _is_long(text: str) -> bool:
    if len(text) < _LONG_CHARACTERS:
        return False
    if len(text) > 400:
        return True
    return text.count(" ") >= _LONG_WORDS - 1 or bool(_NO_SPACES.search(text))
