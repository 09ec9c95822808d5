"""Q22: answers that hold numbers, names or addresses which the prompt doesn't give.

A model that is tuned on such answers learns to make things up (OpenAI's guide: the examples must contain all that the
answers need). What many answers of the file say, such as the company's name, can be learnt and is left out. Where a
good part of the answers go beyond their prompts, the task is to compute or to know, and single rows aren't named.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pegbox.data.quality.base import Context
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import digest, excerpt
from pegbox.data.quality.worst import many, percent, place

_FEWEST = 30  # rows with a prompt and an answer
_KNOWN = 3  # answers that say the same unasked from which it is the file's common knowledge
_COMPUTES = 0.3  # share of answers with numbers of their own from which the task is to compute
_KNOWS = 0.25  # share of answers with rare names of their own from which the task is to know
_CLAIMS = 64  # of a row; the rest isn't looked at
_USUAL = frozenset(map(str, [*range(13), 100]))  # counts, items of lists, "100 %"

_NUMBER = re.compile(r"(?<![A-Za-z_\d.,])\d[\d,]*(?:\.\d+)?")
_DATE = re.compile(r"\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}")
_NAME = re.compile(
    r"(?<=[a-zß-ÿα-ωа-я,;] )[A-ZÀ-ÞΑ-ΩА-Я][^\W\d_]{1,40}(?:['’-]\w{1,40}){0,3}"
)  # not where a sentence begins
_KATAKANA = re.compile(r"[ァ-ヴー]{4,}")
_ADDRESS = re.compile(
    r"https?://[^\s<>\"'）」)\]]+|(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z\d-]{1,64}(?:\.[A-Za-z\d-]{1,64})+", re.ASCII
)
_CALENDAR = frozenset(
    "january february march april june july august september october november december monday tuesday wednesday "  # noqa: SIM905
    "thursday friday saturday sunday".split()
)
_NUMBERS, _NAMES, _ADDRESSES = range(3)


class Claim(NamedTuple):
    """A piece of an answer that its prompt doesn't give. A tuple for speed: there are many."""

    kind: int
    text: str  # as it stands
    value: str  # as it is compared


class Grounding:
    codes = ("Q22",)

    def __init__(self, context: Context) -> None:
        del context
        self._seen = 0
        self._answered = 0
        self._rows = Column("I")  # position in the corpus of the claim's row
        self._claims = Column("Q")  # a hash, its kind in the two lowest bits

    def see(self, item: Item) -> None:
        at = item.answer_index
        if at > 0 and any(item.texts[:at]):
            self._answered += 1
            for value, kind in {(claim.value, claim.kind) for claim in claims(item)}:
                self._rows.append(self._seen)
                self._claims.append(digest(value) & ~3 | kind)
        self._seen += 1
        if self._seen % 512 == 0:
            self._rows.roll()
            self._claims.roll()

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        if self._answered < _FEWEST or not len(self._claims):
            return
        rows, hashes = self._rows.load(), self._claims.load()
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        rare = counts[inverse] < _KNOWN
        kinds = hashes & 3
        numbers = self._share(rows[kinds == _NUMBERS])
        if numbers >= _COMPUTES:
            yield finding(
                "Q22", "computed",
                f"{percent(numbers)} of the answers hold numbers that their prompts don't: the task is to compute or "
                "to know them, so single rows aren't named.",
                count=round(numbers * self._answered), rows=self._answered, threshold=_COMPUTES,
                fix="Make sure that each number follows from the prompt: a wrong one is learnt too.",
            )  # fmt: skip
        elif (kinds == _NUMBERS).any():
            yield from self._rows_with(corpus, rows[rare & (kinds == _NUMBERS)], _NUMBERS)
        names = self._share(rows[rare & (kinds == _NAMES)])
        if names >= _KNOWS:
            yield finding(
                "Q22", "from-knowledge",
                f"{percent(names)} of the answers hold names that neither their prompts nor other answers have: the "
                "task draws on knowledge, so single rows aren't named.",
                count=round(names * self._answered), rows=self._answered, threshold=_KNOWS,
                fix="If you search for facts before you ask, put what was found into the training prompts too.",
            )  # fmt: skip
        else:
            yield from self._rows_with(corpus, rows[rare & (kinds == _NAMES)], _NAMES)
        yield from self._rows_with(corpus, rows[rare & (kinds == _ADDRESSES)], _ADDRESSES)

    def _share(self, rows: NDArray[np.uint32]) -> float:
        return len(np.unique(rows)) / self._answered

    def _rows_with(self, corpus: Corpus, rows: NDArray[np.uint32], kind: int) -> Iterator[Finding]:
        """The rows with claims of a kind, those with the most as samples."""
        at, claimed = np.unique(rows, return_counts=True)
        if not len(at):
            return
        samples = []
        for i in np.argsort(-claimed, kind="stable")[:MAX_SAMPLES]:
            item = corpus.item(int(at[i]))
            said = list(dict.fromkeys(claim.text for claim in claims(item) if claim.kind == kind))
            turn = item.answer_index
            note = "not in the prompt: " + excerpt(", ".join(said[:10]))
            samples.append(Sample((place(item, turn, max(item.texts[turn].find(said[0]), 0)),), note))
        what = ("numbers", "names", "web or mail addresses")[kind]
        yield finding(
            "Q22", ("unknown-numbers", "unknown-names", "unknown-addresses")[kind],
            f"{many(len(at), 'answer')} ({percent(len(at) / self._answered)}) {'holds' if len(at) == 1 else 'hold'} "
            f"{what} that neither the prompt gives nor {_KNOWN} answers share; up to {int(claimed.max()):,} each.",
            count=len(at), rows=self._answered, lines=[int(n) for n in corpus.lines.load()[at[:MAX_LINES]]],
            samples=samples, threshold=0.0, data={"most_in_a_row": int(claimed.max())},
        )  # fmt: skip


