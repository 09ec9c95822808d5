"""Q14: the languages of prompts and answers, and answers in another language than their question's.

A few answers in another language teach a model to switch at random; nearly all of them are a task (translation), and
half and half a choice to be made with open eyes. So a minority is a warning and the rest is for information. Between
two languages in Latin script the statistics can err: a row or two of many thousands are no warning there.
"""

import re
from collections import Counter
from collections.abc import Iterator

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.tallies import Tally
from pegbox.data.quality.text import excerpt
from pegbox.data.quality.tongues import LATIN, forget, tongue

MINORITY = 0.2  # below this share of the rows that can be told, a mismatch is an accident
_WORTH_SAYING = 0.01  # a language with a smaller share of prompts or answers is left to the mismatches
_ERRING = (3, 0.005)  # rows, and their share, from which mismatches in one script are no errors of the statistics
_OTHER_SCRIPT = frozenset(
    ("ja", "ko", "zh", "ru", "uk", "sr", "el", "he", "fa", "ar", "hi", "bn", "ta", "th", "ka", "hy")
)
_KIN = ({"ru", "uk", "sr"}, {"fa", "ar"}, {"da", "no", "sv"})  # short texts of these are not told apart
_ASKED = re.compile(
    r"translat|übersetz|tradui|traduc|traduz|tradur|翻訳|英訳|和訳|訳し|语翻|翻译|翻譯|번역|перев(?:од|ед)"
    r"|\b(?:in|into|to) (?:english|japanese|chinese|korean|german|french|spanish|italian|portuguese|russian)\b"
    r"|(?:英語|日本語|中国語|韓国語|ドイツ語|フランス語|スペイン語)(?:で|に)"
    r"|用(?:英|日|中|法|德)[语語文]|auf (?:deutsch|englisch)|en (?:anglais|inglés|español)"
    r"|(?:영어|일본어|한국어)로",
    re.IGNORECASE,
)
_NAMES = {
    "en": "English", "ja": "Japanese", "zh": "Chinese", "ko": "Korean", "de": "German", "fr": "French", "es": "Spanish",
    "it": "Italian", "pt": "Portuguese", "nl": "Dutch", "pl": "Polish", "sv": "Swedish", "da": "Danish",
    "no": "Norwegian", "fi": "Finnish", "cs": "Czech", "ro": "Romanian", "hu": "Hungarian", "tr": "Turkish",
    "id": "Indonesian", "vi": "Vietnamese", "ru": "Russian", "uk": "Ukrainian", "ar": "Arabic", "fa": "Persian",
    "hi": "Hindi", "th": "Thai", "el": "Greek", "he": "Hebrew", LATIN: "a language in Latin script",
}  # fmt: skip


class Languages:
    """Compares each row's question with its last learnt answer, where both have a language that can be told and the row
    does not ask for another one."""

    codes = ("Q14",)

    def __init__(self, _: Context) -> None:
        self._questions: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._told = 0  # rows of which both languages are known
        self._mismatches: Counter[tuple[str, str]] = Counter()
        self._tally = Tally()
        self._first: dict[str, Tally] = {}  # of each language of an answer, or of a question without one

    def see(self, item: Item) -> None:
        asked = tongue(item.question)
        at = item.answer_index
        said = tongue(item.texts[at]) if at >= 0 else None
        if asked:
            self._questions[asked] += 1
        if said:
            self._answers[said] += 1
        if said and at >= 0:
            tally = self._first.setdefault(said, Tally())
            tally.add(item)
            tally.show(item, at, note=_name(said))
        if asked and said:
            self._told += 1
            if asked != said and not any({asked, said} <= kin for kin in _KIN) and not self._wanted(item):
                self._mismatch(item, asked, said)

    def _wanted(self, item: Item) -> bool:
        return _ASKED.search(item.question[:2_000]) is not None or _ASKED.search(item.system[:2_000]) is not None

    def _mismatch(self, item: Item, asked: str, said: str) -> None:
        self._mismatches[asked, said] += 1
        self._tally.add(item)
        note = f"{_name(asked)} → {_name(said)}"
        text = excerpt(f"{item.question[:120]} → {item.answer[:120]}")
        self._tally.show(item, item.answer_index, note=note, text=text)

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        forget()
        if self._mismatches:
            yield self._mismatched(corpus)
        if (mix := self._mix(corpus)) is not None:
            yield mix

    def _mismatched(self, corpus: Corpus) -> Finding:
        count = self._tally.rows
        share = count / self._told
        sure = sum(n for pair, n in self._mismatches.items() if _OTHER_SCRIPT & set(pair))
        real = sure > 0 or (count >= _ERRING[0] and share >= _ERRING[1])
        pairs = self._mismatches.most_common(5)
        shown = ", ".join(f"{_name(asked)} to {_name(said)} {n:,}" for (asked, said), n in pairs)
        rows = "1 answer is" if count == 1 else f"{count:,} answers are"
        return finding(
            "Q14",
            "mismatch",
            f"{rows} in another language than the question ({share:.1%} of the {self._told:,} rows whose languages "
            f"can be told): {shown}",
            count=count,
            rows=corpus.read,
            lines=self._tally.lines,
            samples=self._tally.samples(corpus.which),
            severity=Severity.WARNING if real and share < MINORITY else Severity.INFO,
            data={"told": self._told, "share_of_told": share, "pairs": {f"{a}-{b}": n for (a, b), n in pairs}},
            file=corpus.which,
        )

    def _mix(self, corpus: Corpus) -> Finding | None:
        """Where more than one language has its share."""
        questions, answers = _shares(self._questions), _shares(self._answers)
        if len(questions) < 2 and len(answers) < 2:
            return None
        main = max(answers or questions, key=lambda language: (answers or questions)[language])
        rare = [language for language in self._first if language != main and language in answers]
        tallies = [self._first[language] for language in sorted(rare, key=lambda name: self._first[name].rows)]
        return finding(
            "Q14",
            "mix",
            f"Questions are in {_say(questions)}; answers in {_say(answers)}",
            count=sum(tally.rows for tally in tallies),
            rows=corpus.read,
            lines=(line for tally in tallies for line in tally.lines),
            samples=(sample for tally in tallies for sample in list(tally.samples(corpus.which))[:2]),
            severity=Severity.INFO,
            fix="Nothing, if all these languages are wanted.",
            data={"questions": dict(self._questions), "answers": dict(self._answers)},
            file=corpus.which,
        )


def _shares(counts: Counter[str]) -> dict[str, float]:
    """The languages that have a share worth saying, the greatest first."""
    total = counts.total()
    return {language: n / total for language, n in counts.most_common() if n >= _WORTH_SAYING * total and n > 1}


def _say(shares: dict[str, float]) -> str:
    return (
        ", ".join(f"{_name(language)} ({share:.0%})" for language, share in shares.items()) or "none that can be told"
    )


def _name(language: str) -> str:
    return _NAMES.get(language, language)
