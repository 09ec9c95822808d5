"""The one way from a conversation to tokens. The validator, the counter, the trainer and the engine's front
all come through here, so a model is asked with exactly the tokens it was trained on.

A conversation becomes segments: pieces of the template's own text, each either context or an answer. Segments
are encoded one by one. At inference the same walk runs over the same messages and stops where the answer
would begin; whatever the tokenizer does at a boundary, it does on both sides.
"""

from dataclasses import dataclass, replace
from itertools import takewhile
from os.path import commonprefix
from typing import cast

from pegbox.data import toolcalls
from pegbox.data.formats import Conversation, Message, Preference, PromptCompletion, Record, Reinforcement
from pegbox.data.template import PROBE, Template
from pegbox.errors import RenderError

_TemplateMessage = dict[str, object]
_Tool = dict[str, object]


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    trained: bool  # loss is taken on its tokens


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to learn from. Token i is learnt, from the tokens before it, where `trained[i]`."""

    tokens: list[int]  # T ids
    trained: list[bool]  # T

    @property
    def n_trained(self) -> int:
        return sum(self.trained)


def render(record: Record, template: Template) -> list[list[Segment]]:
    """A training row as segments. A chat row gives one list, or several where the template rewrites earlier
    turns (drops old reasoning, say): then each answer is learnt in the context it will really be given in. A
    preference pair gives two, the preferred one first; a reinforcement row its prompt, with nothing to learn.

    Raises RenderError where the chat template refuses the row.
    """
    if isinstance(record, PromptCompletion):
        start = _plain_start(record.prompt, template)
        answer = [Segment(record.completion, trained=True)]
        if end := template.eos or template.turn_end:
            answer.append(Segment(end, trained=True))
        return [[*start, *answer]]
    if isinstance(record, Preference):
        asked = [replace(m, trained=False) for m in record.prompt.messages]
        answers = [replace(answer, trained=True) for answer in (record.chosen, record.rejected)]
        both = [replace(record.prompt, messages=(*asked, answer)) for answer in answers]
        return [_walk(conversation, template)[-1] for conversation in both]
    if isinstance(record, Reinforcement):
        return [_walk(record.prompt, template, ask=True)[-1]]
    sequences = _walk(record, template)
    return [segments for segments in sequences if any(segment.trained for segment in segments)]


def prompt(conversation: Conversation, template: Template) -> list[int]:
    """The tokens that ask for the next assistant message."""
    last = _walk(conversation, template, ask=True)[-1]
    return encode(last, template).tokens


def plain_prompt(text: str, template: Template) -> list[int]:
    """The tokens of a completion's prompt."""
    return encode(_plain_start(text, template), template).tokens


def encode(segments: list[Segment], template: Template) -> Example:
    """Segments to tokens, one by one: a segment's tokens depend on nothing that comes after it."""
    tokens: list[int] = []
    trained: list[bool] = []
    before = ""
    for segment in segments:
        ids = template.encode(segment.text, after=before)
        tokens += ids
        trained += [segment.trained] * len(ids)
        before = segment.text or before
    return Example(tokens, trained)


def examples(record: Record, template: Template) -> list[Example]:
    """`render` and `encode`."""
    return [encode(segments, template) for segments in render(record, template)]


def truncate(example: Example, limit: int) -> Example:
    """The first `limit` tokens. The API cuts long examples at the end; the caller reports what was lost."""
    return Example(example.tokens[:limit], example.trained[:limit])


def _plain_start(text: str, template: Template) -> list[Segment]:
    start = template.bos if template.begins_with_bos else None
    if not text and start is None:
        start = template.bos or template.eos  # something must stand before the first token to predict it
    return [Segment(piece, trained=False) for piece in (start, text) if piece]


