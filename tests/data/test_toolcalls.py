import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.formats import Message, ToolCall, parse_conversation
from pegbox.data.toolcalls import arguments_of, fold, read_calls, write_calls

finite = st.floats(allow_nan=False, allow_infinity=False)
arguments = st.dictionaries(
    st.text(max_size=8),
    st.none()
    | st.booleans()
    | st.integers()
    | finite
    | st.text()
    | st.lists(st.text(), max_size=3)
    | st.just("</tool_call>"),
    max_size=4,
)


@given(
    st.text(alphabet="abc é\n<>{}").map(str.strip),
    st.lists(st.tuples(st.text(min_size=1), arguments), min_size=1, max_size=3),
)
def test_what_is_written_is_read(said: str, wanted: list[tuple[str, dict]]) -> None:
    calls = tuple(ToolCall(name, json.dumps(given)) for name, given in wanted)
    text, found = read_calls(write_calls(Message("assistant", said, tool_calls=calls)))
    assert text == said
    assert [(call.name, json.loads(call.arguments)) for call in found] == wanted


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("plain words", "plain words", []),
        ("  kept as it is \n", "  kept as it is \n", []),
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', "", [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "parameters": {}}</tool_call>', "", [("f", "{}")]),
        ('Sure.\n<tool_call>{"name": "f", "arguments": "{}"}</tool_call>\n', "Sure.", [("f", "{}")]),
        ('{"name": "f", "arguments": {"x": "é"}}', "", [("f", '{"x": "é"}')]),
        ('{"name": "f", "arguments": {}} and more', '{"name": "f", "arguments": {}} and more', []),
        ("<tool_call>{broken</tool_call>", "<tool_call>{broken</tool_call>", []),
        ('<tool_call>{"name": "f", "arguments": {}}', '<tool_call>{"name": "f", "arguments": {}}', []),
        (
            '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
            '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
            [],
        ),
        ('<tool_call>{"name": "f"}</tool_call>', '<tool_call>{"name": "f"}</tool_call>', []),
        ('{"answer": 1}', '{"answer": 1}', []),
        (
            '<tool_call>{bad}</tool_call><tool_call>{"name": "g", "arguments": {}}</tool_call>',
            "<tool_call>{bad}</tool_call>",
            [("g", "{}")],
        ),
    ],
)
def test_calls_in_a_models_text(text: str, said: str, calls: list[tuple[str, str]]) -> None:
    found_text, found = read_calls(text)
    assert (found_text, [(call.name, call.arguments) for call in found]) == (said, calls)


@pytest.mark.parametrize("inside", ["9" * 5000, "[" * 100_000, "NaN", "1e999", '"\\ud800"', '{"a": 1, "a": 2}'])
@pytest.mark.parametrize(
    "frame", ['<tool_call>{"name": "f", "arguments": %s}</tool_call>', '{"name": "f", "arguments": %s}']
)
def test_a_models_broken_json_stays_text(frame: str, inside: str) -> None:
    assert read_calls(frame % inside) == (frame % inside, ())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ("", ""),
        ("{", "{"),
        ("NaN", "NaN"),
        ("9" * 5000, "9" * 5000),
        ("[" * 10**5, "[" * 10**5),
        ("3", 3),
    ],
    ids=range(7),
)
def test_arguments(text: str, value: object) -> None:
    assert arguments_of(ToolCall("f", text)) == value


TOOLS = [{"type": "function", "function": {"name": "f{}", "parameters": {}}}]


def roles(conversation: object) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in conversation.messages]


def test_fold_joins_the_results_of_one_turn() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "1", "content": "R"}
    folded = fold(parse_conversation([
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "hm", "tool_calls": [call], "weight": 0},
        result, result,
        {"role": "assistant", "content": "A"},
        result,
        {"role": "user", "content": "V"},
    ]))  # fmt: skip
    response = "<tool_response>\nR\n</tool_response>"
    assert roles(folded) == [
        ("user", "U"),
        ("assistant", 'hm\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'),
        ("user", f"{response}\n{response}"),
        ("assistant", "A"),
        ("user", response),
        ("user", "V"),
    ]
    assert [m.trained for m in folded.messages] == [True, False, True, True, True, True]
    assert not any(m.tool_calls for m in folded.messages)


@pytest.mark.parametrize("head", ["system", "developer", None])
def test_fold_tells_of_the_tools_at_the_start(head: str | None) -> None:
    first = [{"role": head, "content": "S"}] if head else []
    folded = fold(parse_conversation([*first, {"role": "user", "content": "U"}], TOOLS))
    (role, told), (_, asked) = roles(folded)
    assert role == (head or "system")
    assert told.startswith("S\n\nYou may call" if head else "You may call")
    assert '<tools>\n{"name": "f{}", "parameters": {}}\n</tools>' in told
    assert '{"name": "the function", "arguments": {}}' in told
    assert asked == "U"
    assert folded.tools == ()
