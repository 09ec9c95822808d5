"""What an answer may look like, written as a grammar: any JSON object, JSON after a schema, the call of a function.

The engine holds an answer to it token by token (`engines/guide.py`). The grammars are llguidance's, a Lark with JSON
Schema inside (docs/decisions/0021-llguidance.md).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llguidance import LLMatcher

from pegbox.errors import DataError

MOST_BYTES = 256 * 1024  # of a schema
# Between JSON's parts: nothing, a space, or a line's end and an indent. Without a limit, a model that knows no better
# can go on with spaces forever.
_WHITESPACE = r" |\n {0,64}|\n\t{0,16}"


class SchemaError(DataError):
    """A schema that no grammar can be made of."""


@dataclass(frozen=True, slots=True)
class Function:
    """One that may be called, and the JSON schema of its arguments."""

    name: str
    parameters: object


def write_grammar(
    schema: object | None, functions: Sequence[Function] = (), *, gap: str = "", strict: bool = False
) -> str:
    """An answer that is JSON after `schema`, or a call of one of `functions` as `toolcalls` reads it; after the `gap`
    that the chat template puts before an answer.

    Where it is not `strict`, keywords of a schema that can't be enforced are passed over. Raises SchemaError.
    """
    forms, lines = [], []
    if schema is not None:
        forms.append("answer")
        lines.append(f"answer: %json {_schema(schema, strict=strict)}")
    if functions:
        forms += [r'"<tool_call>\n" call "\n</tool_call>"', "call"]
        lines.append(f"call: {' | '.join(f'call{i}' for i in range(len(functions)))}")
    for i, function in enumerate(functions):
        begin = f'{{"name": {json.dumps(function.name)}, "arguments": '
        lines.append(f'call{i}: {json.dumps(begin)} arguments{i} "}}"')
        # Each in a grammar of its own: what a schema refers to is found from its own root.
        lines.append(f"arguments{i}: %json {_schema(_of_object(function.parameters), strict=strict)}")
    before = f"{json.dumps(gap)}? " if gap else ""
    made = "\n".join([f"start: {before}({' | '.join(forms)})", *lines])
    if problem := LLMatcher.validate_grammar(made):
        raise SchemaError(problem.splitlines()[0].split("JSON schema: ")[-1])
    return made


def _of_object(schema: object) -> object:
    return {"type": "object", **schema} if isinstance(schema, dict) else {"type": "object"}


def _schema(schema: object, *, strict: bool) -> str:
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": {"whitespace_pattern": _WHITESPACE, "lenient": not strict}}
    written = json.dumps(schema)
    if len(written) > MOST_BYTES:
        raise SchemaError(f"it takes {len(written):,} bytes, more than {MOST_BYTES:,}")
    return written