def claims(item: Item) -> list[Claim]:
    """What the last learnt answer says that nothing before it does."""
    at = item.answer_index
    said = _plain(item.texts[at])
    found = list(_stated(said))
    if not found:
        return []
    given = _plain("\n".join(item.texts[:at]))
    if item.tools:
        given += repr(item.tools)
    folded = given.casefold()
    if _DATE.search(given):
        given = _DATE.sub(_parts, given)
    numbers = set(map(_value, _NUMBER.findall(given)))
    unknown = []
    for claim in found:
        if claim.kind == _NUMBERS:
            known = claim.value in numbers or ("-" in claim.value and numbers.issuperset(claim.value.split("-")))
        else:
            known = claim.value in folded or claim.value.removesuffix("s") in folded
        if not known:
            unknown.append(claim)
            if len(unknown) >= _CLAIMS:
                break
    return unknown


def _stated(said: str) -> Iterator[Claim]:
    """The numbers, names and addresses of an answer."""
    if "@" in said or "://" in said:
        for found in _ADDRESS.finditer(said):
            text = found.group().rstrip(".,;:!?")
            yield Claim(_ADDRESSES, text, text.casefold())
        said = _ADDRESS.sub(" ", said)
    yield from _figures(said)
    for found in _NAME.finditer(said):
        name = found.group().rstrip("'’-").removesuffix("'s").removesuffix("’s")
        if len(name) > 2 and name.casefold() not in _CALENDAR:
            yield Claim(_NAMES, name, name.casefold())
    if not said.isascii():
        for found in _KATAKANA.finditer(said):
            yield Claim(_NAMES, found.group(), found.group().casefold())


def _figures(said: str) -> Iterator[Claim]:
    """Dates and numbers."""
    if _DATE.search(said):
        for date in dict.fromkeys(_DATE.findall(said)):
            yield Claim(_NUMBERS, date, "-".join(_value(n) for n in re.findall(r"\d+", date)))
        said = _DATE.sub(" ", said)
    for number in dict.fromkeys(_NUMBER.findall(said)):
        if number not in _USUAL and (value := _value(number)) not in _USUAL:
            yield Claim(_NUMBERS, number.rstrip(","), value)


def _plain(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _parts(date: re.Match[str]) -> str:
    """A date's numbers, apart."""
    return " " + " ".join(re.findall(r"\d+", date.group())) + " "


def _value(number: str) -> str:
    """`1,000`, `01000` and `1000.00` are one."""
    if number.isdecimal() and number[0] != "0":
        return number
    plain = number.replace(",", "")[:40]
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return plain.lstrip("0") or "0"
