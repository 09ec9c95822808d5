"""What could be better about prompts and completions taken together, and how it is mended.

The remedies are those of the old `prepare_data` tool that still make sense for chat models: it asked for separators
and leading spaces, which a chat template has made a burden.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os.path import commonprefix

from pegbox.data.quality.text import digest
from pegbox.data.tables.roles import Pair

PROMPT_PREFIX, PROMPT_SUFFIX = "prompt-prefix", "prompt-suffix"
COMPLETION_PREFIX, COMPLETION_SUFFIX = "completion-prefix", "completion-suffix"
NAMES = (
    "unreadable", "missing", "duplicates", "whitespace", PROMPT_PREFIX, PROMPT_SUFFIX, COMPLETION_PREFIX,
    COMPLETION_SUFFIX,
)  # fmt: skip
GROUPS = {"prefix": (PROMPT_PREFIX, COMPLETION_PREFIX), "suffix": (PROMPT_SUFFIX, COMPLETION_SUFFIX)}
_LEAST_PREFIX = {PROMPT_PREFIX: 12, COMPLETION_PREFIX: 5}  # characters, as the old tool had it
_LEAST_SUFFIX = 5  # characters of a suffix in words; one of marks alone counts from two
_FEW_ROWS = 100
_LONG_CHARACTERS = 10_000
_ROWS_FOR_AFFIX = 10
_DISTINCT_CAP = 1_000
_WORD = re.compile(r"[^\W_]")
_SPACED = re.compile(r"[A-Za-z\u00c0-\u052f0-9]")  # letters of scripts that put spaces between words
_OLD_END = re.compile(r"\s*(END|STOP|<END>|\[END\]|###+|\*\*\*+)$")


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something that could be better, and what applying it does."""

    name: str  # one of NAMES
    rows: int  # that it removes or changes
    text: str  # a sentence
    advised: bool = True  # part of --yes; the others are a matter of taste
    needed: bool = False  # no file can be written without it
    affix: str = ""  # what is taken off


@dataclass(slots=True)
class _Affix:
    """What all texts so far begin (or, turned round, end) with."""

    common: str | None = None
    shortest: int = 1 << 60

    def see(self, text: str) -> None:
        if self.common is None or not text.startswith(self.common):
            self.common = text if self.common is None else commonprefix([self.common, text])  # noqa: RUF071
        self.shortest = min(self.shortest, len(text))

    @property
    def found(self) -> str:
        """What they share; empty where some text has nothing besides."""
        return self.common if self.common and len(self.common) < self.shortest else ""


@dataclass(slots=True)
class Watch:
    """Sees every good pair once; then says what could be better."""

    rows: int = 0
    spaced: int = 0  # rows with white space at either end
    long: int = 0
    no_prompt: int = 0
    capitals: dict[str, int] = field(default_factory=lambda: {"prompts": 0, "completions": 0})
    _affixes: dict[str, _Affix] = field(default_factory=lambda: {name: _Affix() for name in NAMES[4:]})
    _distinct: set[int] = field(default_factory=set)

    def see(self, pair: Pair) -> None:
        prompt, completion = pair.prompt.strip(), pair.completion.strip()
        self.rows += 1
        self.spaced += prompt != pair.prompt or completion != pair.completion
        self.long += len(prompt) + len(completion) > _LONG_CHARACTERS
        self.no_prompt += not prompt
        self.capitals["prompts"] += prompt.isupper()
        self.capitals["completions"] += completion.isupper()
        for name, text in zip(NAMES[4:], (prompt, prompt[::-1], completion, completion[::-1]), strict=True):
            self._affixes[name].see(text)
        if len(self._distinct) < _DISTINCT_CAP:
            self._distinct.add(digest(completion))

    def remedies(self) -> list[Remedy]:
        found = []
        if self.spaced:
            text = f"{self.spaced:,} rows have white space at an end of their prompt or completion; strip it"
            found.append(Remedy("whitespace", self.spaced, text))
        if self.rows < _ROWS_FOR_AFFIX:
            return found
        for name, least in _LEAST_PREFIX.items():
            start = _to_word_start(self._affixes[name].found)
            if len(start) >= least:
                remedy = self._affix(name, start, "begin with", advised=_is_label(name, start))
                found.append(remedy)
        for name in (PROMPT_SUFFIX, COMPLETION_SUFFIX):
            ending = _to_word_end(self._affixes[name].found[::-1])
            marks = not _WORD.search(ending) or bool(_OLD_END.fullmatch(ending))
            if len(ending) >= (2 if marks else _LEAST_SUFFIX):
                found.append(self._affix(name, ending, "end with", advised=marks))
        return found

    def _affix(self, name: str, affix: str, what: str, *, advised: bool) -> Remedy:
        column, where = name.split("-")
        shown = affix if len(affix) <= 60 else affix[:60] + "…"
        text = f"all {column}s {what} {shown!r}; take it off"
        if where == "prefix" and column == "prompt":
            text += ", and say it in a system prompt (--system)"
        return Remedy(name, self.rows, text, advised=advised, affix=affix)

    def advice(self) -> list[str]:
        """What no machine can mend."""
        told = []
        if 0 < self.rows < _FEW_ROWS:
            told.append(f"{self.rows} rows are few; with each doubling, a tuned model gets better by about as much.")
        if self.long:
            told.append(
                f"{self.long:,} rows are longer than {_LONG_CHARACTERS:,} characters; `pegbox check` counts tokens."
            )
        for what, rows in self.capitals.items():
            if rows > self.rows / 2:
                told.append(f"{rows:,} {what} are in capitals only; models read ordinary spelling better.")
        if 0 < self.no_prompt < self.rows:
            told.append(f"{self.no_prompt:,} rows have no prompt; the others have one.")
        classes = len(self._distinct)
        if 1 < classes < min(_DISTINCT_CAP, self.rows / 20):
            told.append(
                f"There are {classes} different completions, so this looks like classification: `pegbox split` keeps "
                "their shares in training and validation."
            )
        return told


def mend(pair: Pair, applied: Mapping[str, str]) -> tuple[Pair, list[str]]:
    """The pair with these remedies (name → affix), and which of them changed it."""
    texts = {"prompt": pair.prompt, "completion": pair.completion}
    done = []
    for name in NAMES[3:]:
        if name not in applied:
            continue
        before = dict(texts)
        if name == "whitespace":
            texts = {column: text.strip() for column, text in texts.items()}
        else:
            column, where = name.split("-")
            texts[column] = _without(texts[column], applied[name], at_start=where == "prefix")
        if texts != before:
            done.append(name)
    return (replace(pair, **texts), done) if done else (pair, done)


def _without(text: str, affix: str, *, at_start: bool) -> str:
    """The text without its affix and the space that parted them; the text itself where nothing else is in it."""
    bare = text.strip()
    cut = bare.removeprefix(affix).lstrip() if at_start else bare.removesuffix(affix).rstrip()
    return cut if cut and len(cut) < len(bare) else text


def _is_label(name: str, prefix: str) -> bool:
    """Whether completions begin with a label, like "Answer:", rather than with words that belong to them."""
    return name == COMPLETION_PREFIX and not _WORD.match(prefix[-1])


def _to_word_start(prefix: str) -> str:
    """Cut back to where a word ends, in scripts that part words by spaces: "What i" is "What "."""
    end = len(prefix)
    while end and _SPACED.match(prefix[end - 1]):
        end -= 1
    return prefix[:end].rstrip()


def _to_word_end(suffix: str) -> str:
    start = 0
    while start < len(suffix) and _SPACED.match(suffix[start]):
        start += 1
    return suffix[start:].lstrip() if start else suffix
