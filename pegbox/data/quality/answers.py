"""Whether two answers to one question can both be right."""

import re
from enum import StrEnum

from pegbox.data.quality.text import normalise
from pegbox.data.quality.wording import DENSE, common_words, difference, numbers, other_numbers

SHORT_ANSWER = 60  # characters; a quarter of it in a script without spaces
SHORT_WORDS = 5
_ENDS = " .,!?;:。、!?・…\"'`“”‘’「」『』()（）[]*#\n\t"
_FINAL = re.compile(
    r"(?:####\s*|\\boxed\{|\banswer\s*(?:is|:)\s*|(?:答え|解答|正解)(?:は|:|：)\s*)([^\n#{}。]{1,40}?)[.。}$*\s]*$",
    re.IGNORECASE,
)
_YES = re.compile(
    r"(?:yes|yeah|yep|true|correct|はい|ええ|そうです|oui|ja|sí|si|да|是|对)(?!\w)|はい|そうです", re.IGNORECASE
)
_NO = re.compile(r"(?:no|nope|false|incorrect|non|nein|нет|否|不是)(?!\w)|いいえ|いえ|違います", re.IGNORECASE)
UNLIKE = 0.3  # common words below which two answers say different things


class Verdict(StrEnum):
    SAME = "same"  # in what matters
    DIFFERENT = "different-answers"  # both may be good
    CONFLICT = "conflict"  # at most one is right


def is_short(answer: str) -> bool:
    """Whether an answer is a label, a name, a figure, yes or no, rather than a sentence."""
    if len(answer) > SHORT_ANSWER or len(answer.split()) > SHORT_WORDS:
        return False
    return len(answer) <= SHORT_ANSWER // 4 or not DENSE.search(answer)


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
    if (is_short(one) and is_short(other)) or polarity(one) * polarity(other) < 0:
        return Verdict.CONFLICT
    return _of_sentences(one, other)


def _of_sentences(one: str, other: str) -> Verdict:
    common = common_words(one, other)
    if common < UNLIKE:
        return Verdict.DIFFERENT
    figures = common >= 0.5 and other_numbers(normalise(one), normalise(other))
    denied = common >= 0.7 and difference(one, other).negation
    return Verdict.CONFLICT if figures or denied else Verdict.SAME


def final(answer: str) -> str:
    """The result that an answer ends in ("#### 7", "the answer is 7."), plain; "" if it names none."""
    found = _FINAL.search(answer[-120:])
    if not found:
        return ""
    said = bare(found[1])
    figures = numbers(said)
    return figures[0] if len(figures) == 1 else said


def polarity(answer: str) -> int:
    """1 where it begins with yes, -1 where it begins with no, 0 otherwise."""
    text = answer.lstrip(_ENDS)
    return 1 if _YES.match(text) else -1 if _NO.match(text) else 0
