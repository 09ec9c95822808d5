"""The error classes of the guide's script, by their names, with today's API in mind: tools and developer messages are
legal, and so is an empty content beside a call."""

from collections import Counter

from pegbox.data.formats import MESSAGE_KEYS, ROLES


def error_classes(value: object) -> Counter[str]:
    """How often each class occurs in one parsed row. The classes, and what counts as one, are the guide's; a row can
    be bad in ways that it has no name for."""
    found: Counter[str] = Counter()
    if not isinstance(value, dict):
        found["data_type"] += 1
        return found
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        if not ("prompt" in value and "completion" in value):
            found["missing_messages_list"] += 1
        return found
    for message in messages:
        found.update(_of_message(message))
    if not any(isinstance(m, dict) and m.get("role") == "assistant" for m in messages):
        found["example_missing_assistant_message"] += 1
    return found


def _of_message(message: object) -> list[str]:
    if not isinstance(message, dict):
        return ["data_type"]
    classes = []
    calls = bool(message.get("function_call") or message.get("tool_calls"))
    content = message.get("content", message.get("refusal"))
    if "role" not in message or ("content" not in message and not calls and "refusal" not in message):
        classes.append("message_missing_key")
    if not message.keys() <= MESSAGE_KEYS:
        classes.append("message_unrecognized_key")
    if message.get("role") not in ROLES:
        classes.append("unrecognized_role")
    parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if not (calls and content in (None, "")) and not (isinstance(content, str) and content) and not (parts and content):
        classes.append("missing_content")
    return classes
