"""The shapes of a training row, and of a chat request: JSON values in, frozen dataclasses out.

A Conversation is a chat row (`messages`, `tools`); a PromptCompletion is the older `prompt`/`completion`.
The deprecated spellings (`functions`, `function_call`, role `function`, content parts) are brought to today's
here, so that nothing below knows them.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from pegbox.data.strict_json import printable

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ROW_KEYS = {"messages", "tools", "functions", "parallel_tool_calls"}
_MESSAGE_KEYS = {
    "role", "content", "name", "weight", "function_call", "tool_calls", "tool_call_id",
    "refusal", "audio", "annotations",
}  # fmt: skip
# What the API takes; and a row costs two renderings of the template an answer, each as long as the row.
MAX_MESSAGES = 2_048
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_PREFERENCE_KEYS = {"preferred_output", "preferred_completion"}


class FormatError(ValueError):
    """A value that is not the shape it should be. `where` is its path, like `messages[2].role`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where
        self.problem = problem


class ExtraKeyError(FormatError):
    """A row that is no known format at all, or carries a key that means nothing here."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str  # JSON text
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    role: str  # system, developer, user, assistant or tool
    content: str | None
    name: str | None = None
    trained: bool = True  # an assistant message whose `weight` is not 0
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    tools: tuple[dict[str, object], ...] = field(default=())  # {"type": "function", "function": {…}}

    format = "chat"


@dataclass(frozen=True, slots=True)
class PromptCompletion:
    prompt: str
    completion: str

    format = "completion"


Record = Conversation | PromptCompletion


def parse_row(value: object) -> Record:
    """One training row. Raises FormatError naming the field and the remedy."""
    if not isinstance(value, dict):
        raise FormatError("", f"the line is a {_kind(value)}, not a JSON object")
    if "messages" in value:
        return _training_conversation(value)
    if "prompt" in value or "completion" in value:
        return _prompt_completion(value)
    if _PREFERENCE_KEYS & value.keys():
        raise ExtraKeyError("", "the row is a preference pair; a supervised job takes messages")
    raise ExtraKeyError("", 'no "messages" list (chat) and no "prompt" and "completion" (completion format)')


def _training_conversation(row: dict[str, object]) -> Conversation:
    _no_extra(row, _ROW_KEYS)
    if not isinstance(row.get("parallel_tool_calls"), (bool, type(None))):
        raise FormatError("parallel_tool_calls", "must be true or false")
    conversation = parse_conversation(row["messages"], row.get("tools"), row.get("functions"))
    answers = [message for message in conversation.messages if message.role == "assistant"]
    if not answers:
        raise FormatError("messages", "no assistant message, so there is nothing to learn; add the wanted answer")
    if not any(message.trained for message in answers):
        raise FormatError("messages", "every assistant message has weight 0, so there is nothing to learn")
    return conversation


def parse_conversation(messages: object, tools: object = None, functions: object = None) -> Conversation:
    """The messages and tools of a chat row or a chat request. Raises FormatError."""
    if not isinstance(messages, list) or not messages:
        raise FormatError("messages", "must be a list with at least one message")
    if len(messages) > MAX_MESSAGES:
        raise FormatError("messages", f"holds {len(messages):,} messages, more than {MAX_MESSAGES:,}; split it")
    parsed = tuple(_message(f"messages[{i}]", value) for i, value in enumerate(messages))
    return Conversation(parsed, _tools(tools, functions))


def _message(where: str, value: object) -> Message:
    if not isinstance(value, dict):
        raise FormatError(where, f"is a {_kind(value)}, not an object with role and content")
    for key in value:
        if key not in _MESSAGE_KEYS:
            shown = printable(key)
            raise FormatError(f"{where}.{shown}", f'unrecognized key "{shown}"; remove it')
    if "role" not in value:
        raise FormatError(where, "Discriminator 'role' is missing in value")
    role = value["role"]
    if role not in ROLES:
        raise FormatError(f"{where}.role", f"unrecognized role {_show(role)}; use one of {', '.join(ROLES)}")
    calls = _tool_calls(where, value)
    content = _content(f"{where}.content", value.get("content"))
    refusal = _text(f"{where}.refusal", value.get("refusal"))
    if role == "assistant" and content is None:
        content = refusal
    if role == "assistant" and not content and not calls:
        raise FormatError(f"{where}.content", "an assistant message needs content or a tool call")
    if content is None and role != "assistant":
        raise FormatError(f"{where}.content", "is missing; only an assistant message with a tool call may omit it")
    return Message(
        role="tool" if role == "function" else role,
        content=content,
        name=_text(f"{where}.name", value.get("name")),
        trained=_weight(f"{where}.weight", role, value.get("weight")),
        tool_calls=calls,
        tool_call_id=_text(f"{where}.tool_call_id", value.get("tool_call_id")),
    )


def _weight(where: str, role: object, value: object) -> bool:
    if value is None:
        return True
    if role != "assistant":
        raise FormatError(where, "only assistant messages carry a weight; remove it")
    if isinstance(value, bool) or value not in (0, 1):
        raise FormatError(where, f"is {_show(value)}; must be 0 (context only) or 1 (learn it)")
    return value == 1


def _content(where: str, value: object) -> str | None:
    """Text, or a list of text parts, which are joined."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise FormatError(where, f"is a {_kind(value)}; must be text")
    texts = []
    for i, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else part
        if not isinstance(part, dict) or not isinstance(kind, str) or kind not in _TEXT_PARTS:
            raise FormatError(f"{where}[{i}]", f"a part of type {_show(kind)}; this model reads text only")
        key = _TEXT_PARTS[kind]
        text = part.get(key)
        if not isinstance(text, str):
            raise FormatError(f"{where}[{i}].{key}", "must be text")
        texts.append(text)
    return "".join(texts)


