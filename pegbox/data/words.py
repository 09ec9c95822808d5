"""The number of tokens of a text, from a table of the words that were met before.

The tokens of a text are those of its pieces, wherever the tokenizer itself cuts it into pieces first:
- at its own marks (special tokens), which it cuts out before all else;
- between words, where it is one of GPT-2's family, whose tokens never span two words.
Where a tokenizer does not (it puts a space before a text, say), pieces are larger, and nothing is ever guessed.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

_KEPT_WORDS = 150_000  # some 15 MB

# A single space between two characters that are no white space. Each pattern below begins a new word there: none of
# them matches a space but as a word's first character, or in a run of white space.
_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_ODD_SPACE = re.compile(r"^\s|\s$|\s | \s")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_KNOWN_PATTERNS = {_GPT2, _CL100K, _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")}

# A text whose number is not known yet: its words, the first one apart.
Pending = tuple[str, list[str]]


class WordTable:
    """Counts tokens for one tokenizer. Not for two threads at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = list(tokenizer.get_added_tokens_decoder().values())
        steps, normalizers = _steps(tokenizer.pre_tokenizer), _steps(tokenizer.normalizer)
        context_free = all(_is_context_free(step) for step in steps) and all(n["type"] == "NFC" for n in normalizers)
        self.cuts_at_marks = context_free and not any(t.lstrip or t.rstrip or t.single_word for t in added)
        self.cuts_at_words = self.cuts_at_marks and any(_cuts_words(step) for step in steps)
        self.marks = tuple(sorted((t.content for t in added if t.content), key=len, reverse=True))
        self._mark_starts = {mark[0] for mark in self.marks}
        self._mark = re.compile("|".join(map(re.escape, self.marks)) or r"(?!)")
        self._firsts: dict[str, int] = {}  # words at a text's beginning
        self._words: dict[str, int] = {"": 0}  # words after a space, which is not written here
        self._new_firsts: set[str] = set()
        self._new_words: set[str] = set()

    def has_marks(self, text: str) -> bool:
        for start in self._mark_starts:
            if start in text:
                return self._mark.search(text) is not None
        return False

    def cut(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text between marks, each piece with whether a mark follows it."""
        end = 0
        for mark in self._mark.finditer(text):
            yield text[end : mark.start()], True
            end = mark.end()
        yield text[end:], False

    def tokens(self, text: str) -> int:
        """Of any text that is encoded by itself. Only where `cuts_at_marks`."""
        total = 0
        for piece, marked in self.cut(text):
            if piece:
                asked = self.ask(piece)
                if not isinstance(asked, int):
                    self.learn()
                    asked = self.answer(asked)
                total += asked
            total += marked
        return total

    def ask(self, text: str, before: str = "") -> int | Pending:
        """The tokens of `before + text`, which holds no marks, if all its words are known. If not, `learn` what was
        asked, then get the `answer`. `text` does not begin with white space where `before` is given."""
        words = self._split(text)
        first = before + words[0]
        words[0] = ""  # the table holds it, with no tokens
        try:
            return self._firsts[first] + sum(map(self._words.__getitem__, words))
        except KeyError:
            if first not in self._firsts:
                self._new_firsts.add(first)
            self._new_words.update([word for word in words if word not in self._words])
            return first, words

    def learn(self) -> None:
        """Encode the words that were asked for and not known, all together."""
        if not self._new_firsts and not self._new_words:
            return
        firsts, words = list(self._new_firsts), list(self._new_words)
        texts = [*firsts, *(" " + word for word in words)]
        lengths = [len(encoding) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        self._firsts.update(zip(firsts, lengths, strict=False))
        self._words.update(zip(words, lengths[len(firsts) :], strict=True))
        self._new_firsts.clear()
        self._new_words.clear()

    def answer(self, asked: Pending) -> int:
        """What `ask` could not say, after `learn`."""
        first, words = asked
        return self._firsts[first] + sum(map(self._words.__getitem__, words))

    def forget(self) -> None:
        """Keep memory bounded: call it while nothing is pending."""
        if len(self._words) > _KEPT_WORDS:
            self._words = {"": 0}
        if len(self._firsts) > _KEPT_WORDS or sum(map(len, self._firsts)) > _KEPT_WORDS * 64:
            self._firsts.clear()

    def _split(self, text: str) -> list[str]:
        if not self.cuts_at_words:
            return [text]
        # The usual text has no white space but single spaces (`isprintable` is true of no other), none at an end.
        if not text.isprintable() or text[:1] == " " or text[-1:] == " ":
            return _BETWEEN_WORDS.split(text) if _ODD_SPACE.search(text) else text.split(" ")
        if "  " not in text:
            return text.split(" ")
        first, *others = text.split("  ")
        words = first.split(" ")
        for part in others:
            if part[:1] == " " or not part:  # three spaces and more
                return _BETWEEN_WORDS.split(text)
            more = part.split(" ")
            words[-1] += "  " + more[0]
            words += more[1:]
        return words


def _steps(component: Any) -> list[dict[str, Any]]:
    """A pre-tokenizer or normalizer as the plain steps it is made of."""
    if component is None:
        return []
    flat: list[dict[str, Any]] = []
    waiting = [json.loads(component.__getstate__())]
    while waiting:
        step = waiting.pop(0)
        parts = step.get("pretokenizers") or step.get("normalizers")
        if step["type"] == "Sequence":
            waiting = [*(parts or []), *waiting]
        else:
            flat.append(step)
    return flat


def _is_context_free(step: dict[str, Any]) -> bool:
    """Whether this step treats a text the same wherever it stands."""
    if step["type"] == "ByteLevel":
        return not step.get("add_prefix_space")
    return step["type"] in ("Digits", "Split", "Punctuation")


def _cuts_words(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True))
    isolated = step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert")
    return isolated and step["pattern"].get("Regex") in _KNOWN_PATTERNS
