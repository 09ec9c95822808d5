"""A row's texts replaced by mended ones, with everything about them left as it is."""

import json
import re
from collections.abc import Callable, Iterator

from pegbox.data import strict_json
from pegbox.data.quality.base import Context
from pegbox.data.quality.markers import Mark, Markers
from pegbox.data.template import Template

_ROLE_AFTER = re.compile(r"(?:system|user|assistant|model|tool)\s*\n?(?:<\|end_header_id\|>)?\s*")
_OPENS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "<|start_of_role|>")
_ROUNDS = 4  # taking a mark out can join two halves of another
Mend = Callable[[str], str]

_TEXTS = {"content", "text", "refusal", "prompt", "completion"}
_ROOMS = {  # keys under which texts may stand
    "messages", "content", "input", "preferred_output", "non_preferred_output", "preferred_completion",
    "non_preferred_completion", "tool_calls", "function", "function_call",
}  # fmt: skip


def rewrite(value: object, mend: Mend) -> object:
    """A copy of a row's JSON value with every text of its turns mended. Names, roles, ids and schemas stay."""
    if isinstance(value, list):
        return [rewrite(item, mend) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _entry(key, item, mend) for key, item in value.items()}


def texts(value: object) -> Iterator[str]:
    """Every text that `rewrite` would mend, in order."""
    found: list[str] = []

    def keep(text: str) -> str:
        found.append(text)
        return text

    rewrite(value, keep)
    yield from found


def unmarked(template: Template | None) -> Mend:
    """What takes the marks of chat templates out of a text, and the role's name behind a mark that opens a turn. Lines
    like "Human:" stay: they may be meant."""
    marks = Markers(Context(template=template))

    def mend(text: str) -> str:
        for _ in range(_ROUNDS):
            found = [mark for mark in marks.marks(text, learnt=True) if mark.kind != "role-line"]
            if not found:
                break
            text = _cut(text, found)
        return text

    return mend


def _cut(text: str, found: list[Mark]) -> str:
    pieces: list[str] = []
    at = 0
    for mark in sorted(found, key=lambda mark: mark.start):
        start = text.find(mark.text, max(mark.start, at))
        if start < 0:
            continue
        pieces.append(text[at:start])
        at = start + len(mark.text)
        if mark.text in _OPENS and (role := _ROLE_AFTER.match(text, at)):
            at = role.end()
    return ("".join(pieces) + text[at:]).strip()


def _entry(key: str, item: object, mend: Mend) -> object:
    if isinstance(item, str):
        if key in _TEXTS:
            return mend(item)
        return _arguments(item, mend) if key == "arguments" else item
    return rewrite(item, mend) if key in _ROOMS else item


def _arguments(text: str, mend: Mend) -> str:
    """A call's arguments stay JSON: what is mended are the texts in it."""
    try:
        value = strict_json.loads(text)
    except strict_json.JSONError:
        return mend(text)
    mended = _strings(value, mend)
    return text if mended == value else json.dumps(mended, ensure_ascii=False)


def _strings(value: object, mend: Mend) -> object:
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, list):
        return [_strings(item, mend) for item in value]
    if isinstance(value, dict):
        return {key: _strings(item, mend) for key, item in value.items()}
    return value
