"""Q15, kind answer-cut-off: answers that stop before their end.

What an end looks like is learnt from the file itself: nearly all answers end with a full stop, or with the same
closing words, or close what they open. Where the file has no such habit, as with labels, nothing is said.
"""

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import digest
from pegbox.data.quality.worst import ending, many, percent

_FEWEST = 50  # answers; of fewer no habit can be told
_SHORT = 20  # characters; shorter answers make no habit. Wide letters (kana, kanji, hangul) count as two
_SHORTEST = 8  # characters; a shorter answer is a "yes" or a name, and whole
_DISTINCT = 0.3  # share of answers that differ, under which they are labels
_FULL_STOP_HABIT = 0.9
_STRICT_HABIT = 0.97  # of ends that could as well be meant: a figure; a bracket left open
_CLOSING_HABIT = 0.95  # the same words in the last line
_LOOSE_HABIT = 0.85  # the same, for answers that don't end with a full stop either

_STOPS = frozenset(".!?…。．！？｡।॥؟۔።།။~〜～♪")
_CLOSERS = "\"'”’»)]}>*_`）」』】〉》］｝"
_LIST_LINE = re.compile(r"\s*(?:[-*•+|>#・●■◆]|\d{1,3}[.)、．]|[(（]?[A-Za-z\d][)）]\s)")
_NUMBER = re.compile(r"[-+]?[$€£¥]?\d(?:[\d.,]*\d)?%?")
_STOP, _CLOSED, _FIGURE, _OPEN = range(4)  # how an answer's last character ends it
_LISTED = 4  # added where the last line is one of a list
_PAIRS = ("()", "[]", "{}", "「」", "（）", "『』")
_REASONS = ("it stops in mid-sentence", "the usual closing is missing", "something opened is not closed")


