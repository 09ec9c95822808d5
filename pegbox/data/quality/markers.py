"""Q19: marks of chat templates inside the text.

A special token of the model's own is read as that token wherever it stands, so one in a text really ends the turn or
begins another. Marks of other models' templates are plain text to this one: it learns to write them, which tells that
rows were pasted together by a script. HTML, F# and texts that name a heading have similar things and are left alone.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.tallies import Tally, turns
from pegbox.data.template import Template


class Mark(NamedTuple):
    kind: str  # a key of _KINDS
    start: int
    text: str


class _Kind(NamedTuple):
    severity: Severity
    say: str


_KINDS = {
    "turn-token": _Kind(
        Severity.ERROR, "special tokens of this model that end or begin a turn; the model reads them as such"
    ),
    "special-token": _Kind(Severity.WARNING, "special tokens of this model; it reads a token there, not the text"),
    "answer-marker": _Kind(
        Severity.WARNING, "marks of another chat template in answers that are learnt; the model will write them"
    ),
    "prompt-marker": _Kind(Severity.INFO, "marks of another chat template in texts that are not learnt"),
    "role-line": _Kind(
        Severity.WARNING, "lines like “Human:” or “### Response:” in an answer, as if it held the turns after it"
    ),
}

_FOREIGN = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,30}\|>|<｜[A-Za-z▁]{2,30}｜>|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|</?(?:start_of_turn|end_of_turn|bos|eos)>|<(?:start_of_turn|end_of_turn|begin_of_text|end_of_text)>"
    # <s> is also HTML for struck text: it is a mark at a text's very end, or where it opens one and a space follows.
    r"|\A\s{0,20}<s>(?=\s|\[)|</s>(?=\s{0,20}(?:\Z|<s>))"
)
_ROLE = re.compile(
    r"(?:\A|\n\n?)(?:#{2,3} ?(?:Instruction|Response|Human|User|Assistant|指示|応答|入力) ?[:：]"
    r"|(?:Human|Assistant|USER|ASSISTANT|HUMAN)[:：])"
)
_OWN_WRITING = ("<tool_call>", "</tool_call>", "<tools>", "</tools>", "<tool_response>", "</tool_response>")


class Specials:
    """A model's special tokens, to be found in texts. Time grows with the text, not with the number of tokens."""

    def __init__(self, template: Template | None) -> None:
        texts = set(template.special_texts if template else ()) - set(_OWN_WRITING)
        self._turns = {text for text in texts if template and _ends_turns(text, template)}
        self._lengths: dict[str, list[int]] = {}  # by first character
        for text in texts:
            self._lengths.setdefault(text[0], []).append(len(text))
        self._lengths = {first: sorted(set(lengths), reverse=True) for first, lengths in self._lengths.items()}
        self._texts = texts

    def find(self, text: str) -> Iterator[Mark]:
        for first, lengths in self._lengths.items():
            at = text.find(first)
            while at >= 0:
                token = next((t for n in lengths if (t := text[at : at + n]) in self._texts), None)
                if token is not None:
                    yield Mark("turn-token" if token in self._turns else "special-token", at, token)
                at = text.find(first, at + len(token or first))


def _ends_turns(token: str, template: Template) -> bool:
    """Whether the model's template or configuration gives the token a part in a talk."""
    return token in (*template.stop_texts, template.eos, template.bos, template.turn_end) or (
        template.source is not None and token in template.source
    )


class Markers:
    """Counts rows by the marks in them."""

    codes = ("Q19",)

    def __init__(self, context: Context) -> None:
        self._specials = Specials(context.template)
        self._tallies = {kind: Tally() for kind in _KINDS}
        self._texts: dict[str, Counter[str]] = {kind: Counter() for kind in _KINDS}

    def see(self, item: Item) -> None:
        seen: set[str] = set()
        for turn, text in turns(item):
            learnt = turn < len(item.trained) and item.trained[turn]
            by_hand = item.format == "completion" and not learnt  # a template written out by hand, as is the custom
            for mark in self.marks(text, learnt=learnt):
                if by_hand:
                    mark = mark._replace(kind="prompt-marker")  # noqa: PLW2901
                if mark.kind not in seen:
                    seen.add(mark.kind)
                    self._tallies[mark.kind].show(item, turn, mark.start, note=mark.text)
                count = self._texts[mark.kind]
                if mark.text in count or len(count) < 100:
                    count[mark.text] += 1
        for kind in seen:
            self._tallies[kind].add(item)

    def marks(self, text: str, *, learnt: bool) -> Iterator[Mark]:
        own: set[int] = set()
        if "<" in text or "[" in text:
            for mark in self._specials.find(text):
                own.add(mark.start)
                yield mark
            for match in _FOREIGN.finditer(text):
                if match.start() not in own:
                    yield Mark("answer-marker" if learnt else "prompt-marker", match.start(), match[0].strip())
        if learnt and (":" in text or "：" in text):
            for match in _ROLE.finditer(text):
                yield Mark("role-line", match.start(), match[0].strip())

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        for kind, tally in self._tallies.items():
            if tally.rows:
                texts = dict(self._texts[kind].most_common(5))
                rows = f"{tally.rows:,} row holds" if tally.rows == 1 else f"{tally.rows:,} rows hold"
                yield finding(
                    "Q19",
                    kind,
                    f"{rows} {_KINDS[kind].say}: {', '.join(texts)}",
                    count=tally.rows,
                    rows=corpus.read,
                    lines=tally.lines,
                    samples=tally.samples(corpus.which),
                    severity=_KINDS[kind].severity,
                    data={"marks": texts},
                    file=corpus.which,
                )
