"""Q18 for prompt and completion: what all prompts and all completions have in common, and what stands between them.

Advice from the days when a prompt was sent as it is, and the model had to see where it ends. It still holds for this
format: no chat template stands between the two.
"""

from collections.abc import Iterator

from pegbox.data.quality.base import Context
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import excerpt
from pegbox.data.quality.worst import Worst, many, percent

_FEWEST = 10  # rows
_MOST = 1_000  # characters of a common piece
_PREFIX = 8  # characters of a common beginning that are worth a word
_UPPER = 0.5  # share of texts in capitals


class _Common:
    """What all texts begin with, and what they end with."""

    def __init__(self) -> None:
        self.prefix: str | None = None
        self.suffix = ""

    def add(self, text: str) -> None:
        if self.prefix is None:
            self.prefix, self.suffix = text[:_MOST], text[-_MOST:]
            return
        if not text.startswith(self.prefix):
            self.prefix = _shared(self.prefix, text)
        if not text.endswith(self.suffix):
            self.suffix = _shared(self.suffix[::-1], text[: -_MOST - 1 : -1])[::-1]


class Affixes:
    codes = ("Q18",)

    def __init__(self, context: Context) -> None:
        del context
        self._rows = 0
        self._prompts, self._completions = _Common(), _Common()
        self._upper = [0, 0]  # prompts and completions in capitals
        self._space_between = Worst()  # a prompt that ends with a space: the next token usually carries it
        self._spaced = 0  # completions that begin with white space
        self._bare = Worst()  # neither does, nor the prompt ends with any

    def see(self, item: Item) -> None:
        if item.format != "completion":
            return
        self._rows += 1
        prompt, completion = item.texts
        self._prompts.add(prompt)
        self._completions.add(completion)
        self._upper[0] += prompt.isupper()
        self._upper[1] += completion.isupper()
        if prompt.endswith(" "):
            self._space_between.add(item, 0, around=len(prompt))
        if completion[:1].isspace():
            self._spaced += 1
        elif prompt and not prompt[-1].isspace() and ord(completion[0]) < 0x2E80 and completion[0].isalnum():
            self._bare.add(item, 1)  # East Asian scripts join words without spaces

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        del corpus
        if self._rows < _FEWEST:
            return
        yield from self._in_common()
        yield from self._between()
        for what, n in zip(("prompts", "completions"), self._upper, strict=True):
            if n > _UPPER * self._rows:
                yield finding(
                    "Q18", f"upper-case-{what}", f"{percent(n / self._rows)} of the {what} are in capitals.", count=n,
                    rows=self._rows, threshold=_UPPER,
                    fix="Write as usual, in small letters: models have read little text in capitals.",
                )  # fmt: skip

    def _in_common(self) -> Iterator[Finding]:
        prompts, completions = self._prompts, self._completions
        same = prompts.prefix is not None and prompts.prefix == prompts.suffix  # all prompts are one
        prefix = (prompts.prefix or "").strip()
        if not same and len(prefix) >= _PREFIX:
            yield self._says("common-prompt-prefix", f"All prompts begin with “{excerpt(prefix)}”.",
                             "Leave it out, or send it afterwards too: the model expects it.")  # fmt: skip
        suffix = prompts.suffix
        if not same and suffix.strip() and len(suffix) > 1:
            yield self._says("common-prompt-suffix", f"All prompts end with {_quoted(suffix)}.",
                             "Keep it as the mark where the answer begins, and send it afterwards too.")  # fmt: skip
        if completions.prefix == completions.suffix:
            return  # all completions are one; Q16 says so
        prefix = (completions.prefix or "").strip()
        if len(prefix) >= 2:
            yield self._says("common-completion-prefix", f"All completions begin with “{excerpt(prefix)}”.",
                             "Move it to the end of the prompts: there is nothing to learn in it.")  # fmt: skip
        suffix = completions.suffix.strip()
        if len(suffix) >= 2:
            yield self._says("common-completion-suffix", f"All completions end with “{excerpt(suffix)}”.",
                             "Leave it out: the end of a completion is learnt without a mark.")  # fmt: skip

    def _between(self) -> Iterator[Finding]:
        n = self._rows
        bare = self._bare
        if bare.count and not (self._prompts.suffix and not self._prompts.suffix[-1].isalnum()):
            mixed = f"; {self._spaced:,} {'begins' if self._spaced == 1 else 'begin'} with one" if self._spaced else ""
            yield finding(
                "Q18", "no-leading-space",
                f"{many(bare.count, 'completion')} ({percent(bare.count / n)}) "
                f"{'begins' if bare.count == 1 else 'begin'} right behind the prompt, without a space{mixed}.",
                count=bare.count, rows=n, lines=bare.lines, samples=bare.samples, threshold=0.0,
                fix="Begin each completion with a space, or end each prompt with a mark such as a line break.",
            )  # fmt: skip
        trailing = self._space_between
        if trailing.count:
            yield finding(
                "Q18", "trailing-space", f"{many(trailing.count, 'prompt')} ({percent(trailing.count / n)}) "
                f"{'ends' if trailing.count == 1 else 'end'} with a space.",
                count=trailing.count, rows=n, lines=trailing.lines, samples=trailing.samples, threshold=0.0,
                fix="Put the space at the beginning of the completion: tokens carry the space before a word.",
            )  # fmt: skip

    def _says(self, kind: str, text: str, fix: str) -> Finding:
        return finding("Q18", kind, text, count=self._rows, rows=self._rows, threshold=1.0, fix=fix)


def _shared(a: str, b: str) -> str:
    """What both begin with."""
    return a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]


def _quoted(text: str) -> str:
    """A short piece with its line breaks to be seen."""
    return f"“{excerpt(text)}”" if "\n" not in text else "“" + excerpt(text.replace("\n", "\\n")) + "”"
