"""Whole files, of all the kinds that people and attackers send."""

import gzip
import io
import json
import time

import pytest
from conftest import chat_row
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.rows import Problem, Row, read_rows

GOOD = json.dumps(chat_row("Q", "A"))


def read(content: bytes | str) -> list[Row]:
    return list(read_rows(io.BytesIO(content.encode() if isinstance(content, str) else content)))


def row_with(text: str) -> str:
    """A good row whose question is this JSON source."""
    return '{"messages": [{"role": "user", "content": ' + text + '}, {"role": "assistant", "content": "A"}]}'


def test_an_empty_file_has_no_rows() -> None:
    assert read(b"") == read(b"\n\r\n  \n\t\n") == []


@pytest.mark.parametrize(
    "content", [GOOD, GOOD + "\n", GOOD + "\r\n", GOOD + "\r", "\ufeff" + GOOD + "\n", f"  {GOOD}  \n"]
)
def test_one_good_row(content: str) -> None:
    (row,) = read(content)
    assert (row.example, row.line, row.problem) == (1, 1, None)
    assert [m.content for m in row.record.messages] == ["Answer in one word.", "Q", "A"]


def test_blank_lines_are_lines_but_no_examples() -> None:
    rows = read(f"\n\n{GOOD}\n \n{GOOD}\r\n\r\nbad\n")
    assert [(row.example, row.line) for row in rows] == [(1, 3), (2, 5), (3, 7)]
    assert str(rows[2].problem) == "Example 3: not valid JSON: Expecting value at column 1 (line 7)"


def test_a_line_separator_inside_a_string_is_text() -> None:
    (row,) = read(row_with('"a\u2028b\u2029c\u0085d"'))
    assert row.record.messages[0].content == "a\u2028b\u2029c\u0085d"


def test_a_nul_written_as_json_is_text() -> None:
    (row,) = read(row_with('"a\\u0000b"'))
    assert row.record.messages[0].content == "a\x00b"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\xff\xfe{", "UTF-16 or binary"),
        (GOOD.encode("utf-16"), "UTF-16 or binary"),
        (GOOD.encode("utf-32"), "UTF-16 or binary"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "UTF-16 or binary"),
        (gzip.compress(GOOD.encode(), mtime=0), "UTF-16 or binary"),
        (b"\x93NUMPY", "byte 1 is not UTF-8"),
        (row_with('"\xed\xa0\x80"').encode("latin-1"), "is not UTF-8"),
        (row_with('"\\ud800"').encode(), "half of a surrogate pair"),
        (row_with("NaN").encode(), "NaN is not JSON"),
        (row_with("1e999").encode(), "too large"),
        (row_with("9" * 5000).encode(), "5000 digits"),
        (row_with('"a", "content": "b"').encode(), 'the key "content" appears twice'),
        (b"[" * 100_000, "nested more than 64 levels deep"),
        (row_with("[" * 65 + "]" * 65).encode(), "nested more than 64 levels deep"),
        (f"{GOOD}\r{GOOD}\r".encode(), "CR alone"),
        (b"x" * (9 << 20), "more than 8 MiB"),
        (b"[]", "the line is a list, not a JSON object"),
        (b"null", "the line is a null, not a JSON object"),
        (b"3", "the line is a number, not a JSON object"),
        (b"prompt,completion", "not valid JSON"),
    ],
    ids=range(20),
)
def test_a_bad_line_is_a_problem_that_says_why(line: bytes, said: str) -> None:
    row, *rest = read(line + b"\n" + GOOD.encode())
    assert row.record is None
    assert said in row.problem.text
    assert (row.problem.example, row.problem.line, row.problem.where) == (1, 1, "")
    if said != "UTF-16 or binary":  # which ends the file
        assert [r.problem for r in rest] == [None]


def test_which_faults_are_of_format() -> None:
    bad = [
        '{"a": 1}', '{"messages": [], "x": 1}', '{"preferred_output": []}', "{", "[]",
        '{"messages": []}', '{"messages": [{"role": "user", "content": "x"}]}', '{"prompt": "x"}',
    ]  # fmt: skip
    assert [row.problem.is_format for row in read("\n".join(bad))] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("where", "spoken"),
    [
        ("", "Example 7: broken (line 9)"),
        ("messages", "Example 7, messages: broken (line 9)"),
        ("messages[0].role", "Example 7, message 1 role: broken (line 9)"),
        ("messages[11].tool_calls[0].function", "Example 7, message 12 tool_calls[0] function: broken (line 9)"),
    ],
)
def test_problems_are_told_as_people_count(where: str, spoken: str) -> None:
    assert str(Problem(7, 9, where, "broken", is_format=False)) == spoken


def test_problems_stay_short_whatever_the_row_holds() -> None:
    huge = "k" * 1_000_000
    rows = [
        json.dumps({"messages": [], huge: 1}),
        json.dumps({"prompt": "", "completion": "", huge: 1}),
        json.dumps({"messages": [{"role": huge, "content": ""}]}),
        json.dumps({"messages": [{"role": "user", huge: ""}]}),
        json.dumps({"messages": [{"role": "user", "content": [{"type": huge}]}]}),
        json.dumps({"messages": [{"role": "assistant", "content": "", "weight": huge}]}),
        f'{{"{huge}": 1, "{huge}": 2}}',
        f'{{"messages": {"9" * 100_000}}}',
    ]
    assert all(len(str(row.problem)) < 400 for row in read("\n".join(rows)))


def test_a_message_list_without_end_is_refused_quickly() -> None:
    many = [{"role": "user", "content": ""}, {"role": "assistant", "content": "A"}] * 50_000
    start = time.monotonic()
    (row,) = read(json.dumps({"messages": many}))
    assert row.problem.where == "messages"
    assert "100,000 messages" in row.problem.text
    assert time.monotonic() - start < 5


lines = (
    st.binary(max_size=40)
    | st.just(GOOD.encode())
    | st.text(max_size=20).map(lambda t: row_with(json.dumps(t)).encode())
)


@settings(deadline=None, max_examples=200)
@given(st.binary() | st.lists(lines, max_size=5).map(b"\n".join))
def test_any_bytes_are_rows_or_problems(content: bytes) -> None:
    rows = read(content)
    assert [row.example for row in rows] == list(range(1, len(rows) + 1))
    assert all((row.record is None) == (row.problem is not None) for row in rows)
    for row in rows:
        (row.text + str(row.problem)).encode()
    # What was taken can be written out and read again: this is how rows reach the trainer.
    taken = [row for row in rows if row.record]
    assert [row.record for row in read("".join(row.text + "\n" for row in taken))] == [row.record for row in taken]