def _walk(conversation: Conversation, template: Template, *, ask: bool = False) -> list[list[Segment]]:
    """Cut the template's output at every assistant message.

    `done` is the text that the current sequence holds so far. As long as the template only ever appends, each
    turn continues it; where it doesn't, a new sequence begins with the whole context as the template writes it
    at that point.
    """
    folded = _suit(conversation, template)
    messages = [_template_message(message) for message in folded.messages]
    tools = list(folded.tools)
    sequences: list[list[Segment]] = [[]]
    done = ""
    for i, message in enumerate(folded.messages):
        if message.role != "assistant":
            continue
        before = template.render(messages[:i], tools, answer_next=True)
        done = _continue(sequences, done, before)
        answer = _answer(messages[: i + 1], tools, before, template)
        sequences[-1].append(Segment(answer, message.trained))
        done += answer
    if ask:
        _continue(sequences, done, template.render(messages, tools, answer_next=True))
    return sequences


def _continue(sequences: list[list[Segment]], done: str, before: str) -> str:
    """Append the context that leads to the next answer; begin a new sequence if `done` was rewritten."""
    if not before.startswith(done):
        sequences.append([])
        done = ""
    sequences[-1].append(Segment(before[len(done) :], trained=False))
    return before


def _answer(messages: list[_TemplateMessage], tools: list[_Tool], before: str, template: Template) -> str:
    """What the model is to write after `before`, which asks for the last of `messages`: the message and the
    token that ends a turn, no more."""
    said = _said(messages, tools, before, template)
    stop = template.turn_end or template.eos
    if stop is None:
        raise RenderError("this model has no token that ends a turn, so it could never learn to stop")
    _, tail = template.around_answer
    if said.endswith(tail):  # the usual turn's end
        words, close = said[: len(said) - len(tail)], tail.find(stop)
        return words + (tail[: close + len(stop)] if close >= 0 else stop)
    # A turn that ends in a way of its own, as one that calls a tool may: at the first stop after the words.
    words = _words(messages[-1]).strip()
    start = said.rfind(words) + len(words) if words in said else 0
    ends = [said.find(text, start) + len(text) for text in template.stop_texts if text in said[start:]]
    return said[: min(ends)] if ends else said + stop


def _said(messages: list[_TemplateMessage], tools: list[_Tool], before: str, template: Template) -> str:
    """The template's text of the last message, from where `before` ends."""
    after = template.render(messages, tools)
    if after.startswith(before):
        return after[len(before) :]
    # The template tells a turn that has been in other words than it asks for one: its prompt opens with
    # <think>, say, or an earlier turn changes. Find where the words begin by writing others in their place.
    words = _words(messages[-1])
    probe = template.render([*messages[:-1], {"role": "assistant", "content": PROBE}], tools)
    head, found, _ = probe.rpartition(PROBE)
    if not found:
        return words
    if after.startswith(head):
        return template.around_answer[0] + after[len(head) :]
    shared = commonprefix([head, after])  # noqa: RUF071 - of texts, not of paths
    return after[len(shared) :]  # tool calls, which stand before the place of the words


def _words(message: _TemplateMessage) -> str:
    return cast("str", message["content"])[:]  # [:] looks into it: see skeleton.py, where that is found out


def _suit(conversation: Conversation, template: Template) -> Conversation:
    """Write into text what the template would drop in silence: tools, names, a refused system message."""
    if not template.knows_tools and (
        conversation.tools or any(m.role == "tool" or m.tool_calls for m in conversation.messages)
    ):
        conversation = toolcalls.fold(conversation)
    messages = [_with_name(message) for message in conversation.messages]
    if not template.knows_system:
        told = [str(m.content) for m in takewhile(lambda m: m.role in ("system", "developer"), messages)]
        del messages[: len(told)]
        if told and messages and messages[0].role == "user":
            told.append(str(messages.pop(0).content))
        if told:
            messages.insert(0, Message("user", "\n\n".join(told)))
    return replace(conversation, messages=tuple(messages))


def _with_name(message: Message) -> Message:
    """Templates ignore `name`. It is kept as a prefix, except where the model would have to write it."""
    if message.name and message.role in ("user", "system", "developer"):
        return replace(message, content=f"{message.name}: {message.content}")
    return message


def _template_message(message: Message) -> _TemplateMessage:
    """A message as chat templates expect it: hub conventions, arguments as values and not as text."""
    out: _TemplateMessage = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content or "",
    }
    if message.role == "tool":
        if message.name:
            out["name"] = message.name
        if message.tool_call_id:
            out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": toolcalls.arguments_of(call)},
            }
            for call in message.tool_calls
        ]
    return out
