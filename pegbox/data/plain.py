"""The fast way to read the most common row: a chat of system, user and assistant messages with text and no more.

What it takes is exactly what the careful way (strict_json, formats) would take, and in the same words; whatever it is
not sure of, it leaves to the careful way.
"""

from typing import Literal

import msgspec

from pegbox.data.formats import MAX_MESSAGES, Conversation, Message


class PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message of a plain row."""

    role: Literal["system", "user", "assistant"]
    content: str


class _PlainRow(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[PlainMessage]


_DECODER = msgspec.json.Decoder(_PlainRow)


def read(text: str) -> list[PlainMessage] | None:
    """The messages of a plain row that is good to learn from; None for any other line."""
    try:
        row = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return None
    messages = row.messages
    # The decoder takes a key that stands twice. Count the strings: a key, and two keys and two values a message.
    quotes = text.count('"')
    if "\\" in text:
        if "\\\\" in text:
            return None
        quotes -= text.count('\\"')
    if quotes != 2 + 8 * len(messages) or len(messages) > MAX_MESSAGES:
        return None
    learnt = False
    for message in messages:
        if message.role == "assistant":
            if not message.content:
                return None
            learnt = True
    return messages if learnt else None


def conversation(messages: list[PlainMessage]) -> Conversation:
    """The record that the careful way would have made of them."""
    return Conversation(tuple(Message(message.role, message.content) for message in messages))
