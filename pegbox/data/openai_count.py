"""About how many tokens OpenAI would count: its published rule over cl100k_base. The rule is an estimate by its own
account (tools and the names of functions are not in it), and tiktoken must have the encoding at hand."""

from typing import Any, BinaryIO

from pegbox.data.formats import Conversation, PromptCompletion
from pegbox.data.rows import read_rows
from pegbox.errors import DataError

_PER_MESSAGE, _PER_NAME, _PER_ROW = 3, 1, 3
ENCODING = "cl100k_base"


def count_openai(content: BinaryIO) -> int:
    """Tokens of all rows of a file. Raises DataError where tiktoken or its encoding can't be had."""
    encoding = _encoding()
    content.seek(0)
    total = 0
    for row in read_rows(content):
        record = row.record
        if isinstance(record, PromptCompletion):
            total += _tokens(encoding, record.prompt) + _tokens(encoding, record.completion)
        elif isinstance(record, Conversation):
            total += _PER_ROW
            for message in record.messages:
                total += _PER_MESSAGE + _tokens(encoding, message.role) + _tokens(encoding, message.content or "")
                total += (_PER_NAME + _tokens(encoding, message.name)) if message.name else 0
                total += sum(_tokens(encoding, call.name + call.arguments) for call in message.tool_calls)
    return total


def _tokens(encoding: Any, text: str) -> int:
    return len(encoding.encode_ordinary(text))


def _encoding() -> Any:
    try:
        import tiktoken
    except ImportError:
        raise DataError("--openai-tokens needs tiktoken: pip install tiktoken.") from None
    try:
        return tiktoken.get_encoding(ENCODING)
    except Exception as error:  # noqa: BLE001 - requests' errors, which only tiktoken imports
        raise DataError(
            f"tiktoken can't get the encoding {ENCODING} ({type(error).__name__}); with no way to the internet, "
            "set TIKTOKEN_CACHE_DIR to a folder that holds it."
        ) from None
