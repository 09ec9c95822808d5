"""The one way from a conversation to tokens. The validator, the counter, the trainer and the engine's front
all come through here, so a model is asked with exactly the tokens it was trained on.

A conversation becomes segments: pieces of the template's own text, each either context or an answer. Segments
are encoded one by one. At inference the same walk runs over the same messages and stops where the answer
would begin; whatever the tokenizer does at a boundary, it does on both sides.
"""

from dataclasses import dataclass, replace
from itertools import chain

from pegbox.data import toolcalls
from pegbox.data.formats import Conversation, Message, PromptCompletion, Record
from pegbox.data.template import Template
from pegbox.errors import RenderError


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
    turns (drops old reasoning, say): then each answer is learnt in the context it will really be given in.

    Raises RenderError where the chat template refuses the row.
    """
    if isinstance(record, PromptCompletion):
        start = _plain_start(record.prompt, template)
        answer = [Segment(record.completion, trained=True)]
        if template.eos:
            answer.append(Segment(template.eos, trained=True))
        return [[*start, *answer]]
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
    """Segments to tokens, one by one."""
    pieces = [(template.encode(segment.text), segment.trained) for segment in segments]
    tokens = list(chain.from_iterable(ids for ids, _ in pieces))
    trained = list(chain.from_iterable([mark] * len(ids) for ids, mark in pieces))
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
        answer = _answer(message, before, template.render(messages[: i + 1], tools), template)
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


def _answer(message: Message, before: str, after: str, template: Template) -> str:
    """What the model is to write after `before`: the message and the token that ends a turn, no more."""
    said = after[len(before) :] if after.startswith(before) else (message.content or "")
    ends = [said.rfind(stop) + len(stop) for stop in template.stop_texts if stop in said]
    if ends:
        return said[: max(ends)]
    stop = template.turn_end or template.eos
    if stop is None:
        raise RenderError("this model has no token that ends a turn, so it could never learn to stop")
    return said.rstrip("\n") + stop


def _suit(conversation: Conversation, template: Template) -> Conversation:
    """Write into text what the template would drop in silence: tools, names, a refused system message."""
    if not template.knows_tools and (
        conversation.tools or any(m.role == "tool" or m.tool_calls for m in conversation.messages)
    ):
        conversation = toolcalls.fold(conversation)
    messages = [_with_name(message) for message in conversation.messages]
    head = messages[0]
    if head.role in ("system", "developer") and not template.knows_system and messages[1:]:
        first = messages[1]
        messages[:2] = [replace(first, content=f"{head.content}\n\n{first.content}")]
    return replace(conversation, messages=tuple(messages))


def _with_name(message: Message) -> Message:
    """Templates ignore `name`. It is kept as a prefix, except where the model would have to write it."""
    if message.name and message.role in ("user", "system", "developer"):
        return replace(message, content=f"{message.name}: {message.content}")
    return message


def _template_message(message: Message) -> dict[str, object]:
    """A message as chat templates expect it: hub conventions, arguments as values and not as text."""
    out: dict[str, object] = {
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
