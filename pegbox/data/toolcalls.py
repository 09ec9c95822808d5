"""Tools in plain text, for chat templates that know none; and tool calls read back from a model's text.

The convention is the one most open models were trained on: tools as JSON inside <tools>, each call as one
JSON object inside <tool_call>, each result inside <tool_response>. Writing and reading stand side by side
so that what a model learns to write is what the server reads.
"""

import json
import re
from dataclasses import replace

from pegbox.data import strict_json
from pegbox.data.formats import Conversation, Message, ToolCall

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_INSTRUCTION = (
    "You may call these functions, described inside <tools>:\n<tools>\n{tools}\n</tools>\n"
    "To call one, answer with a JSON object inside <tool_call>:\n"
    '<tool_call>\n{{"name": "the function", "arguments": {{}}}}\n</tool_call>'
)


def arguments_of(call: ToolCall) -> object:
    """The call's arguments as a value; as the text itself where it is not (proper) JSON."""
    try:
        return strict_json.loads(call.arguments)
    except strict_json.JSONError:
        return call.arguments


def write_calls(message: Message) -> str:
    """An assistant message's text with its calls written out."""
    calls = [
        json.dumps({"name": call.name, "arguments": arguments_of(call)}, ensure_ascii=False).replace(
            "</tool_call>",
            "<\\/tool_call>",  # inside a JSON string, the same text; it must not end the call
        )
        for call in message.tool_calls
    ]
    parts = [message.content or "", *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)]
    return "\n".join(part for part in parts if part)


def read_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Split generated text into what is said and what is called.

    A call that is no proper JSON object stays in the text: a broken call is shown, not swallowed.
    """
    calls: list[ToolCall] = []

    def take(found: re.Match[str]) -> str:
        call = _parse(found.group(1))
        if call is None:
            return found.group()
        calls.append(call)
        return ""

    said = _CALL.sub(take, text)
    if not calls and (whole := _parse(text.strip())):  # models that answer with the bare object
        return "", (whole,)
    return (said.strip() if calls else text), tuple(calls)


def _parse(text: str) -> ToolCall | None:
    try:
        value = strict_json.loads(text)
    except strict_json.JSONError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if arguments is None:
        return None
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], arguments)


def fold(conversation: Conversation) -> Conversation:
    """The same conversation without tools: descriptions, calls and results become text."""
    messages: list[Message] = []
    follows = False  # results of calls made together stand in one turn: templates want turns to alternate
    for message in conversation.messages:
        folded = _fold_message(message)
        if follows and message.role == "tool":
            folded = replace(folded, content=f"{messages.pop().content}\n{folded.content}")
        messages.append(folded)
        follows = message.role == "tool"
    if conversation.tools:
        tools = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in conversation.tools)
        told = _INSTRUCTION.format(tools=tools)
        if messages[0].role in ("system", "developer"):
            messages[0] = replace(messages[0], content=f"{messages[0].content}\n\n{told}")
        else:
            messages.insert(0, Message("system", told))
    return Conversation(tuple(messages))


def _fold_message(message: Message) -> Message:
    if message.role == "assistant" and message.tool_calls:
        return replace(message, content=write_calls(message), tool_calls=())
    if message.role == "tool":
        return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
    return message
