"""Q03: what the model's chat template makes of the rows. Every shape of row is rendered once, and some rows besides."""

from collections import Counter
from collections.abc import Iterator

from pegbox.data.formats import Conversation, Message, PromptCompletion, Record
from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, Finding, Place, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import excerpt
from pegbox.data.render import Example, encode, render
from pegbox.data.template import Template

_KEPT_SHAPES = 500
_EVERY = 100  # rows: one in so many is rendered though its shape is known


class Rendering:
    """Looks at the rendered rows. Rows that the template refuses never come here: they are unreadable."""

    codes = ("Q03",)

    def __init__(self, context: Context) -> None:
        self._template = context.template
        self._shapes: set[tuple[str, ...]] = set()
        self._lines: dict[str, list[int]] = {}
        self._first: dict[str, Item] = {}
        self._rows: Counter[str] = Counter()
        self._rendered = 0

    def see(self, item: Item) -> None:
        if self._template is None:
            return
        if item.tools or "tool" in item.roles:
            self._note("tools-in-text", item, not self._template.knows_tools)
        if item.system:
            self._note("system-in-text", item, not self._template.knows_system)
        if item.roles in self._shapes and item.example % _EVERY:
            return
        if len(self._shapes) < _KEPT_SHAPES:
            self._shapes.add(item.roles)
        self._render(item, self._template)

    def _render(self, item: Item, template: Template) -> None:
        self._rendered += 1
        sequences = render(_record(item), template)
        self._note("split", item, len(sequences) > 1)
        for segments in sequences:
            example = encode(segments, template)
            bos = template.tokenizer.token_to_id(template.bos) if template.bos else None
            self._note("double-bos", item, bos is not None and example.tokens[:2] == [bos, bos])
            last = [token for token, end in zip(example.tokens, _ends(example), strict=True) if end]
            self._note("no-stop-token", item, not template.stop_ids.issuperset(last))

    def _note(self, kind: str, item: Item, found: bool) -> None:
        if not found:
            return
        self._rows[kind] += 1
        self._first.setdefault(kind, item)
        lines = self._lines.setdefault(kind, [])
        if len(lines) < MAX_LINES:
            lines.append(item.line)

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        for kind, count in sorted(self._rows.items()):
            severity, text, fix = _KINDS[kind]
            item = self._first[kind]
            turn = max(item.answer_index, 0)
            sample = Sample((Place(item.line, item.path(turn), excerpt(item.texts[turn]), corpus.which),))
            yield finding(
                "Q03", kind, text.format(count=f"{count:,}"), count=count, rows=corpus.read, severity=severity,
                lines=self._lines[kind], samples=[sample], fix=fix, data={"rendered": self._rendered},
                file=corpus.which,
            )  # fmt: skip


def _ends(example: Example) -> Iterator[bool]:
    """Of each token, whether something learnt ends with it: an answer."""
    return (here and not after for here, after in zip(example.trained, [*example.trained[1:], False], strict=True))


_KINDS = {
    "double-bos": (
        Severity.ERROR,
        "{count} rendered rows begin with the model's beginning-of-text token twice.",
        "Mend the model's chat template or its tokenizer's settings: one of them is to write it, not both.",
    ),
    "no-stop-token": (
        Severity.ERROR,
        "{count} rendered answers end without a token that ends a turn, so the model would never learn to stop.",
        "Use a base model whose chat template ends the assistant's turn with a special token.",
    ),
    "split": (
        Severity.INFO,
        "{count} rendered rows become several examples, because the chat template rewrites earlier turns.",
        "Nothing: each answer is learnt in the context in which it will be given.",
    ),
    "system-in-text": (
        Severity.INFO,
        "The chat template takes no system message; in {count} rows it is written before the user's first words.",
        "Nothing, as long as you chat through this server, which does the same.",
    ),
    "tools-in-text": (
        Severity.INFO,
        "The chat template knows no tools; in {count} rows they are written out as text.",
        "Nothing, as long as you chat through this server, which does the same and reads the calls back.",
    ),
}


def _record(item: Item) -> Record:
    if item.format == "completion":
        return PromptCompletion(*item.texts)
    messages = tuple(
        Message("user" if role == "tool" else role, text, trained=trained)
        for role, text, trained in zip(item.roles, item.texts, item.trained, strict=True)
    )
    return Conversation(messages)
