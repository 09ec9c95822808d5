"""What stands before an engine: the template that answers are asked with, and a request's way to tokens.

The routes come through here, and so does the receipt of a job: what it finds true of a row is true of a request.
"""

from functools import lru_cache
from pathlib import Path

from pegbox.data.formats import Conversation, parse_conversation
from pegbox.data.render import plain_prompt, prompt
from pegbox.data.template import Template, load_template


@lru_cache(maxsize=16)
def serving_template(folder: Path, created_at: int) -> Template:  # noqa: ARG001 - a model added anew is read anew
    """A base model's template, read once."""
    return load_template(folder)


def chat_request(
    messages: object, tools: object, functions: object, template: Template, *, without_tools: bool = False
) -> tuple[Conversation, list[int]]:
    """A chat request's body as a conversation, and the tokens that ask for the answer.

    Raises FormatError, and RenderError where the template refuses the messages.
    """
    conversation = parse_conversation(messages, tools, functions, history=True)
    if without_tools:
        conversation = Conversation(conversation.messages)
    return conversation, prompt(conversation, template)


def completion_request(text: str, template: Template) -> list[int]:
    """The tokens of a completion's prompt."""
    return plain_prompt(text, template)