class Endings:
    codes = ("Q15",)

    def __init__(self, context: Context) -> None:
        del context
        self._rows = 0
        self._at = Column("I")  # position in the corpus
        self._width = Column("I")  # characters, wide ones twice
        self._last = Column("B")  # how the last character ends it
        self._opening = Column("Q")  # hash of the last line's first word; 0: the answer has one line
        self._tail = Column("Q")  # hash of its last six characters, figures alike
        self._paired = Column("B")  # a bit for each pair that occurs, the highest for code fences
        self._unclosed = Column("B")  # a bit for each that is left open

    def see(self, item: Item) -> None:
        turn = item.answer_index
        text = item.texts[turn].rstrip() if turn >= 0 else ""
        if text and not text.endswith("</tool_call>"):
            self._add(text)
        self._rows += 1
        if self._rows % 8192 == 0:
            for column in (self._at, self._width, self._last, self._opening, self._tail, self._paired, self._unclosed):
                column.roll()

    def _add(self, text: str) -> None:
        start = text.rfind("\n") + 1
        line = text[start : start + 60].lstrip()
        self._at.append(self._rows)
        short = len(text) < _SHORT and not text.isascii()
        self._width.append(sum(_width(c) for c in text) if short else len(text))
        self._last.append(_last(text) + (_LISTED if _LIST_LINE.match(line) else 0))
        opening = _NUMBER.sub("0", line[:16]).split(None, 1) if start else []
        self._opening.append(digest(opening[0]) if opening else 0)
        self._tail.append(digest(_NUMBER.sub("0", text[max(start, len(text) - 60) :])[-6:]))
        paired, unclosed = _pairs(text)
        self._paired.append(paired)
        self._unclosed.append(unclosed)

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        width = self._width.load()
        if len(width) < _FEWEST or np.median(width) < _SHORT:
            return
        at = self._at.load()
        if len(np.unique(corpus.answers.load()[at])) < _DISTINCT * len(at):
            return
        long, enough = width >= _SHORT, width >= _SHORTEST
        last = self._last.load()
        closing, habit = self._without_closing(last)
        left_open = self._open(last) & enough
        if habit:  # an answer that has the usual closing was not cut off
            left_open &= closing
        reasons = np.stack([_mid_sentence(last, long, enough), closing & enough, left_open])
        cut = np.flatnonzero(reasons.any(axis=0))
        if len(cut):
            yield self._finding(corpus, at[cut], reasons[:, cut], habit)

    def _without_closing(self, last: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], float]:
        """Which answers lack the words that nearly all end with; and the share of those that have them, 0 if no words
        are usual."""
        without, habit = np.zeros(len(last), dtype=bool), 0.0
        unended = last % _LISTED >= _FIGURE
        for column in (self._opening, self._tail):
            hashes = column.load()
            values, counts = np.unique(hashes, return_counts=True)
            usual = int(np.argmax(counts))
            share = float(counts[usual] / len(hashes))
            if share >= _LOOSE_HABIT and values[usual] != 0:
                lacking = hashes != values[usual]
                without |= lacking if share >= _CLOSING_HABIT else lacking & unended
                habit = share if not habit else min(habit, share)
        return without, habit

    def _open(self, last: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which answers leave open what answers here close, and don't end as sentences do."""
        paired, unclosed = self._paired.load(), self._unclosed.load()
        ended = last % _LISTED == _STOP
        found = np.zeros(len(paired), dtype=bool)
        for i in range(len(_PAIRS) + 1):
            bit = 1 << i
            having, left = (paired & bit) != 0, (unclosed & bit) != 0
            if having.sum() >= _FEWEST and left.sum() <= (1 - _STRICT_HABIT) * having.sum():
                found |= left if i == len(_PAIRS) else left & ~ended
        return found

    def _finding(self, corpus: Corpus, at: NDArray[np.uint32], reasons: NDArray[np.bool_], habit: float) -> Finding:
        text = f"{many(len(at), 'answer')} ({percent(len(at) / self._rows)}) look cut off: "
        text = text.replace("look", "looks") if len(at) == 1 else text
        told = [f"{int(n):,} where {why}" for why, n in zip(_REASONS, reasons.sum(axis=1), strict=True) if n]
        most = np.argsort(-reasons.sum(axis=0), kind="stable")[:MAX_SAMPLES]
        samples = []
        for i in most:
            item = corpus.item(int(at[i]))
            why = "; ".join(reason for reason, holds in zip(_REASONS, reasons[:, i], strict=True) if holds)
            samples.append(Sample((ending(item, item.answer_index),), why))
        return finding(
            "Q15", "answer-cut-off", text + ", ".join(told) + ".", count=len(at), rows=self._rows,
            lines=corpus.lines.load()[at[:MAX_LINES]].tolist(), samples=samples, severity=Severity.WARNING,
            threshold=0.0, fix="Complete these answers or drop the rows: a model learns to stop where they stop.",
            data={"usual_closing_share": round(habit, 4)} if habit else {},
        )  # fmt: skip


def _mid_sentence(
    last: NDArray[np.uint8], long: NDArray[np.bool_], enough: NDArray[np.bool_]
) -> NDArray[np.bool_]:  # fmt: skip
    """Which answers, if long enough, lack the full stop (or closing mark) that nearly all long ones end with. Lines of
    lists have their own habit: there often none has a full stop."""
    found = np.zeros(len(last), dtype=bool)
    for listed in (False, True):
        like = (last >= _LISTED) == listed
        how = last % _LISTED
        n = int((like & long).sum())
        ended = int((like & long & (how <= _CLOSED)).sum())
        if n >= _FEWEST and ended >= _FULL_STOP_HABIT * n:
            found |= like & enough & (how == _OPEN)
            if ended >= _STRICT_HABIT * n:
                found |= like & enough & (how == _FIGURE)
    return found


def _last(text: str) -> int:
    """How the last character ends a text that has no white space at its end."""
    bare = text[-12:].rstrip(_CLOSERS)
    last = bare[-1:] or text[-1]
    if last in _STOPS or unicodedata.category(last) in ("So", "Sk", "Mn"):  # emoji and their modifiers end a text too
        return _STOP
    if text[-1] in _CLOSERS:
        return _CLOSED
    return _FIGURE if last.isdigit() or last == "%" else _OPEN


def _pairs(text: str) -> tuple[int, int]:
    """Bits of the pairs that occur in a text, and of those that are left open."""
    paired = unclosed = 0
    for i, pair in enumerate(_PAIRS):
        if n := text.count(pair[0]):
            paired |= 1 << i
            if n > text.count(pair[1]):
                unclosed |= 1 << i
    if n := text.count("```"):
        paired |= 1 << len(_PAIRS)
        unclosed |= (n & 1) << len(_PAIRS)
    return paired, unclosed


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
