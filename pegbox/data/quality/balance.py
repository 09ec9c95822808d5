"""Q16: answers out of balance, where the answers are few and short: labels.

Speaks of labels only: short answers, of which nearly all occur again and again.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import excerpt, normalise
from pegbox.data.quality.worst import many, percent, place

RARE = 10  # rows; a label with fewer is rare
_LABEL_CHARACTERS = 80
_MAX_LABELS = 1_000
_MAX_FORMS = 4_000  # spellings kept; a file with more is no file of labels
_LABEL_SHARE = 0.05  # distinct answers a row; up to _SMALL_SHARE where nearly every answer has a fellow
_SMALL_SHARE = 0.2
_SHARED = 0.95
_LONG_SHARE = 0.02  # answers too long for a label that a file of labels may have
_NUMBERS = 20  # a file with more labels that are figures holds results, not labels
_DOMINANT = 0.5  # of what is possible beyond an even share
_TYPO_CHARACTERS = 5  # in shorter labels a letter makes another word
_TYPO_SHARE = 0.1  # of the rows of the label that is meant
_TYPO_ROWS = 3

_JOINS = re.compile(
    r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])|[\"'“”‘’「」]|[.,;:!?。、]+$"
)  # not the signs of `A-`, `-1`, `C++`
_NUMBER = re.compile(r"[-+]?\d[\d.,]*%?")


@dataclass(frozen=True, slots=True)
class _Variant:
    written: str
    meant: str
    rows: int
    why: str


class Balance:
    codes = ("Q16",)

    def __init__(self, context: Context) -> None:
        del context
        self._ids: dict[str, int] = {}  # of answers as they are written, from 1
        self._labels = Column("H")  # each row's; 0: no answer, or a long one
        self._answers = 0
        self._long = 0
        self._gave_up = False

    def see(self, item: Item) -> None:
        if self._gave_up:
            return
        at = item.answer_index
        answer = item.texts[at] if at >= 0 else ""
        label = 0
        if at >= 0:
            self._answers += 1
            if len(answer) > _LABEL_CHARACTERS:
                self._long += 1
                self._gave_up = self._long > 100 and self._long > 2 * _LONG_SHARE * self._answers
            else:
                label = self._ids.setdefault(answer, len(self._ids) + 1)
                self._gave_up = len(self._ids) > _MAX_FORMS
        self._labels.append(label)
        self._labels.roll()
        if self._gave_up:
            self._ids.clear()

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        if self._gave_up or not self._ids or self._long > _LONG_SHARE * self._answers:
            return
        forms = {form: int(n) for form, n in zip(["", *self._ids], self._counted(), strict=True) if form in self._ids}
        labels: Counter[str] = Counter()
        for form, n in forms.items():
            labels[normalise(form)] += n
        if not _are_labels(labels, self._answers):
            return
        variants = _variants(forms)
        if variants:
            yield self._variants_finding(corpus, variants)
        for variant in variants:  # they count for the label that is meant
            _move(labels, normalise(variant.written), normalise(variant.meant), variant.rows)
        yield from self._shares(corpus, labels)

    def _counted(self) -> list[int]:
        return [int(n) for n in np.bincount(self._labels.load(), minlength=len(self._ids) + 1)]

    def _shares(self, corpus: Corpus, labels: Counter[str]) -> Iterator[Finding]:
        k, n = len(labels), labels.total()
        ordered = labels.most_common()
        top, most = ordered[0]
        data = {
            "labels": k,
            "histogram": {excerpt(label): count for label, count in ordered[:50]},
            "evenness": round(_evenness(labels), 4),
        }
        if k == 1:
            if n >= RARE:
                text = f"All {many(n, 'answer')} are “{excerpt(top)}”: there is nothing to tell apart."
                yield finding("Q16", "one-answer", text, count=n, rows=n, data=data,
                              fix="Add rows with the other answers.")  # fmt: skip
            return
        if (most / n - 1 / k) / (1 - 1 / k) > _DOMINANT:
            text = (
                f"{percent(most / n)} of the answers are “{excerpt(top)}”; {many(k - 1, 'other label')} share the rest."
            )
            yield finding(
                "Q16", "dominant-answer", text, count=most, rows=n, threshold=_DOMINANT + (1 - _DOMINANT) / k,
                data=data, fix="Collect more rows with the other answers, or use fewer with this one.",
            )  # fmt: skip
        rare = [(label, count) for label, count in reversed(ordered) if count < RARE]
        if rare:
            yield self._rare(corpus, labels, rare, data)

    def _rare(
        self, corpus: Corpus, labels: Counter[str], rare: list[tuple[str, int]], data: dict[str, object]
    ) -> Finding:
        names = {label for label, _ in rare}
        at = self._rows_of([form for form in self._ids if normalise(form) in names])
        shown = ", ".join(f"“{excerpt(label)}” ({count:,})" for label, count in rare[:5])
        have = f"{len(rare):,} of {many(len(labels), 'label')} {'has' if len(rare) == 1 else 'have'}"
        text = f"{have} fewer than {RARE} rows: {shown}{', …' if len(rare) > 5 else ''}."
        data = data | {"rare": {excerpt(label): count for label, count in rare[:50]}}
        return finding(
            "Q16", "rare-answers", text, count=len(at), rows=labels.total(), lines=_lines(corpus, at),
            samples=_samples(corpus, at, ""), data=data,
        )  # fmt: skip

    def _variants_finding(self, corpus: Corpus, variants: list[_Variant]) -> Finding:
        at = self._rows_of([variant.written for variant in variants])
        shown = "; ".join(
            f"“{excerpt(v.written)}” in {many(v.rows, 'row')} for “{excerpt(v.meant)}”" for v in variants[:3]
        )
        more = f"; and {many(len(variants) - 3, 'other')}" if len(variants) > 3 else ""
        samples = [
            Sample((place(corpus.item(row), corpus.item(row).answer_index),), f"meant: “{excerpt(v.meant)}” ({v.why})")
            for v in variants[:MAX_SAMPLES]
            for row in self._rows_of([v.written])[:1]
        ]
        listed = [{"written": excerpt(v.written), "meant": excerpt(v.meant), "rows": v.rows, "why": v.why}
                  for v in variants[:50]]  # fmt: skip
        return finding(
            "Q16", "label-variants", f"Labels are written in more than one way: {shown}{more}.",
            count=len(at), rows=self._answers, lines=_lines(corpus, at), samples=samples, severity=Severity.WARNING,
            threshold=0.0, fix="Write each label in one way: to the model they are different answers.",
            data={"variants": listed},
        )  # fmt: skip

    def _rows_of(self, forms: list[str]) -> list[int]:
        """Positions of the rows with these answers, written so."""
        ids = np.array([self._ids[form] for form in forms], dtype=np.uint16)
        return np.flatnonzero(np.isin(self._labels.load(), ids)).tolist()


def _are_labels(labels: Counter[str], answers: int) -> bool:
    if len(labels) > _MAX_LABELS or answers < 2 * RARE:
        return False
    if sum(1 for label in labels if _NUMBER.fullmatch(label)) > _NUMBERS:
        return False
    alone = sum(1 for count in labels.values() if count == 1)
    small = len(labels) <= _SMALL_SHARE * answers and alone <= (1 - _SHARED) * answers
    return len(labels) < _LABEL_SHARE * answers or small


def _variants(forms: dict[str, int]) -> list[_Variant]:
    """Spellings that look like another, more frequent label's. Most rows first."""
    found: list[_Variant] = []
    groups: dict[str, list[str]] = defaultdict(list)
    for form in forms:
        groups[_letters(form)].append(form)
    meant = {key: max(same, key=lambda form: forms[form]) for key, same in groups.items()}
    for key, same in groups.items():
        found += [_Variant(f, meant[key], forms[f], _difference(f, meant[key])) for f in same if f != meant[key]]
    rows = {key: sum(forms[form] for form in same) for key, same in groups.items()}
    for rare, common in _typos(rows):
        found += [_Variant(form, meant[common], forms[form], "a letter") for form in groups[rare]]
    return sorted({v.written: v for v in found}.values(), key=lambda v: -v.rows)


