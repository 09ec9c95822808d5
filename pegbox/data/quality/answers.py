"""Whether two answers to one question can both be right."""

import re
from enum import StrEnum

from pegbox.data.quality.text import normalise
from pegbox.data.quality.wording import common_words, difference, numbers

SHORT_ANSWER = 60  # characters: a label, a name, a figure, yes or no
_ENDS = " .,!?;:。、!?・…\"'`“”‘’「」『』()（）[]*#\n\t"
_FINAL = re.compile(r"(?:^|\n)\s*####\s*(.+)|\\boxed\{([^{}]*)\}|(?:answer|答え|解答|answer is)\s*(?:is|は|:|：)\s*(.+)", re.IGNORECASE)
_YES = re.compile(r"(?:yes|yeah|yep|true|correct|はい|ええ|そうです|oui|ja|sí|si|да|是|对)(?!\w)|はい|そうです", re.IGNORECASE)
_NO = re.compile(r"(?:no|nope|false|incorrect|non|nein|нет|否|不是)(?!\w)|いいえ|いえ|違います", re.IGNORECASE)
UNLIKE = 0.3  # common words below which two answers say different things


class Verdict(StrEnum):
    SAME = "same"  # in what matters
    DIFFERENT = "different-answers"  # both may be good
    CONFLICT = "conflict"  # at most one is right


def bare(answer: str) -> str:
    """A short answer without what does not matter: case, white space, the punctuation about it."""
    return normalise(answer).strip(_ENDS)


def compare(one: str, other: str) -> Verdict:
    """Of two answers to the same question."""
    if bare(one) == bare(other):
        return Verdict.SAME
    ends = final(one), final(other)
    if ends[0] and ends[1]:
        return Verdict.SAME if ends[0] == ends[1] else Verdict.CONFLICT
    if max(len(one), len(other)) <= SHORT_ANSWER:
        return Verdict.CONFLICT
    sides = polarity(one), polarity(other)
    if sides[0] * sides[1] < 0:
        return Verdict.CONFLICT
    common = common_words(one, other)
    if common < UNLIKE:
        return Verdict.DIFFERENT
    if numbers(normalise(one)) != numbers(normalise(other)) and common >= 0.5:
        return Verdict.CONFLICT
    if common >= 0.7 and difference(one, other).negation:
        return Verdict.CONFLICT
    return Verdict.SAME


def final(answer: str) -> str:
    """The result that an answer names after a mark ("####", "the answer is", \\boxed), plain; "" if it names none."""
    found = _FINAL.findall(answer)
    if not found:
        return ""
    said = bare("".join(found[-1]).split("\n")[0])
    figures = numbers(said)
    return figures[0] if len(figures) == 1 else said


def polarity(answer: str) -> int:
    """1 where it begins with yes, -1 where it begins with no, 0 otherwise."""
    text = answer.lstrip(_ENDS)
    return 1 if _YES.match(text) else -1 if _NO.match(text) else 0
