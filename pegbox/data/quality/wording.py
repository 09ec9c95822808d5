"""How two texts that look alike differ: in nothing that matters, or in what they mean.

Rules of thumb, tried on English and Japanese: numbers, negations, question words and names change what is asked;
typing errors, inflections, punctuation and small words do not; any other word weighs one.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from rapidfuzz.distance import OSA

from pegbox.data.quality.text import normalise

SHORT = 300  # characters up to which a ratio of edits says more than common runs
_KANJI = "〇一二三四五六七八九十百千万億"
_PLAIN_NUMBER = re.compile(r"[0-9][0-9.,:/]*")  # of ASCII texts; several times faster
_NUMBER = re.compile(rf"[\d{_KANJI}][\d.,:/{_KANJI}]*")
_MINUS = re.compile(r"(?:^|[\s(=:])-(?=\d)")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3041-\u30fa\u30fc-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[ぁ-ゖー]+|[ァ-ヺー]+|[一-鿿々]+|[{_DENSE}]|(?:(?![{_DENSE}])\w)+(?:['’](?:(?![{_DENSE}])\w)+)*")
_TOKEN = re.compile(rf"[{_DENSE}]+|(?:(?![{_DENSE}])\w)+")
DENSE = re.compile(f"[{_DENSE}]")


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NUMBER_WORDS = _set_of(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half "
    "twice double triple first second third fourth fifth once dozen"
)
_NEGATIONS = _set_of(
    "not no never none nothing without cannot cant dont wont didnt doesnt isnt wasnt arent hasnt havent hadnt wouldnt "
    "couldnt shouldnt unable neither nor nicht kein keine ohne ne pas jamais sans nunca sin não sem нет не без"
)
_JAPANESE_NEGATION = re.compile(r"ない(?!か)|ません(?!か)|なかった|なく|ずに|まい\b|無し|なし")
_APOLOGY = re.compile(r"す[みい]ません|申し訳(?:ござい|あり)ません|かもしれ(?:ない|ません)")
_QUESTIONS = _set_of("who whom whose what which why when where how much many long often old far")
_SMALL = _set_of(
    "a an the my your our his her its their this that these those i you we he she it they me us him them i'm i've i'd "
    "i'll is are was were be been being am do does did has have had having will would shall should can could may might "
    "must to of in on at by for from with into onto about as and or but if so then than there here it's that's please "
    "just really very too also still yet already now hi hello hey thanks thank ok okay well some any go about get got "
    "getting make made making want need like tell show explain know let seems looks seem look help"
)
_ENDINGS = ("", "s", "es", "d", "ed", "ing", "'s", "ly", "er")


@dataclass(frozen=True, slots=True)
class Difference:
    """What tells two texts apart."""

    numbers: bool
    negation: bool
    question: bool
    names: bool
    other: tuple[str, ...]  # further words that only one of them has, small ones and typing errors left out
    both: bool  # each of them has some of these: one thing was put for another

    def cost(self, per_word: float = 1.0) -> float:
        """0: they ask for the same; about 1: one of them says a little more; from 2: likely another thing. `per_word`:
        what a further word weighs."""
        hard = self.numbers + self.negation + self.question + self.names
        return 2.0 * hard + per_word * (len(self.other) + self.both)


def numbers(text: str) -> tuple[str, ...]:
    """The numbers of a normalised text, ascending as texts: 1,200 and 1200 and 1200.0 are one. A minus counts apart."""
    found = (_PLAIN_NUMBER if text.isascii() else _NUMBER).findall(text)
    if not found:
        return ()
    minus = _MINUS.findall(text) if "-" in text else []
    return tuple(sorted([*("-" for _ in minus), *(n if n.isdigit() else _as_plain(n) for n in found)]))


def other_numbers(one: str, other: str) -> bool:
    """Whether numbers stand for others: each normalised text has some that the other lacks."""
    ours, theirs = Counter(numbers(one)), Counter(numbers(other))
    return bool(ours - theirs) and bool(theirs - ours)


def difference(one: str, other: str) -> Difference:
    """Of two texts as they were written."""
    ours, theirs = _words(one), _words(other)
    mine, yours = _unmatched(list((ours - theirs).elements()), list((theirs - ours).elements()))
    names = any(word in _names(one) for word in mine) or any(word in _names(other) for word in yours)
    more, less = [w for w in mine if _weighs(w)], [w for w in yours if _weighs(w)]
    figures = numbers(normalise(one)) != numbers(normalise(other))
    return Difference(
        numbers=figures or _in(_NUMBER_WORDS, mine) != _in(_NUMBER_WORDS, yours),
        negation=_negations(one, ours) % 2 != _negations(other, theirs) % 2,
        question=_in(_QUESTIONS, mine) != _in(_QUESTIONS, yours),
        names=names,
        other=(*more, *less),
        both=bool(more and less),
    )


def common_words(one: str, other: str) -> float:
    """F1 of the words that two texts share, as SQuAD scores answers; of pairs of characters where words are not told
    apart."""
    ours, theirs = _tokens(one), _tokens(other)
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def _tokens(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for run in _TOKEN.findall(normalise(text)):
        pairs = len(run) > 1 and DENSE.match(run)
        found.update([run[i : i + 2] for i in range(len(run) - 1)] if pairs else [run])
    return found


def _as_plain(number: str) -> str:
    number = number.rstrip(".,:/")
    if "," in number and _THOUSANDS.fullmatch(number):
        number = number.replace(",", "")
    return number.rstrip("0").removesuffix(".") if "." in number and number.count(".") == 1 else number


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(normalise(text).replace("’", "'")))


def _unmatched(mine: list[str], yours: list[str]) -> tuple[list[str], list[str]]:
    """Without the words that are one another's misspelling or inflection."""
    left = []
    for word in mine:
        twin = next((other for other in yours if _is_same_word(word, other)), None)
        if twin is None:
            left.append(word)
        else:
            yours.remove(twin)
    return left, yours


