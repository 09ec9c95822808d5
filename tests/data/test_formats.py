"""Every form a row may have, and every form it may not, with the field that is named."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.formats import (
    MAX_MESSAGES,
    Conversation,
    ExtraKeyError,
    FormatError,
    Message,
    PromptCompletion,
    ToolCall,
    parse_conversation,
    parse_row,
)

USER = {"role": "user", "content": "U"}
ANSWER = {"role": "assistant", "content": "A"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True},
}


def row(*messages: object, **more: object) -> dict:
    return {"messages": [USER, *messages], **more}


# --- what is taken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "parsed"),
    [
        ({"role": "system", "content": "S"}, Message("system", "S")),
        ({"role": "developer", "content": "D"}, Message("developer", "D")),
        ({"role": "user", "content": ""}, Message("user", "")),
        ({"role": "user", "content": "U", "name": "Ann"}, Message("user", "U", name="Ann")),
        ({"role": "user", "content": "U", "tool_calls": None, "function_call": None, "weight": None}, Message("user", "U")),
        ({"role": "user", "content": "U", "tool_calls": []}, Message("user", "U")),
        ({"role": "user", "content": []}, Message("user", "")),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]}, Message("user", "ab")),
        ({"role": "assistant", "content": "A", "refusal": None, "audio": None, "annotations": []}, Message("assistant", "A")),
        ({"role": "assistant", "content": "A", "weight": 1}, Message("assistant", "A")),
        ({"role": "assistant", "content": "A", "weight": 0}, Message("assistant", "A", trained=False)),
        ({"role": "assistant", "content": " "}, Message("assistant", " ")),
        ({"role": "assistant", "content": None, "refusal": "I won't."}, Message("assistant", "I won't.")),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, Message("assistant", "No.")),
        ({"role": "assistant", "content": "A", "tool_calls": [], "function_call": None}, Message("assistant", "A")),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, Message("assistant", None, tool_calls=(ToolCall("f", '{"x":1}', "c1"),))),
        ({"role": "assistant", "tool_calls": [CALL, CALL]}, Message("assistant", None, tool_calls=(ToolCall("f", '{"x":1}', "c1"),) * 2)),
        ({"role": "assistant", "content": "A", "tool_calls": [{"function": {"name": "f"}}]}, Message("assistant", "A", tool_calls=(ToolCall("f", "{}"),))),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"é": 1}}}]}, Message("assistant", None, tool_calls=(ToolCall("f", '{"é": 1}'),))),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, Message("assistant", None, tool_calls=(ToolCall("f", "{}"),))),
        ({"role": "tool", "tool_call_id": "c1", "content": "R"}, Message("tool", "R", tool_call_id="c1")),
        ({"role": "function", "name": "f", "content": "R"}, Message("tool", "R", name="f")),
    ],
)  # fmt: skip
def test_messages(message: dict, parsed: Message) -> None:
    assert parse_row(row(message, ANSWER)) == Conversation((Message("user", "U"), parsed, Message("assistant", "A")))


@pytest.mark.parametrize(
    ("more", "tools"),
    [
        ({}, ()),
        ({"tools": None, "functions": None, "parallel_tool_calls": None}, ()),
        ({"tools": [], "parallel_tool_calls": False}, ()),
        ({"tools": [TOOL]}, (TOOL,)),
        ({"functions": [TOOL["function"]]}, (TOOL,)),
        ({"tools": [TOOL], "functions": [{"name": "g"}]}, (TOOL, {"type": "function", "function": {"name": "g"}})),
    ],
)
def test_tools(more: dict, tools: tuple) -> None:
    assert parse_row(row(ANSWER, **more)).tools == tools


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        ({"prompt": "P", "completion": " C"}, PromptCompletion("P", " C")),
        ({"completion": "\n", "prompt": ""}, PromptCompletion("", "\n")),
    ],
)
def test_completion_rows(value: dict, parsed: PromptCompletion) -> None:
    assert parse_row(value) == parsed


def test_formats_have_names() -> None:
    assert (parse_row(row(ANSWER)).format, parse_row({"prompt": "", "completion": "c"}).format) == (
        "chat",
        "completion",
    )


# --- what is not ---------------------------------------------------------------------------------------------

OF_A_MESSAGE = [
    (None, "", "is a null"),
    ("text", "", "is a text"),
    (["user", "hi"], "", "is a list"),
    ({}, "", "Discriminator 'role' is missing in value"),
    ({"content": "x"}, "", "Discriminator 'role' is missing in value"),
    ({"role": "bot", "content": "x"}, "role", 'unrecognized role "bot"; use one of system, developer'),
    ({"role": None, "content": "x"}, "role", "unrecognized role null"),
    ({"role": ["user"], "content": "x"}, "role", "unrecognized role"),
    ({"role": "user"}, "content", "is missing"),
    ({"role": "user", "content": None}, "content", "is missing"),
    ({"role": "tool", "content": None}, "content", "is missing"),
    ({"role": "user", "content": 5}, "content", "is a number; must be text"),
    ({"role": "user", "content": {"text": "x"}}, "content", "is a JSON object; must be text"),
    ({"role": "user", "content": ["x"]}, "content[0]", 'a part of type "x"'),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}, "content[1]", 'a part of type "image_url"; this model reads text only'),
    ({"role": "user", "content": [{"text": "a"}]}, "content[0]", "a part of type null"),
    ({"role": "user", "content": [{"type": ["text"], "text": "a"}]}, "content[0]", "a part of type"),
    ({"role": "user", "content": [{"type": "text"}]}, "content[0].text", "must be text"),
    ({"role": "user", "content": "x", "colour": 1}, "colour", 'unrecognized key "colour"; remove it'),
    ({"role": "user", "content": "x", "name": 1}, "name", "is a number; must be text"),
    ({"role": "user", "content": "x", "weight": 1}, "weight", "only assistant messages carry a weight"),
    ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls", "only an assistant message calls functions"),
    ({"role": "tool", "content": "x", "function_call": {"name": "f"}}, "function_call", "only an assistant message calls functions"),
    ({"role": "tool", "content": "x", "tool_call_id": 1}, "tool_call_id", "is a number; must be text"),
    ({"role": "assistant"}, "content", "needs content or a tool call"),
    ({"role": "assistant", "content": ""}, "content", "needs content or a tool call"),
    ({"role": "assistant", "content": None, "tool_calls": []}, "content", "needs content or a tool call"),
    ({"role": "assistant", "content": None, "refusal": 1}, "refusal", "is a number; must be text"),
    ({"role": "assistant", "content": "A", "weight": 2}, "weight", "is 2; must be 0 (context only) or 1"),
    ({"role": "assistant", "content": "A", "weight": 0.5}, "weight", "is 0.5; must be 0"),
    ({"role": "assistant", "content": "A", "weight": True}, "weight", "is true; must be 0"),
    ({"role": "assistant", "content": "A", "weight": "1"}, "weight", 'is "1"; must be 0'),
    ({"role": "assistant", "content": "A", "weight": [1]}, "weight", "is [1]; must be 0"),
    ({"role": "assistant", "tool_calls": CALL}, "tool_calls", "must be a list"),
    ({"role": "assistant", "tool_calls": ["f"]}, "tool_calls[0]", 'must be an object of type "function"'),
    ({"role": "assistant", "tool_calls": [{**CALL, "type": "code"}]}, "tool_calls[0]", 'must be an object of type "function"'),
    ({"role": "assistant", "tool_calls": [CALL, {"type": "function"}]}, "tool_calls[1].function", "must be an object with a name"),
    ({"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}, "tool_calls[0].function", "must be an object with a name"),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": []}}]}, "tool_calls[0].function.arguments", "must be JSON text"),
    ({"role": "assistant", "function_call": "f"}, "function_call", "must be an object with a name"),
    ({"role": "assistant", "function_call": {"name": "f", "arguments": 1}}, "function_call.arguments", "must be JSON text"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "field", "problem"), OF_A_MESSAGE, ids=range(len(OF_A_MESSAGE)))
def test_a_bad_message_is_named_with_its_field(message: object, field: str, problem: str) -> None:
    with pytest.raises(FormatError) as error:
        parse_row(row(message, ANSWER))
    assert error.value.where == ("messages[1]." + field).rstrip(".")
    assert problem in error.value.problem
    assert not isinstance(error.value, ExtraKeyError)


OF_A_ROW = [
    (None, "", "the line is a null", False),
    ([USER, ANSWER], "", "the line is a list", False),
    ("x", "", "the line is a text", False),
    (1.5, "", "the line is a number", False),
    (True, "", "the line is a true/false", False),
    ({}, "", 'no "messages" list', True),
    ({"text": "x"}, "", 'no "messages" list', True),
    ({"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]}, "", "a preference pair", True),
    ({"preferred_completion": [ANSWER]}, "", "a preference pair", True),
    (row(ANSWER, weight=1), "", 'contains an extra "weight"', True),
    (row(ANSWER, answer="4", zebra=1), "", 'contains an extra "answer"', True),  # the first, always
    (row(ANSWER, prompt="x"), "", 'contains an extra "prompt"', True),
    (row(ANSWER, parallel_tool_calls="no"), "parallel_tool_calls", "must be true or false", False),
    ({"messages": None}, "messages", "must be a list with at least one message", False),
    ({"messages": []}, "messages", "must be a list with at least one message", False),
    ({"messages": {"0": USER}}, "messages", "must be a list with at least one message", False),
    ({"messages": [ANSWER] * (MAX_MESSAGES + 1)}, "messages", "holds 2,049 messages, more than 2,048", False),
    (row(), "messages", "no assistant message", False),
    (row({**ANSWER, "weight": 0}), "messages", "every assistant message has weight 0", False),
    (row(ANSWER, tools={}), "tools", "must be a list", False),
    (row(ANSWER, tools=[TOOL, "f"]), "tools[1]", "must describe a function that has a name", False),
    (row(ANSWER, tools=[{"type": "function"}]), "tools[0]", "must describe a function that has a name", False),
    (row(ANSWER, tools=[{"function": {"name": 1}}]), "tools[0]", "must describe a function that has a name", False),
    (row(ANSWER, functions="f"), "functions", "must be a list", False),
    (row(ANSWER, functions=[{}]), "functions[0]", "must describe a function that has a name", False),
    ({"prompt": "p"}, "completion", "must be text that is not empty", False),
    ({"prompt": "p", "completion": ""}, "completion", "must be text that is not empty", False),
    ({"prompt": "p", "completion": 1}, "completion", "must be text that is not empty", False),
    ({"completion": "c"}, "prompt", "is missing", False),
    ({"prompt": 1, "completion": "c"}, "prompt", "is a number; must be text", False),
    ({"prompt": "p", "completion": "c", "weight": 1}, "", 'contains an extra "weight"', True),
]  # fmt: skip


@pytest.mark.parametrize(("value", "where", "problem", "extra"), OF_A_ROW, ids=range(len(OF_A_ROW)))
def test_a_bad_row_is_named_with_its_field(value: object, where: str, problem: str, extra: bool) -> None:
    with pytest.raises(FormatError) as error:
        parse_row(value)
    assert error.value.where == where
    assert problem in error.value.problem
    assert isinstance(error.value, ExtraKeyError) == extra
    assert str(error.value) == (f"{where}: " if where else "") + error.value.problem


def test_a_chat_request_needs_no_answer() -> None:
    assert parse_conversation([USER]) == Conversation((Message("user", "U"),))
    with pytest.raises(FormatError):
        parse_row({"messages": [USER]})


# --- anything at all -----------------------------------------------------------------------------------------

KEYS = ["messages", "tools", "functions", "parallel_tool_calls", "prompt", "completion", "role", "content", "name", "weight",
        "tool_calls", "function_call", "tool_call_id", "refusal", "type", "text", "function", "arguments", "x"]  # fmt: skip
WORDS = ["system", "developer", "user", "assistant", "tool", "function", "text", "image_url", ""]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=3)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=25,
)
nearly = st.fixed_dictionaries(
    {"role": st.sampled_from(WORDS)},
    optional={
        "content": anything,
        "weight": scalars,
        "name": scalars,
        "tool_calls": anything,
        "function_call": anything,
        "refusal": scalars,
    },
)


@settings(deadline=None, max_examples=300)
@given(
    anything
    | st.fixed_dictionaries({"messages": st.lists(nearly | st.just(ANSWER), max_size=4)}, optional={"tools": anything})
)
def test_any_json_is_a_record_or_a_format_error(value: object) -> None:
    try:
        record = parse_row(value)
    except FormatError as error:
        str(error).encode()
        return
    if isinstance(record, Conversation):
        assert any(m.role == "assistant" and m.trained for m in record.messages)
        assert {m.role for m in record.messages} <= {"system", "developer", "user", "assistant", "tool"}
        assert all(m.content is not None or m.tool_calls for m in record.messages)
        json.dumps(record.tools)
    else:
        assert record.completion
