"""Columns become roles, rows become training rows, and remedies are done only when asked for."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.mending.changes import OutputError
from pegbox.data.rows import read_rows
from pegbox.data.tables.prepare import Outline, Prepared, Wish, outline, write
from pegbox.data.tables.remedies import NAMES, Watch, mend
from pegbox.data.tables.roles import Pair, roles_of
from pegbox.data.tables.rows import TableError

DATA = Path(__file__).parents[3] / "shared" / "data"


def table(folder: Path, rows: list[list[str]], name: str = "a.csv") -> Path:
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / name


def jsonl(folder: Path, rows: list[object], name: str = "a.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder / name


def done(path: Path, *apply: str, **wish: str) -> tuple[list[dict], list[dict], Prepared]:
    """The rows, the log and the result."""
    out = path.with_name("out.jsonl")
    result = write(outline(path, Wish(**wish)), out, apply, force=True)
    rows, log = ([json.loads(line) for line in p.read_bytes().splitlines()] for p in (out, result.log))
    assert len(rows) == result.written
    assert result.rows == result.written + sum(result.removed.values())
    return rows, log, result


def names(found: Outline) -> dict[str, int]:
    return {remedy.name: remedy.rows for remedy in found.remedies}


# --- roles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (["Prompt", "Completion"], {"Prompt": "prompt", "Completion": "completion"}),
        (["id", "QUESTION", "Answer"], {"QUESTION": "prompt", "Answer": "completion"}),
        (
            ["instruction", "input", "output"],
            {"instruction": "prompt", "input": "prompt, continued", "output": "completion"},
        ),
        (["input", "output"], {"input": "prompt", "output": "completion"}),
        (["text", "label"], {"text": "prompt", "label": "completion"}),
        (["text", "category"], {"text": "prompt", "category": "completion"}),
        (
            ["User", "Assistant", "System Prompt"],
            {"User": "prompt", "Assistant": "completion", "System Prompt": "system prompt"},
        ),
        (["質問", "回答"], {"質問": "prompt", "回答": "completion"}),
        (["messages", "tools"], {"messages": "messages"}),
        (
            ["prompt", "chosen", "rejected"],
            {"prompt": "prompt", "chosen": "preferred answer", "rejected": "other answer"},
        ),
        (["completion"], {"completion": "completion"}),
    ],
)
def test_columns_are_known_by_name(columns: list[str], named: dict[str, str]) -> None:
    assert roles_of(columns).named() == named


def test_columns_that_mean_nothing_are_listed() -> None:
    with pytest.raises(TableError, match=r'they are "a", "b"\. Name them: --prompt COLUMN --completion COLUMN'):
        roles_of(["a", "b"])
    assert roles_of(["a", "b"], prompt="A", completion="b").named() == {"a": "prompt", "b": "completion"}
    with pytest.raises(TableError, match='no column "c"; the columns are "a", "b"'):
        roles_of(["a", "b"], prompt="c", completion="b")


def test_a_system_prompt_is_a_column_or_a_text() -> None:
    assert roles_of(["q", "a", "s"], prompt="q", completion="a", system="s").system == "s"
    assert roles_of(["q", "a"], prompt="q", completion="a", system="Be brief.").system_text == "Be brief."


# --- rows ----------------------------------------------------------------------------------------------------


def test_pairs_in_both_formats(tmp_path: Path) -> None:
    path = table(tmp_path, [["question", "answer", "id"], ["q", "a", "7"]])
    chat, log, _ = done(path, system="Be brief.")
    assert chat == [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        }
    ]
    assert log == [{"action": "columns-left-out", "columns": ["id"]}]
    plain, _, _ = done(path, format="completion")
    assert plain == [{"prompt": "q", "completion": "a"}]


def test_alpaca_s_input_follows_its_instruction(tmp_path: Path) -> None:
    rows, _, _ = done(table(tmp_path, [["instruction", "input", "output"], ["Add.", "1+1", "2"], ["Hi?", "", "Hi."]]))
    assert [row["messages"][0]["content"] for row in rows] == ["Add.\n\n1+1", "Hi?"]


def test_numbers_become_text(tmp_path: Path) -> None:
    rows, _, _ = done(
        jsonl(tmp_path, [{"prompt": 6, "completion": 42.0}, {"prompt": True, "completion": 1.5}]), format="completion"
    )
    assert rows == [{"prompt": "6", "completion": "42"}, {"prompt": "true", "completion": "1.5"}]


def test_messages_as_json_text_as_values_and_as_sharegpt(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    in_cells, _, _ = done(table(tmp_path, [["messages"], [json.dumps(talk)]]))
    shared = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "S"}
    values, _, _ = done(jsonl(tmp_path, [shared]))
    assert in_cells == [{"messages": talk}]
    assert values == [{"messages": [{"role": "system", "content": "S"}, *talk]}]


def test_preference_pairs_of_three_shapes(tmp_path: Path) -> None:
    user = {"role": "user", "content": "q"}
    wanted = {
        "input": {"messages": [user]},
        "preferred_output": [{"role": "assistant", "content": "yes"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    for row in (
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {
            "chosen": [user, {"role": "assistant", "content": "yes"}],
            "rejected": [user, {"role": "assistant", "content": "no"}],
        },
        {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"},
        wanted,
    ):
        rows, _, _ = done(jsonl(tmp_path, [row]))
        assert rows == [wanted]


def test_a_line_of_text_is_a_completion(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    rows, _, _ = done(tmp_path / "a.txt")
    assert rows == [{"prompt": "", "completion": "one"}, {"prompt": "", "completion": "two"}]


def test_formats_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}])
    with pytest.raises(TableError, match="can be written in chat format, not as completion"):
        outline(path, Wish(format="completion"))
    with pytest.raises(TableError, match="holds no row"):
        outline(jsonl(tmp_path, [], "empty.jsonl"))


# --- remedies ------------------------------------------------------------------------------------------------


def test_what_can_not_be_written_must_be_left_out_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, [["p", "c"], ["q", "a"], ["q2", " "], ["q3"], ["q", "a "]])
    found = outline(path, Wish(prompt="p", completion="c"))
    assert (found.rows, found.ready, found.missing, found.unreadable, found.duplicates) == (4, 2, 1, 1, 1)
    assert found.problems == ((4, "has 1 cells, but the header names 2 columns"),)
    with pytest.raises(OutputError, match="--apply unreadable"):
        write(found, tmp_path / "out.jsonl", ["missing"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    rows, log, result = done(path, "missing", "unreadable", "duplicates", "whitespace", prompt="p", completion="c")
    assert len(rows) == 1
    assert [(change["line"], change["code"]) for change in log] == [(3, "Q04"), (4, "Q01"), (5, "Q06")]
    assert log[2]["kept_line"] == 2
    assert result.removed == {"Q04": 1, "Q01": 1, "Q06": 1}


def many(prompt: str, completion: str) -> list[list[str]]:
    words = ["red", "green", "blue", "white", "black", "brown", "grey", "pink", "gold", "teal", "lime", "navy"]
    return [["prompt", "completion"], *([prompt.format(word), completion.format(word)] for word in words)]


def test_common_beginnings_and_endings_are_found_and_taken_off(tmp_path: Path) -> None:
    path = table(tmp_path, many("Name a thing that is {} ->", " Thing: {} END"))
    found = outline(path)
    assert {r.name: r.affix for r in found.remedies} == {
        "whitespace": "", "prompt-prefix": "Name a thing that is", "prompt-suffix": " ->", "completion-prefix": "Thing:",
        "completion-suffix": " END",
    }  # fmt: skip
    assert {r.name for r in found.remedies if not r.advised} == {"prompt-prefix"}
    rows, _, result = done(path, "prefix", "suffix", "whitespace", format="completion")
    assert rows[0] == {"prompt": "red", "completion": "red"}
    assert rows[11] == {"prompt": "navy", "completion": "navy"}
    assert set(result.changed) == {r.name for r in found.remedies}
    untouched, log, _ = done(path, format="completion")
    assert untouched[0] == {"prompt": "Name a thing that is red ->", "completion": " Thing: red END"}
    assert log == []


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("What is {}?", "It is {}."), ("{}", "x{}"), ("{}とは何ですか？", "{}です。"), ("same", "{}"), ("Wh{}", "{}")],
)
def test_ordinary_writing_has_nothing_to_take_off(tmp_path: Path, prompt: str, completion: str) -> None:
    found = outline(table(tmp_path, many(prompt, completion)))
    assert [r.name for r in found.remedies if r.advised and r.affix] == []


def test_capitals_classes_and_few_rows_are_told(tmp_path: Path) -> None:
    few = outline(table(tmp_path, many("IS IT {}".upper().replace("{}", "{}"), "yes")))
    assert "12 rows are few" in few.advice[0]
    rows = [["text", "label"], *([f"text number {i} here", f"L{i % 4}"] for i in range(200))]
    assert "4 different completions" in outline(table(tmp_path, rows)).advice[-1]


@given(
    st.text(" ab\n。", max_size=12), st.text(" ab\n。", min_size=1, max_size=12), st.sets(st.sampled_from(NAMES[3:]))
)
@settings(max_examples=100)
def test_remedies_never_empty_a_text(prompt: str, completion: str, applied: set[str]) -> None:
    pair = Pair(prompt, completion, "")
    after, changed = mend(pair, dict.fromkeys(applied, "a"))
    assert bool(after.completion.strip()) == bool(completion.strip())
    assert (after != pair) == bool(changed)


def test_watch_finds_nothing_in_nothing() -> None:
    assert (Watch().remedies(), Watch().advice()) == ([], [])


def test_what_stands_is_not_lost(tmp_path: Path) -> None:
    path = table(tmp_path, [["p", "c"], ["q", "a"]])
    found = outline(path, Wish(prompt="p", completion="c"))
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(OutputError, match="exists; name another file with -o, or overwrite it with --force"):
        write(found, tmp_path / "out.jsonl", [])
    with pytest.raises(OutputError, match="is the file that is read"):
        write(found, path, [], force=True)
    with pytest.raises(OutputError, match="there is no folder"):
        write(found, tmp_path / "no" / "out.jsonl", [])
    with pytest.raises(OutputError, match='no remedy "magic"'):
        write(found, tmp_path / "new.jsonl", ["magic"])
    assert (tmp_path / "out.jsonl").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "out.jsonl"]


def test_secrets_do_not_reach_the_log(tmp_path: Path) -> None:
    path = table(tmp_path, [["p", "c"], ["mail jane.roe@corp-mail.net", "ok "]])
    _, log, _ = done(path, "whitespace", prompt="p", completion="c")
    assert "jane" not in json.dumps(log)


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(cells, max_size=4), max_size=12), st.sets(st.sampled_from(NAMES)))
@settings(max_examples=80, deadline=None)
def test_every_row_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], apply: set[str]
) -> None:
    """Whatever the cells are: each row of the table is written once, or left out once by the log; and what is written
    can be read as training rows."""
    folder = tmp_path_factory.mktemp("prepare")
    path = table(folder, [["prompt", "completion"], ["q", "a"], *rows])
    written, log, result = done(path, *apply, "missing", "unreadable")
    removed = [change["line"] for change in log if change["action"] == "removed"]
    assert len(removed) == len(set(removed))
    assert len(written) + len(removed) == outline(path).rows == result.rows
    with (folder / "out.jsonl").open("rb") as file:
        assert all(row.problem is None for row in read_rows(file))


def test_banking77(tmp_path: Path) -> None:
    """The duplicates, against a plain count."""
    if not DATA.is_dir():
        pytest.skip("the shared data sets are not here")
    path = DATA / "banking77" / "train.csv"
    found = outline(path)
    with path.open(encoding="utf-8", newline="") as file:
        pairs = [(row["text"].strip(), row["category"].strip()) for row in csv.DictReader(file)]
    assert (found.rows, found.duplicates) == (len(pairs), len(pairs) - len(set(pairs)))
    result = write(found, tmp_path / "out.jsonl", ["duplicates", "whitespace"])
    assert result.written == len(set(pairs))
