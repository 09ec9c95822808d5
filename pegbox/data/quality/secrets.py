"""Q13: personal data and secrets in texts; and what every excerpt passes through, so that none is shown."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.shapes import KINDS, Secret, find

if TYPE_CHECKING:  # excerpts are redacted here, so what makes them can't be imported before this module is
    from pegbox.data.quality.base import Context
    from pegbox.data.quality.corpus import Corpus
    from pegbox.data.quality.items import Item

__all__ = ["MARKS", "Secret", "Secrets", "find", "redact"]

MARKS = {kind: f"«{kind.replace('-', ' ').upper()}»" for kind in KINDS}  # «EMAIL», «MY NUMBER» …
_MANY = 10_000  # distinct values counted of a kind, at most
_NAMES = {
    "private-key": "private key", "token": "access token (JWT)", "api-key": "API key", "password": "password in a URL",
    "email": "e-mail address", "card": "payment card number", "iban": "bank account number (IBAN)",
    "my-number": "Japanese individual number", "ssn": "US social security number", "phone": "telephone number",
    "ip": "public IP address",
}  # fmt: skip


_MOST_WORK = 4_000_000  # characters read for one text
_GLUED = re.compile("(" + "|".join(map(re.escape, sorted(set(MARKS.values())))) + r")[^\s«]+")


def redact(text: str) -> str:
    """The text with every secret replaced by its mark. Redacting twice changes no more than redacting once."""
    work = 0
    while hits := find(text):  # a mark can part what stood too close to be told: look again
        work += len(text)
        pieces: list[str] = []
        at = 0
        for hit in hits:
            pieces += (text[at : hit.start], MARKS[hit.kind])
            at = hit.end
        marked = "".join(pieces) + text[at:]
        if marked == text:  # a mark where a password stood is still a password's place
            break
        text = marked
        if work > _MOST_WORK:  # secrets glued together by the thousand: what is glued to a mark goes, too
            text = _GLUED.sub(r"\1", text)
    return text


class Secrets:
    """Counts rows by what they hold. Made-up and published values (example.com, 555-01xx, toll-free numbers, test
    cards) are counted apart, for they are nobody's."""

    codes = ("Q13",)

    def __init__(self, _: "Context") -> None:
        from pegbox.data.quality.tallies import Tally, turns

        self._turns = turns
        self._tallies = {kind: Tally() for kind in (*KINDS, "made-up")}
        self._values: dict[str, set[int]] = {kind: set() for kind in self._tallies}
        self._learnt = dict.fromkeys(self._tallies, 0)  # rows that teach it: it stands in a learnt answer
        self._told: tuple[str, list[Secret]] = ("", [])  # the last first turn: most files repeat their system prompt

    def see(self, item: "Item") -> None:
        kinds: dict[str, bool] = {}
        for turn, text in self._turns(item):
            for hit in self._find(turn, text):
                kind = "made-up" if hit.public else hit.kind
                learnt = turn < len(item.trained) and item.trained[turn]
                kinds[kind] = kinds.get(kind, False) or learnt
                self._note(kind, item, turn, text[hit.start : hit.end], hit.start)
        for kind, learnt in kinds.items():
            self._tallies[kind].add(item)
            self._learnt[kind] += learnt

    def _find(self, turn: int, text: str) -> list[Secret]:
        if turn:
            return find(text)
        if text != self._told[0]:
            self._told = (text, find(text))
        return self._told[1]

    def _note(self, kind: str, item: "Item", turn: int, value: str, at: int) -> None:
        """A value not seen before is worth a sample; one seen a thousand times is somebody's published address."""
        values, known = self._values[kind], hash(value)
        if known not in values and len(values) < _MANY:
            values.add(known)
            self._tallies[kind].show(item, turn, at)

    def found(self, corpus: "Corpus") -> Iterator[Finding]:
        for kind, tally in self._tallies.items():
            if not tally.rows:
                continue
            distinct, learnt = len(self._values[kind]), self._learnt[kind]
            yield finding(
                "Q13",
                kind,
                _sentence(kind, tally.rows, distinct, learnt),
                count=tally.rows,
                rows=corpus.read,
                lines=tally.lines,
                samples=tally.samples(corpus.which),
                severity=Severity.INFO if kind == "made-up" else Severity.WARNING,
                data={"distinct": distinct, "learnt_rows": learnt},
                file=corpus.which,
            )


def _sentence(kind: str, rows: int, distinct: int, learnt: int) -> str:
    hold = f"{rows:,} row holds" if rows == 1 else f"{rows:,} rows hold"
    more = "or more " if distinct >= _MANY else ""
    if kind == "made-up":
        return f"{hold} made-up or published contact data ({distinct:,} {more}different), which is nobody's own"
    name = f"{'an' if _NAMES[kind][0] in 'aeiAI' else 'a'} {_NAMES[kind]}"
    taught = f"the model learns to write one in {learnt:,} of these rows" if learnt else "no learnt answer holds one"
    return f"{hold} {name} ({distinct:,} {more}different); {taught}"
