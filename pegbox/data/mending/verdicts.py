"""What `clean` does with one row, code by code."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pegbox.data import strict_json
from pegbox.data.count import Count
from pegbox.data.formats import FormatError, parse_row
from pegbox.data.mending.rewrite import Mend, rewrite, unmarked
from pegbox.data.quality import characters, secrets
from pegbox.data.quality.digests import digests
from pegbox.data.quality.items import Item, item, plain_item
from pegbox.data.quality.text import normalise
from pegbox.data.rows import Row
from pegbox.data.survey import Target
from pegbox.errors import RenderError

KEEP, MENDED = 0, 1  # verdicts; from 2 on, a row is left out for REASONS[verdict - 2]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row is left out."""

    code: str
    kind: str
    why: str


REASONS = (
    Reason("Q01", "unreadable", "the row can't be read"),
    Reason("Q02", "last-not-assistant", "the last turn is not the assistant's"),
    Reason("Q02", "empty-answer", "an answer that is to be learnt is empty"),
    Reason("Q04", "nothing-to-learn", "nothing in the row is learnt"),
    Reason("Q04", "nothing-left", "cutting at the limit leaves nothing to learn"),
    Reason("Q05", "over-limit", "the row is longer than the model's limit"),
    Reason("Q06", "exact-duplicate", "the row says what an earlier one says"),
    Reason("Q07", "near-duplicate", "the row is nearly the same as an earlier one"),
    Reason("Q13", "nothing-left", "nothing can be learnt from what is left without its secrets"),
    Reason("Q19", "nothing-left", "nothing can be learnt from what is left without its template marks"),
    Reason("Q20", "nothing-left", "nothing can be learnt from what is left without its broken characters"),
    Reason("Q23", "identical-pair", "the preferred answer and the other one are the same"),
)
NUMBERS = {(reason.code, reason.kind): i + 2 for i, reason in enumerate(REASONS)}
MENDS = ("Q20", "Q19", "Q13")  # in this order
KINDS = {"Q19": "role-markers", "Q20": "characters", "Q13": "secrets"}
APPLICABLE = {
    "Q01": "leave out rows that can't be read",
    "Q02": "leave out rows that end without the assistant's answer, or with an empty one",
    "Q04": "leave out rows with nothing to learn",
    "Q05": "leave out rows longer than the model's limit (needs --model)",
    "Q06": "leave out rows that an earlier one equals",
    "Q07": "leave out rows that are nearly the same as an earlier one",
    "Q13": "put marks in the place of personal data and secrets",
    "Q19": "take template marks out of texts (--model names the model whose special tokens count)",
    "Q20": "mend broken and invisible characters",
    "Q23": "leave out preference pairs of two equal answers",
}
# Codes that need a person, and why.
BY_HAND = {
    "Q03": "what the chat template refuses has to be written otherwise, and only you know how",
    "Q08": "rows that say the same in other words may each be wanted",
    "Q09": "which of the different answers is right, only you know",
    "Q10": "whether the prompts mean the same, and which answer is right, only you know",
    "Q11": "which requests should be refused is your decision",
    "Q12": "leaked rows go away by splitting anew: pegbox split",
    "Q14": "which language is right is your decision",
    "Q15": "a long or short row may be the best of all; look at it",
    "Q16": "rare answers need more rows, not fewer",
    "Q17": "which system prompt is right, only your application knows",
    "Q18": "whether a phrase is a habit or a part of the answer, only you know",
    "Q21": "nothing has to be done, for rows are shuffled in training",
    "Q22": "what the prompt lacks, only you can add",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    number: int  # KEEP, MENDED, or a reason's number
    digest: int = 0  # of a row that stays, as `check` compares rows; 0 for others
    mended: tuple[str, ...] = ()  # the codes that changed it


@dataclass(frozen=True)
class Judge:
    """Applies the codes to one row at a time."""

    codes: frozenset[str]
    method: str
    target: Target | None = None

    @cached_property
    def mends(self) -> dict[str, Mend]:
        template = self.target.template if self.target else None
        mends = {"Q20": characters.mend, "Q19": unmarked(template), "Q13": secrets.redact}
        return {code: mends[code] for code in MENDS if code in self.codes}

    def verdict(self, row: Row, count: Count | RenderError | None = None) -> Verdict:
        if row.problem is not None:
            return Verdict(NUMBERS["Q01", "unreadable"] if "Q01" in self.codes else KEEP)
        seen = plain_item(row)
        mended: tuple[str, ...] = ()
        if seen is None:
            assert row.record is not None, "a row without a problem has a record"
            seen = item(row.example, row.line, row.record)
        if self.mends and any(mend(text) != text for mend in self.mends.values() for text in _seen_texts(seen)):
            value, mended = self.mend(row.text)
            try:
                seen = item(row.example, row.line, parse_row(value, self.method))
            except FormatError:
                return Verdict(NUMBERS[mended[-1], "nothing-left"])
        for reason in self._reasons(seen, count):
            if reason[0] in self.codes:
                return Verdict(NUMBERS[reason])
        return Verdict(MENDED if mended else KEEP, row_digest(seen) if "Q06" in self.codes else 0, mended)

    def mend(self, text: str) -> tuple[object, tuple[str, ...]]:
        """The row's JSON value with its texts mended, and the codes that changed it."""
        value = strict_json.loads(text)
        changed = []
        for code, mend in self.mends.items():
            after = rewrite(value, mend)
            if after != value:
                changed.append(code)
                value = after
        return value, tuple(changed)

    def _reasons(self, seen: Item, count: Count | RenderError | None) -> Iterator[tuple[str, str]]:
        learnt = [text for text, trained in zip(seen.texts, seen.trained, strict=True) if trained]
        if seen.format == "chat" and self.method != "reinforcement":
            if seen.roles[-1] != "assistant":
                yield "Q02", "last-not-assistant"
            if not all(text.strip() for text in learnt):
                yield "Q02", "empty-answer"
        if self.method != "reinforcement" and not any(text.strip() for text in learnt):
            yield "Q04", "nothing-to-learn"
        if isinstance(count, Count) and self.target is not None:
            if count.trained and not count.kept_trained:
                yield "Q04", "nothing-left"
            if self.target.limit and count.longest > self.target.limit:
                yield "Q05", "over-limit"
        if seen.rejected is not None and normalise(seen.rejected) == normalise(seen.answer):
            yield "Q23", "identical-pair"


def mended_line(value: object) -> bytes:
    """A changed row as its line."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"


def row_digest(seen: Item) -> int:
    """Of all that a row says; never 0, which stands for rows that go."""
    return digests(seen).row or 1


def _seen_texts(seen: Item) -> Iterator[str]:
    yield from seen.texts
    if seen.rejected is not None:
        yield seen.rejected