def _typos(rows: dict[str, int]) -> Iterator[tuple[str, str]]:
    """(rare, common) labels that are one slip of the pen apart. Two words one slip apart have a common rest when one
    letter is left out of each, so only such pairs are compared: linear in the labels, not quadratic."""
    rests: dict[str, list[str]] = defaultdict(list)
    for key in rows:
        if len(key) >= _TYPO_CHARACTERS:
            for rest in {key, *(key[:i] + key[i + 1 :] for i in range(len(key)))}:
                rests[rest].append(key)
    best: dict[str, str] = {}
    for alike in rests.values():
        common = max(alike, key=rows.__getitem__)
        for rare in alike:
            few = rows[rare] <= max(_TYPO_ROWS, _TYPO_SHARE * rows[common]) and rows[common] >= 3 * rows[rare]
            if few and rare != common and _one_slip(rare, common) and rows[common] > rows.get(best.get(rare, ""), 0):
                best[rare] = common
    yield from best.items()


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter was added, left out, changed or swapped with its neighbour. Figures and the word's first
    letter are not slips: `level 1`, `level 2`; `legal`, `illegal` is two."""
    if len(a) > len(b):
        a, b = b, a
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    changed = b[start : start + 1] + a[start : start + 1]
    if start == 0 or any(c.isdigit() for c in changed):
        return False
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    swapped = a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    return a[start + 1 :] == b[start + 1 :] or swapped


def _letters(form: str) -> str:
    """The label without case, width, what joins its words, quotes and a full stop."""
    folded = unicodedata.normalize("NFKC", form).casefold().strip()
    return _JOINS.sub("", folded) or folded


def _difference(a: str, b: str) -> str:
    if a.strip() == b.strip():
        return "white space around it"
    if normalise(a) == normalise(b):
        return "case, width or white space"
    return "signs between or around its letters"


def _move(labels: Counter[str], written: str, meant: str, rows: int) -> None:
    if written != meant:
        labels[written] -= rows
        labels[meant] += rows
        if labels[written] <= 0:
            del labels[written]


def _evenness(labels: Counter[str]) -> float:
    """Entropy over its maximum: 1 where all labels are equally frequent."""
    if len(labels) < 2:
        return 0.0
    share = np.array(list(labels.values())) / labels.total()
    return float(-(share * np.log(share)).sum() / np.log(len(labels)))


def _lines(corpus: Corpus, at: list[int]) -> list[int]:
    return corpus.lines.load()[at].tolist() if at else []


def _samples(corpus: Corpus, at: list[int], note: str) -> list[Sample]:
    items = [corpus.item(row) for row in at[:MAX_SAMPLES]]
    return [Sample((place(item, item.answer_index),), note) for item in items]
