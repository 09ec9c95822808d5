"""Q02: turns in an odd order, or with nothing in them.

These rows can be read, and most can be trained on; but a model learns nothing from a talk that ends without its
answer, and templates that want user and assistant to take turns refuse the others.
"""

from collections.abc import Iterator

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.worst import Worst, many, percent

_KNOWN_SHAPES = 10_000
_CALL = "<tool_call>\n"  # as items write calls out
_CALLER = "caller"  # an assistant's turn that calls a function
_OPEN_ENDED = 0.5  # share of empty prompts above which they are meant

# kind: severity, sentence, remedy (None: the table's)
_KINDS: dict[str, tuple[Severity, str, str | None]] = {
    "empty-answer": (
        Severity.ERROR, "In {rows} an answer holds nothing but white space.", "Write the answer, or drop the row.",
    ),
    "last-not-assistant": (
        Severity.WARNING, "In {rows} the last turn isn't the assistant's, so it teaches nothing.",
        "End each row with the assistant's answer.",
    ),
    "same-role-twice": (
        Severity.WARNING, "In {rows} the same role speaks twice in a row.",
        "Join the two turns, or add the one that is missing between them.",
    ),
    "empty-content": (
        Severity.WARNING, "In {rows} a turn before the answer is empty.", "Fill the turn or remove it.",
    ),
    "empty-prompt": (
        Severity.WARNING, "In {rows} the prompt is empty.",
        "Write the prompt, unless the model is to write without being asked.",
    ),
    "system-not-first": (
        Severity.WARNING, "In {rows} a system message comes after the talk has begun.",
        "Move the system message to the front: many chat templates take it only there.",
    ),
    "result-without-call": (
        Severity.WARNING, "In {rows} a tool's result follows no call of a function.",
        "Put the assistant's message with `tool_calls` before the result.",
    ),
    "call-without-result": (
        Severity.WARNING, "In {rows} the talk goes on without the result of a called function.",
        "Put a `tool` message with the result after each call.",
    ),
    "starts-with-assistant": (
        Severity.INFO, "In {rows} the assistant speaks first.",
        "Keep it if your application greets first; some chat templates refuse it.",
    ),
}  # fmt: skip


class Turns:
    codes = ("Q02",)

    def __init__(self, context: Context) -> None:
        del context
        self._rows = 0
        self._completions = 0
        self._kinds = {kind: Worst() for kind in _KINDS}
        self._shapes: dict[tuple[str, ...], tuple[tuple[str, int], ...]] = {}

    def see(self, item: Item) -> None:
        self._rows += 1
        for turn, text in enumerate(item.texts):
            if not text or text.isspace():
                self._kinds[_empty(item, turn)].add(item, turn)
        if item.format == "completion":
            self._completions += 1
            return
        for kind, turn in self._oddities(_shape(item)):
            if kind != "last-not-assistant" or item.format == "chat":
                self._kinds[kind].add(item, turn)

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        del corpus
        for kind, (severity, sentence, fix) in _KINDS.items():
            rows = self._kinds[kind]
            if not rows.count:
                continue
            text = sentence.format(rows=f"{many(rows.count, 'row')} ({percent(rows.count / self._rows)})")
            if kind == "empty-prompt" and rows.count > _OPEN_ENDED * self._completions:
                severity = Severity.INFO  # noqa: PLW2901
                text += " The model learns to write without being asked."
            yield finding(
                "Q02", kind, text, count=rows.count, rows=self._rows, lines=rows.lines, samples=rows.samples,
                severity=severity, fix=fix,
            )  # fmt: skip

    def _oddities(self, shape: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        known = self._shapes.get(shape)
        if known is None:
            known = tuple(_look(shape))
            if len(self._shapes) < _KNOWN_SHAPES:
                self._shapes[shape] = known
        return known


def _empty(item: Item, turn: int) -> str:
    if item.roles[turn] == "assistant":
        return "empty-answer" if item.trained[turn] else "empty-content"
    return "empty-prompt" if item.format == "completion" else "empty-content"


def _shape(item: Item) -> tuple[str, ...]:
    """Its roles, with callers told from other assistants. A row of three turns or fewer has no call to be answered
    unless it has a tool's turn."""
    roles = item.roles
    if len(roles) <= 3 and "tool" not in roles:
        return roles
    return tuple(
        _CALLER if role == "assistant" and _CALL in text else role
        for role, text in zip(roles, item.texts, strict=True)
    )  # fmt: skip


def _look(shape: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Each oddity with the turn that shows it."""
    told = ("system", "developer")
    talk = [(role, turn) for turn, role in enumerate(shape) if role not in told]
    late = [turn for turn, role in enumerate(shape) if role in told and talk and turn > talk[0][1]]
    if late:
        yield "system-not-first", late[0]
    if talk and talk[0][0] in ("assistant", _CALLER):
        yield "starts-with-assistant", talk[0][1]
    if not talk or talk[-1][0] not in ("assistant", _CALLER):
        yield "last-not-assistant", len(shape) - 1
    before = ""
    for role, turn in talk:
        if role == "tool" and before not in ("tool", _CALLER):
            yield "result-without-call", turn
        elif before == _CALLER and role != "tool":
            yield "call-without-result", turn
        elif (role not in ("tool", _CALLER) and role == before) or (before, role) == ("assistant", _CALLER):
            yield "same-role-twice", turn
        before = role
