"""The shapes of a training row, and of a chat request: JSON values in, frozen dataclasses out.

A Conversation is a chat row (`messages`, `tools`); a PromptCompletion is the older `prompt`/`completion`; a
Preference is a pair of answers, one liked better (DPO); a Reinforcement row asks and leaves the answer to a grader.
The deprecated spellings (`functions`, `function_call`, role `function`, content parts) are brought to today's
here, so that nothing below knows them.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from pegbox.data.strict_json import printable

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ROW_KEYS = {"messages", "tools", "functions", "parallel_tool_calls"}
MESSAGE_KEYS = {
    "role", "content", "name", "weight", "function_call", "tool_calls", "tool_call_id",
    "refusal", "audio", "annotations",
}  # fmt: skip
# What the API takes; and a row costs two renderings of the template an answer, each as long as the row.
MAX_MESSAGES = 2_048
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
METHODS = ("supervised", "dpo", "reinforcement")
_PREFERENCE_KEYS = {
    "input",
    *(f"{side}_{word}" for side in ("preferred", "non_preferred") for word in ("output", "completion")),
}


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


@dataclass(frozen=True, slots=True)
class Preference:
    """One prompt and two answers to it, of which one is liked better."""

    prompt: Conversation
    chosen: Message
    rejected: Message

    format = "preference"


@dataclass(frozen=True, slots=True)
class Reinforcement:
    """A prompt whose answers a grader will judge, and what the row tells the grader besides."""

    prompt: Conversation
    facts: dict[str, object]  # every key but `messages` and `tools`

    format = "reinforcement"


Record = Conversation | PromptCompletion | Preference | Reinforcement


def format_of(value: object) -> str | None:
    """The format that a row is in by its keys, whatever its values: preference, chat or completion. None where they do
    not tell."""
    if not isinstance(value, dict):
        return None
    if (_PREFERENCE_KEYS - {"input"}) & value.keys():
        return "preference"
    if "messages" in value:
        return "chat"
    return "completion" if {"prompt", "completion"} & value.keys() else None


def method_of(value: object) -> str:
    """The method that a row is written for, by its keys. Any other value is taken to be meant as supervised."""
    return "dpo" if format_of(value) == "preference" else METHODS[0]


def parse_row(value: object, method: str = "supervised") -> Record:
    """One training row for that method. Raises FormatError naming the field and the remedy."""
    if not isinstance(value, dict):
        raise FormatError("", f"the line is a {_kind(value)}, not a JSON object")
    if method == "dpo":
        return _preference(value)
    if method == "reinforcement":
        return _reinforcement(value)
    if "messages" in value:
        return _training_conversation(value)
    if "prompt" in value or "completion" in value:
        return _prompt_completion(value)
    if _PREFERENCE_KEYS & value.keys() - {"input"}:
        raise ExtraKeyError("", "the row is a preference pair; a supervised job takes messages")
    raise ExtraKeyError("", 'no "messages" list (chat) and no "prompt" and "completion" (completion format)')


def _preference(row: dict[str, object]) -> Preference:
    if "messages" in row or "prompt" in row:
        raise ExtraKeyError("", "the row is for a supervised job; a dpo job takes input, preferred_output and "
                            "non_preferred_output")  # fmt: skip
    _no_extra(row, _PREFERENCE_KEYS)
    asked = row.get("input")
    if not isinstance(asked, dict):
        raise FormatError("input", "must be an object with messages" if "input" in row else "is missing")
    for key in asked:
        if key not in _ROW_KEYS:
            raise FormatError(f"input.{printable(key)}", f'unrecognized key "{printable(key)}"; remove it')
    try:
        prompt = parse_conversation(asked.get("messages"), asked.get("tools"), asked.get("functions"))
    except FormatError as error:
        raise FormatError(f"input.{error.where}", error.problem) from None
    if prompt.messages[-1].role == "assistant":
        raise FormatError("input.messages", "end with an assistant message; the answers stand in the outputs")
    return Preference(prompt, _output(row, "preferred"), _output(row, "non_preferred"))


def _output(row: dict[str, object], side: str) -> Message:
    """One side's answer, under either of its two names."""
    names = [name for name in (f"{side}_output", f"{side}_completion") if name in row]
    if len(names) != 1:
        raise FormatError(f"{side}_output", "is missing" if not names else f"stands beside {names[1]}; keep one")
    value = row[names[0]]
    if not isinstance(value, list) or len(value) != 1:
        raise FormatError(names[0], "must be a list of one assistant message")
    message = _message(f"{names[0]}[0]", value[0])
    if message.role != "assistant":
        raise FormatError(f"{names[0]}[0].role", f'is "{message.role}"; must be "assistant"')
    return message


def _reinforcement(row: dict[str, object]) -> Reinforcement:
    if "messages" not in row:
        raise FormatError("messages", "is missing")
    prompt = parse_conversation(row["messages"], row.get("tools"))
    if prompt.messages[-1].role == "assistant":
        raise FormatError("messages", "end with an assistant message, but the model is to write it")
    return Reinforcement(prompt, {key: value for key, value in row.items() if key not in ("messages", "tools")})


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


def parse_conversation(
    messages: object, tools: object = None, functions: object = None, *, history: bool = False
) -> Conversation:
    """The messages and tools of a chat row or, as `history`, of a chat request: there the assistant may have said
    nothing, as an answer cut short does. Raises FormatError."""
    if not isinstance(messages, list) or not messages:
        raise FormatError("messages", "must be a list with at least one message")
    if len(messages) > MAX_MESSAGES:
        raise FormatError("messages", f"holds {len(messages):,} messages, more than {MAX_MESSAGES:,}; split it")
    parsed = tuple(_message(f"messages[{i}]", value, history=history) for i, value in enumerate(messages))
    return Conversation(parsed, _tools(tools, functions))


def _message(where: str, value: object, *, history: bool = False) -> Message:
    if not isinstance(value, dict):
        raise FormatError(where, f"is a {_kind(value)}, not an object with role and content")
    for key in value:
        if key not in MESSAGE_KEYS:
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
    if role == "assistant" and not calls and (content is None if history else not content):
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
