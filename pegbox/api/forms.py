"""The form that a chat request wants its answer in: `response_format`, `tool_choice`, and the older `function_call`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pegbox.data.grammar import Function, SchemaError, write_grammar
from pegbox.errors import InvalidRequest
from pegbox.wire.base import JSONObject
from pegbox.wire.chat import CreateChat


@dataclass(frozen=True, slots=True)
class Choice:
    """What the model may do with the tools: as it likes, none of them, or it must call one."""

    mode: Literal["auto", "none", "required"] = "auto"
    allowed: tuple[str, ...] | None = None  # by name; None: all that the request describes
    is_named: bool = False  # one function was named, and no other may be called

    def offers(self, name: object) -> bool:
        return self.allowed is None or name in self.allowed


def choice(request: CreateChat) -> Choice:
    """Raises InvalidRequest."""
    for param, asked in (("tool_choice", request.tool_choice), ("function_call", request.function_call)):
        if asked is None:
            continue
        tools = request.tools if param == "tool_choice" else request.functions
        found = _choice(param, asked)
        if not tools and found.mode != "none" and found != Choice():
            kind = "tools" if param == "tool_choice" else "functions"
            raise _invalid(param, f"'{param}' is only allowed when '{kind}' are specified.")
        return found
    return Choice()


def offered(tools: list[object] | None, choice: Choice) -> list[object] | None:
    """Those of the tools that the model gets to see."""
    if tools is None or choice.allowed is None or choice.is_named:
        return tools
    return [tool for tool in tools if not isinstance(tool, dict) or choice.offers(_name_in(tool))]


def grammar_of(request: CreateChat, choice: Choice, tools: Sequence[JSONObject], gap: str) -> str | None:
    """The grammar that the answer is to keep to; None where it may be anything. Raises InvalidRequest."""
    schema, strict = _schema(request)
    functions = [_function(tool) for tool in tools if choice.offers(_name_in(tool))]
    if choice.mode == "required":
        if not functions:
            named = ", ".join(choice.allowed or ())
            raise _invalid("tool_choice", f"There is no tool called '{named[:100]}' in 'tools'.")
        schema = None
    elif schema is None:
        return None
    param = "response_format" if schema is not None else "tools"
    try:
        return write_grammar(schema, functions, gap=gap, strict=strict)
    except SchemaError as error:
        raise _invalid(param, f"Invalid schema: {error}. A simpler one may do.") from None


def _choice(param: str, asked: object) -> Choice:
    match asked:
        case "auto":
            return Choice()
        case "none":
            return Choice("none")
        case "required" if param == "tool_choice":
            return Choice("required")
        case {"type": "function", "function": {"name": str(name)}} if param == "tool_choice":
            return Choice("required", (name,), is_named=True)
        case {"name": str(name)} if param == "function_call":
            return Choice("required", (name,), is_named=True)
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            return Choice(mode, tuple(str(_name_in(tool)) for tool in tools))
    raise _invalid(param, f"Invalid value for '{param}': use 'auto', 'none', 'required' or name one function.")


def _schema(request: CreateChat) -> tuple[object | None, bool]:
    """The JSON schema that was asked for, and whether all of it must be enforced."""
    match request.response_format:
        case None | {"type": "text"}:
            return None, False
        case {"type": "json_object"}:
            return {"type": "object"}, False
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **others}}:
            return schema, others.get("strict") is True
        case {"type": "json_schema"}:
            raise _invalid("response_format", "Missing required parameter: 'response_format.json_schema.schema'.")
    raise _invalid(
        "response_format", "Invalid value for 'response_format': use 'text', 'json_object' or 'json_schema'."
    )


def _name_in(tool: object) -> object:
    """`{"type": "function", "function": {"name": …}}` → its name."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _function(tool: JSONObject) -> Function:
    function = tool["function"]
    assert isinstance(function, dict), "the conversation was parsed"
    return Function(str(function["name"]), function.get("parameters"))


def _invalid(param: str, text: str) -> InvalidRequest:
    return InvalidRequest(text, param=param, code="invalid_value")