def _tool_calls(where: str, message: dict[str, object]) -> tuple[ToolCall, ...]:
    if message["role"] != "assistant":
        for key in ("tool_calls", "function_call"):
            if message.get(key):
                raise FormatError(f"{where}.{key}", "only an assistant message calls functions; remove it")
        return ()
    listed = message.get("tool_calls")
    if listed is None:
        listed = []
    if not isinstance(listed, list):
        raise FormatError(f"{where}.tool_calls", "must be a list")
    calls = []
    for i, call in enumerate(listed):
        at = f"{where}.tool_calls[{i}]"
        if not isinstance(call, dict) or call.get("type", "function") != "function":
            raise FormatError(at, 'must be an object of type "function"')
        calls.append(_call(f"{at}.function", call.get("function"), call.get("id")))
    if message.get("function_call") is not None:
        calls.append(_call(f"{where}.function_call", message["function_call"], None))
    return tuple(calls)


def _call(where: str, value: object, call_id: object) -> ToolCall:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise FormatError(where, "must be an object with a name and arguments")
    arguments = value.get("arguments", "{}")
    if isinstance(arguments, dict):  # seen in the wild; the API wants text
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        raise FormatError(f"{where}.arguments", "must be JSON text")
    return ToolCall(value["name"], arguments, call_id if isinstance(call_id, str) else "")


def _tools(tools: object, functions: object) -> tuple[dict[str, object], ...]:
    out: list[dict[str, object]] = []
    for where, listed in (("tools", tools), ("functions", functions)):
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise FormatError(where, "must be a list")
        for i, item in enumerate(listed):
            function = item.get("function") if where == "tools" and isinstance(item, dict) else item
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise FormatError(f"{where}[{i}]", "must describe a function that has a name")
            out.append({"type": "function", "function": function})
    return tuple(out)


def _prompt_completion(row: dict[str, object]) -> PromptCompletion:
    _no_extra(row, {"prompt", "completion"})
    prompt, completion = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, str):
        raise FormatError("prompt", "is missing" if prompt is None else f"is a {_kind(prompt)}; must be text")
    if not isinstance(completion, str) or not completion:
        raise FormatError("completion", "must be text that is not empty")
    return PromptCompletion(prompt, completion)


def _no_extra(row: dict[str, object], known: Collection[str]) -> None:
    for key in row:
        if key not in known:
            raise ExtraKeyError("", f'contains an extra "{printable(key)}"')


def _text(where: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise FormatError(where, f"is a {_kind(value)}; must be text")


def _kind(value: object) -> str:
    names = {dict: "JSON object", list: "list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")


def _show(value: object) -> str:
    return json.dumps(value)[:60]