def _is_same_word(one: str, other: str) -> bool:
    if DENSE.match(one) or one.isdigit() or one in _NEGATIONS or other in _NEGATIONS:
        return False
    short, long = sorted((one, other), key=len)
    stem = short.removesuffix("e") if len(short) > 4 else short
    if len(short) >= 3 and long.startswith(stem) and long[len(stem) :] in _ENDINGS:
        return True
    allowed = 0 if len(short) < 4 else 1 if len(short) < 9 else 2
    return one[:1] == other[:1] and OSA.distance(one, other) <= allowed


def _weighs(word: str) -> bool:
    """Whether it is neither small nor counted apart. Hiragana alone is an ending, a particle, a polite word."""
    apart = word in _QUESTIONS or word in _NUMBER_WORDS or word in _NEGATIONS or word.endswith("n't")
    return not apart and word not in _SMALL and not re.fullmatch(r"[ぁ-ゖー]+", word)


def _in(kind: frozenset[str], words: list[str]) -> list[str]:
    return sorted(word for word in words if word in kind)


def _negations(text: str, words: Counter[str]) -> int:
    plain = sum(n for word, n in words.items() if word in _NEGATIONS or word.endswith("n't"))
    return plain + len(_JAPANESE_NEGATION.findall(_APOLOGY.sub("", unicodedata.normalize("NFKC", text))))


def _names(text: str) -> set[str]:
    """Words written with a capital inside a sentence, and acronyms; runs of katakana; folded."""
    plain = unicodedata.normalize("NFKC", text)
    capital = re.findall(r"(?<=[^.!?\s] )[A-ZÀ-ÞА-Я][\w'’-]*|\b[A-Z]{2,}\b", plain)
    return {name.casefold().replace("’", "'") for name in [*capital, *re.findall(r"[ァ-ヺー]{2,}", plain)]} - {
        "i",
        "i'm",
        "i've",
    }
