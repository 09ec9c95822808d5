import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.strict_json import MAX_DEPTH, JSONError, loads, printable

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_proper_json_comes_back(value: object) -> None:
    assert loads(json.dumps(value)) == value
    assert loads(" \t\r\n" + json.dumps(value, ensure_ascii=False) + "\n") == value


@given(st.text() | st.text(alphabet='{}[]":,0123456789eE+-.\\u dtruefalsn', max_size=40))
def test_any_text_is_json_or_a_json_error(text: str) -> None:
    try:
        value = loads(text)
    except JSONError as error:
        str(error).encode()
    else:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON: Expecting value at column 1"),
        ("{", "not valid JSON"),
        ("{} {}", "not valid JSON: Extra data at column 4"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": 1,}', "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
        ('"a\x00b"', "Invalid control character"),
        ('"a\nb"', "Invalid control character"),
        ("NaN", "NaN is not JSON; use a number or null"),
        ('{"a": [Infinity]}', "Infinity is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ("1e999", "the number 1e999 is too large"),
        ("-1e999", "the number -1e999 is too large"),
        ("9" * 5000, "an integer of 5000 digits is too large"),
        ('{"a": 1, "b": 2, "a": 3}', 'the key "a" appears twice in one object; keep one'),
        ('[{"x": {"k": 1, "k": 1}}]', 'the key "k" appears twice'),
        ('{"\\u0061": 1, "a": 2}', 'the key "a" appears twice'),
        ('"\\ud800"', "\\ud800 is half of a surrogate pair"),
        ('{"\\udfff": 1}', "\\udfff is half of a surrogate pair"),
        ('"\\ude00\\ud83d"', "\\ude00 is half of a surrogate pair"),
        ('{"\\ud800": 1, "\\ud800": 2}', 'the key "\\ud800" appears twice'),
        ("[" * 100_000, "nested more than 64 levels deep"),
        ('{"a":' * 100_000, "nested more than 64 levels deep"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 levels deep"),
    ],
    ids=lambda text: text[:20],
)
def test_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(JSONError) as error:
        loads(text)
    assert reason in str(error.value)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return opening * depth + "1" + closing * depth

    assert loads(nested(MAX_DEPTH))
    with pytest.raises(JSONError, match="nested more than 64"):
        loads(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude42"', "🙂"),  # a pair is one character
        ('"\\u0000"', "\x00"),
        ("9" * 300, int("9" * 300)),
        ("1.5e308", 1.5e308),
        ("1e-999", 0.0),
        ('"a\u2028b"', "a\u2028b"),
        ('{"": 1}', {"": 1}),
    ],
)
def test_accepted(text: str, value: object) -> None:
    assert loads(text) == value


def test_a_repeated_key_is_found_quickly_among_many() -> None:
    pairs = ",".join(f'"{i}":0' for i in range(200_000))
    start = time.monotonic()
    with pytest.raises(JSONError, match='"199999" appears twice'):
        loads(f'{{{pairs},"199999":1}}')
    assert time.monotonic() - start < 5


def test_printable_is_short_and_can_be_written() -> None:
    assert printable("a\ud800é" + "x" * 100) == "a\\ud800é" + "x" * 77
    assert printable("\udfff" * 1000) == "\\udfff" * 80
