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
