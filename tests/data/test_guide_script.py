"""The guide's formatting script beside the data desk: the same figures where the script is right, and its ten faults.

The script is benchmarks/guide_script.py, written anew from the published rules.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import guide_script  # noqa: E402
from chat_templates import style  # noqa: E402

from pegbox.data.check import check  # noqa: E402
from pegbox.data.formats import ROLES, parse_row  # noqa: E402
from pegbox.data.render import examples  # noqa: E402
from pegbox.data.report import Distribution, FileFacts, Report  # noqa: E402
from pegbox.data.survey import Target  # noqa: E402

Row = dict[str, Any]


def turn(role: str, content: object, **more: object) -> Row:
    return {"role": role, "content": content, **more}


def chat(*messages: Row, **more: object) -> Row:
    return {"messages": list(messages), **more}


GOOD = chat(turn("system", "Be kind."), turn("user", "My bell is broken."), turn("assistant", "We mend it today."))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(*rows: object) -> Path:
        path = tmp_path / "train.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), "utf-8")
        return path

    return to_file


@pytest.fixture(scope="session")
def cl100k() -> guide_script.Count:
    pytest.importorskip("tiktoken", reason="the script counts with tiktoken")
    try:
        return guide_script.cl100k()
    except OSError as error:
        pytest.skip(str(error))


def words(messages: guide_script.Messages) -> tuple[int, int]:
    """A count that can be done by hand: a word is a token."""
    texts = [(m["role"], m.get("content") or "") for m in messages]
    return sum(len(t.split()) for _, t in texts), sum(len(t.split()) for r, t in texts if r == "assistant")


# --- the script does what is published of it -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "errors"),
    [
        (GOOD, {}),
        ([1, 2], {"data_type": 1}),
        ({"prompt": "a", "completion": "b"}, {"missing_messages_list": 1}),
        (chat(), {"missing_messages_list": 1}),
        (chat({"role": "user"}, turn("assistant", "b")), {"message_missing_key": 1, "missing_content": 1}),
        (chat({"content": "a"}, turn("assistant", "b")), {"message_missing_key": 1, "unrecognized_role": 1}),
        (chat(turn("user", "a", mood="sad"), turn("assistant", "b")), {"message_unrecognized_key": 1}),
        (chat(turn("bot", "a"), turn("assistant", "b")), {"unrecognized_role": 1}),
        (chat(turn("user", ""), turn("assistant", "b")), {"missing_content": 1}),
        (chat(turn("user", 7), turn("assistant", "b")), {"missing_content": 1}),
        (chat(turn("user", "a")), {"example_missing_assistant_message": 1}),
        # by the message, not by the row
        (chat(turn("x", "a"), turn("y", "b"), turn("assistant", "c")), {"unrecognized_role": 2}),
    ],
)
def test_error_classes(row: object, errors: dict[str, int]) -> None:
    assert guide_script.format_errors([row]) == errors


@pytest.mark.parametrize(("rows", "epochs"), [(1, 25), (4, 25), (5, 20), (10, 10), (20, 5), (30, 3), (33, 3), (34, 3), (8_333, 3), (8_334, 2), (20_000, 1), (90_000, 1)])  # fmt: skip
def test_epochs_as_published(rows: int, epochs: int) -> None:
    assert guide_script.epochs(rows) == epochs


def test_figures_by_hand(write: Callable[..., Path]) -> None:
    figures = guide_script.run(
        write(GOOD, chat(turn("assistant", "yes")), chat(turn("user", "a b"), turn("assistant", "c"))), words
    )
    assert figures["n_rows"] == 3
    assert (figures["n_missing_system"], figures["n_missing_user"]) == (2, 1)
    assert figures["n_epochs"] == 25
    assert (figures["tokens"]["min"], figures["tokens"]["max"], figures["tokens"]["mean"]) == (1, 10, 14 / 3)
    assert (figures["billing_tokens"], figures["billing_tokens_all_epochs"]) == (14, 350)


def test_tokens_of_cl100k(cl100k: guide_script.Count) -> None:
    """ "Hello" and "world" are a token each, and so are the roles; 3 a message, 3 for the talk, 1 for a name."""
    assert cl100k([turn("user", "Hello", name="world"), turn("assistant", "Hello world")]) == (3 + 3 + 4 + 3 + 3, 2)


# --- the data desk says the same wherever the script is right ------------------------------------------------


TEMPLATE = style("chatml")


def ours(path: Path, limit: int = guide_script.MAX_TOKENS_PER_EXAMPLE) -> Report:
    return check(path, target=Target("a-model", Path("a-model"), TEMPLATE, limit), quick=True)


def our_count(messages: guide_script.Messages) -> tuple[int, int]:
    """Our tokens, one row at a time, for the script to count with."""
    rendered = examples(parse_row({"messages": messages}), TEMPLATE)
    return sum(len(example.tokens) for example in rendered), sum(example.n_trained for example in rendered)


def alike(ours: Distribution | None, script: dict[str, float]) -> None:
    assert ours is not None
    theirs = (script["min"], script["max"], script["mean"], script["median"])
    assert (ours.min, ours.max, ours.mean, ours.median) == pytest.approx(theirs)


def same_figures(path: Path) -> None:
    script, report = guide_script.run(path, our_count), ours(path)
    facts, plan = report.training, report.plan
    assert plan is not None
    assert facts.rows == facts.used == script["n_rows"]
    assert dict(facts.format_errors) == script["format_errors"] == {}
    assert (facts.missing_system, facts.missing_user) == (script["n_missing_system"], script["n_missing_user"])
    alike(facts.messages, script["messages"])
    alike(facts.tokens, script["tokens"])
    alike(facts.assistant_tokens, script["assistant_tokens"])
    assert facts.over_limit == script["n_too_long"]
    assert plan.n_epochs == script["n_epochs"]
    assert plan.billing_tokens == script["billing_tokens_all_epochs"]


def test_same_figures_on_the_examples() -> None:
    for name in ("tickets/train.jsonl", "tickets/test.jsonl"):
        same_figures(ROOT / "examples" / name)


def test_same_figures_on_rows_of_every_valid_shape(write: Callable[..., Path]) -> None:
    rows = [
        GOOD,
        chat(turn("assistant", "Hello, how can I help?")),
        chat(turn("user", "Hi", name="Ana"), turn("assistant", "Hello")),
        chat(
            turn("system", "Be kind."), turn("assistant", "Yes."), turn("user", "Why?"), turn("assistant", "Because.")
        ),
        chat(turn("user", "弦はいつ届きますか。"), turn("assistant", "明日の午前中です。")),
        chat(turn("user", "word " * 20_000), turn("assistant", "cut off")),
    ]
    script = guide_script.run(write(*rows), our_count)
    assert script["n_too_long"] == 1
    # The long row's answer is cut off whole: the script bills it all the same, we leave it out and say so.
    facts = ours(write(*rows)).training
    assert (facts.rows, facts.used, facts.over_limit) == (6, 5, 1)
    same_figures(write(*rows[:5]))


def test_same_figures_on_gsm8k(write: Callable[..., Path]) -> None:
    source = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
    if not source.exists():
        pytest.skip("../shared/data is not here")
    asked = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    same_figures(write(*(chat(turn("user", row["question"]), turn("assistant", row["answer"])) for row in asked)))


BAD = [
    ([1, 2], "data_type"),
    ("just text", "data_type"),
    ({"text": "a"}, "missing_messages_list"),
    (chat(), "missing_messages_list"),
    ({"messages": None}, "missing_messages_list"),
    (chat({"role": "user"}, turn("assistant", "b")), "message_missing_key missing_content"),
    (chat({"content": "a"}, turn("assistant", "b")), "message_missing_key unrecognized_role"),
    (chat(turn("user", "a", mood="sad"), turn("assistant", "b")), "message_unrecognized_key"),
    (chat(turn("bot", "a"), turn("assistant", "b")), "unrecognized_role"),
    (chat(turn("x", "a"), turn("y", "b"), turn("assistant", "c")), "unrecognized_role unrecognized_role"),
    (chat(turn("user", 7), turn("assistant", "b")), "missing_content"),
    (chat(turn("user", "a"), turn("assistant", "")), "missing_content"),
    (chat(turn("user", "a")), "example_missing_assistant_message"),
    (chat(turn("bot", "")), "unrecognized_role missing_content example_missing_assistant_message"),
]


@pytest.mark.parametrize(("row", "classes"), BAD, ids=range(len(BAD)))
def test_the_same_error_classes(row: object, classes: str, write: Callable[..., Path]) -> None:
    expected = {name: classes.split().count(name) for name in classes.split()}
    assert guide_script.format_errors([row]) == expected
    facts = ours(write(GOOD, json.dumps(row), GOOD)).training
    assert dict(facts.format_errors) == expected
    assert (facts.rows, facts.used, facts.problems[0].line) == (3, 2, 2)


def test_the_same_sums_of_error_classes(write: Callable[..., Path]) -> None:
    rows = [row for row, _ in BAD] * 3
    facts = ours(write(GOOD, *(json.dumps(row) for row in rows))).training
    assert dict(facts.format_errors) == dict(sorted(guide_script.format_errors([GOOD, *rows]).items()))


# --- the ten faults ------------------------------------------------------------------------------------------


def read(path: Path) -> FileFacts:
    return ours(path).training


def test_fault_1_p5_and_p95_are_p10_and_p90(write: Callable[..., Path]) -> None:
    """Rows of 1 to 21 messages: one message a twentieth."""
    path = write(*(chat(*[turn("assistant", "yes")] * n) for n in range(1, 22)))
    theirs, own = guide_script.run(path, words)["messages"], read(path).messages
    assert own is not None
    assert (own.p5, own.p95) == (2, 20)
    assert (theirs["p5"], theirs["p95"]) == (3, 19)


CALL = {"name": "price", "arguments": "{}"}
TOOL_CALL = {"id": "c1", "type": "function", "function": CALL}


@pytest.mark.parametrize(
    "answer",
    [
        turn("assistant", "Gladly.", weight=1),
        turn("assistant", "", function_call=CALL),
        turn("assistant", [{"type": "text", "text": "Gladly."}]),
        turn("assistant", "", tool_calls=[TOOL_CALL]),
    ],
    ids=["weight", "function_call", "parts", "tool_calls"],
)
def test_fault_2_values_that_are_no_text_crash_the_count(
    answer: Row, write: Callable[..., Path], cl100k: guide_script.Count
) -> None:
    path = write(chat(turn("user", "What does it cost?"), answer))
    with pytest.raises(TypeError):
        guide_script.run(path, cl100k)
    facts = read(path)
    assert facts.used == 1
    assert facts.trained_tokens > 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"role": "assistant", "tool_calls": [TOOL_CALL]}, KeyError),
        ({"role": "assistant", "content": None, "function_call": CALL}, TypeError),
    ],
)
def test_fault_3_an_answer_without_content_crashes_the_count(
    answer: Row, error: type[Exception], write: Callable[..., Path]
) -> None:
    with pytest.raises(error):
        guide_script.assistant_tokens([answer], list)
    facts = read(write(chat(turn("user", "What does it cost?"), answer)))
    assert facts.used == 1
    assert facts.trained_tokens > 0


def test_fault_4_null_beside_a_function_call_is_legal(write: Callable[..., Path]) -> None:
    row = chat(turn("user", "What does it cost?"), turn("assistant", None, function_call=CALL))
    assert guide_script.format_errors([row]) == {"missing_content": 1}
    facts = read(write(row))
    assert (facts.used, dict(facts.format_errors)) == (1, {})


def test_fault_5_tools_and_developers_are_today_s_api(write: Callable[..., Path]) -> None:
    tools = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}]
    row = chat(
        turn("developer", "Be kind."),
        turn("user", [{"type": "text", "text": "What does it cost?"}]),
        turn("assistant", None, tool_calls=[TOOL_CALL]),
        turn("tool", "30", tool_call_id="c1"),
        turn("assistant", "30 euros."),
        tools=tools,
        parallel_tool_calls=False,
    )
    assert guide_script.format_errors([row]) == {
        "unrecognized_role": 2,
        "missing_content": 2,
        "message_unrecognized_key": 2,
    }
    facts = read(write(row))
    assert (facts.used, facts.missing_system, dict(facts.format_errors)) == (1, 0, {})


@pytest.mark.parametrize(
    ("line", "error", "named"),
    [
        ('{"messages": "hello"}', AttributeError, "missing_messages_list"),
        ('{"messages": [{"role": "user", "content": "a"}, "hello"]}', AttributeError, "data_type"),
        ('{"messages": [', json.JSONDecodeError, "invalid_json"),
    ],
)
def test_fault_6_broken_lines_end_it_all(
    line: str, error: type[Exception], named: str, write: Callable[..., Path]
) -> None:
    path = write(GOOD, line, GOOD)
    with pytest.raises(error):
        guide_script.run(path, words)
    facts = read(path)
    assert (facts.rows, facts.used, facts.problems[0].line) == (3, 2, 2)
    assert facts.format_errors[named] == 1


def test_fault_6_a_blank_line_ends_it_too(write: Callable[..., Path]) -> None:
    path = write(GOOD, "", GOOD)
    with pytest.raises(json.JSONDecodeError):
        guide_script.run(path, words)
    facts = read(path)
    assert (facts.rows, facts.used, facts.blank_lines) == (2, 2, 1)


def test_fault_7_it_counts_on_with_bad_rows(write: Callable[..., Path]) -> None:
    path = write(GOOD, {"prompt": "a"}, GOOD)
    assert guide_script.format_errors([GOOD, {"prompt": "a"}, GOOD]) == {"missing_messages_list": 1}
    with pytest.raises(KeyError):
        guide_script.run(path, words)
    facts = read(path)
    assert facts.used == 2
    assert facts.total_tokens == 2 * our_count(GOOD["messages"])[0]


def test_fault_8_one_limit_for_all_models_and_tools_for_nothing(write: Callable[..., Path]) -> None:
    long = write(GOOD, chat(turn("user", "word " * 200), turn("assistant", "yes")))
    assert guide_script.run(long, words)["n_too_long"] == 0
    assert ours(long, limit=100).training.over_limit == 1
    described = [{"type": "function", "function": {"name": "price", "description": "The price of an instrument."}}]
    plain, tooled = write(GOOD), GOOD | {"tools": described}
    few = guide_script.run(plain, words)["billing_tokens"], read(plain).total_tokens
    many = guide_script.run(write(tooled), words)["billing_tokens"], read(write(tooled)).total_tokens
    assert many[0] == few[0]
    assert many[1] > few[1]


def test_fault_9_five_rows_pass(write: Callable[..., Path]) -> None:
    path = write(*[GOOD] * 5)
    script = guide_script.run(path, words)
    assert (script["format_errors"], script["n_epochs"]) == ({}, 20)
    assert any("at least 10" in finding.text for finding in ours(path).findings)


def test_fault_10_what_it_says_of_roles_is_not_what_it_does(write: Callable[..., Path]) -> None:
    row = chat(turn("user", "a"), turn("function", "30", name="price"), turn("assistant", "b"))
    assert "function" not in guide_script.DESCRIBED_ROLES
    assert guide_script.format_errors([row]) == {}
    # We name exactly the roles that we take.
    problem = read(write(chat(turn("bot", "a"), turn("assistant", "b")))).problems[0]
    assert problem.text.rpartition("use one of ")[2].split(", ") == list(ROLES)
    for role in ROLES:
        assert read(write(chat(turn(role, "a"), turn("assistant", "b")))).used == 1
