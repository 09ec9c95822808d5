"""Each code takes out what it names and nothing else; every row is accounted for."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from conftest import chat_row
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.mending.changes import OutputError
from pegbox.data.mending.clean import CleanResult, clean
from pegbox.data.mending.rewrite import rewrite, texts, unmarked
from pegbox.data.mending.verdicts import APPLICABLE, BY_HAND, REASONS, row_digest
from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import CODES
from pegbox.data.quality.items import item
from pegbox.data.rows import read_rows
from pegbox.data.survey import survey

DATA = Path(__file__).parents[3] / "shared" / "data"


def row(question: str, answer: str, system: str | None = None) -> str:
    return json.dumps(chat_row(question, answer, system), ensure_ascii=False)


def put(folder: Path, lines: list[str], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


def applied(path: Path, *codes: str, **options: object) -> tuple[list[str], list[dict], CleanResult]:
    """The lines that stay, the log and the result; which add up."""
    out = path.with_name("out.jsonl")
    result = clean(path, out, codes, force=True, **options)
    lines = out.read_bytes().decode().split("\n")[:-1]
    log = [json.loads(line) for line in result.log.read_bytes().splitlines()]
    removed = [change["line"] for change in log if change["action"] == "removed"]
    changed = {change["line"] for change in log if change["action"] == "changed"}
    assert len(set(removed)) == len(removed) == sum(result.removed.values())
    assert (len(lines), len(changed)) == (result.kept + result.changed, result.changed)
    assert result.rows == len(lines) + len(removed)
    return lines, log, result


def test_every_code_is_either_applied_or_says_why_not() -> None:
    assert set(CODES) == {*APPLICABLE, *BY_HAND}
    assert {reason.code for reason in REASONS} <= {*APPLICABLE}


GOOD = row("How do I open an account?", "In the app, under Accounts.")


@pytest.mark.parametrize(
    ("code", "line", "kind"),
    [
        ("Q01", "not json", "unreadable"),
        ("Q01", '{"messages": []}', "unreadable"),
        (
            "Q02",
            json.dumps({"messages": [*chat_row("q", "a")["messages"], {"role": "user", "content": "and?"}]}),
            "last-not-assistant",
        ),
        ("Q02", row("q", " \n"), "empty-answer"),
        ("Q04", row("q", "　"), "nothing-to-learn"),
        ("Q06", GOOD.replace("app", "APP").replace("How", "Ｈｏｗ"), "exact-duplicate"),
    ],
)
def test_a_bad_row_goes_and_the_others_stay_byte_for_byte(tmp_path: Path, code: str, line: str, kind: str) -> None:
    others = [GOOD, row("２", "two").replace(": ", " :"), row("三", "three") + "\r"]
    kept, log, result = applied(put(tmp_path, [*others, line]), code)
    assert kept == others
    assert [(c["line"], c["action"], c["code"], c["kind"]) for c in log] == [(4, "removed", code, kind)]
    assert result.removed == {code: 1}
    if code == "Q06":
        assert log[0]["kept_line"] == 1
    untouched, _, _ = applied(put(tmp_path, [*others, line]), "Q20")
    assert untouched == [*others, line]


def test_identical_pairs_go(tmp_path: Path) -> None:
    def pair(chosen: str, rejected: str) -> str:
        said = [{"role": "assistant", "content": text} for text in (chosen, rejected)]
        asked = {"messages": [{"role": "user", "content": "q"}]}
        return json.dumps({"input": asked, "preferred_output": said[:1], "non_preferred_output": said[1:]})

    kept, log, _ = applied(put(tmp_path, [pair("a", "b"), pair("same", "Same ")]), "Q23")
    assert kept == [pair("a", "b")]
    assert (log[0]["line"], log[0]["kind"]) == (2, "identical-pair")


def test_secrets_marks_and_broken_characters_are_mended_and_nothing_else(tmp_path: Path) -> None:
    lines = [
        row("Write to jane.roe@corp-mail.net please", "Done.").replace(": ", ":"),
        row("What is it?", "It is cafÃ© and a zero\u200bwidth."),
        row("What now?", "Wait.<|im_end|>\n<|im_start|>assistant\nDone."),
        GOOD.replace(": ", ":  "),
    ]
    kept, log, result = applied(put(tmp_path, lines), "Q13", "Q19", "Q20")
    said = [[m["content"] for m in json.loads(line)["messages"]] for line in kept]
    assert said[0] == ["Write to «EMAIL» please", "Done."]
    assert said[1][1] == "It is café and a zerowidth."
    assert said[2][1] == "Wait.\nDone."
    assert kept[3] == lines[3]
    assert {c["line"]: c["code"] for c in log} == {1: "Q13", 2: "Q20", 3: "Q19"}
    assert result.mended == {"Q13": 1, "Q19": 1, "Q20": 1}
    assert "jane" not in json.dumps(log)
    twice, log, _ = applied(put(tmp_path, kept, "again.jsonl"), "Q13", "Q19", "Q20")
    assert (twice, log) == (kept, [])


def test_a_row_of_which_nothing_is_left_goes(tmp_path: Path) -> None:
    kept, log, result = applied(put(tmp_path, [GOOD, row("q", "<|im_end|>")]), "Q19")
    assert (kept, result.removed) == ([GOOD], {"Q19": 1})
    assert log[0]["kind"] == "nothing-left"


def test_rows_that_become_equal_by_mending_are_duplicates(tmp_path: Path) -> None:
    kept, log, _ = applied(put(tmp_path, [GOOD, GOOD.replace("account", "acc\u200bount")]), "Q06", "Q20")
    assert kept == [GOOD]
    assert (log[0]["code"], log[0]["kept_line"]) == ("Q06", 1)


def test_near_duplicates_go_but_contradictions_and_other_systems_stay(tmp_path: Path) -> None:
    asked = "Could you please tell me how long the delivery of a new card to my home address usually takes"
    lines = [
        row(asked + "?", "Five days"),
        row(asked + "!!", "Five days"),
        row(asked + " now?", "Never"),
        row(asked + "??", "Five days", "S"),
    ]
    kept, log, _ = applied(put(tmp_path, lines), "Q07")
    assert kept == [lines[0], lines[2], lines[3]]
    assert (log[0]["line"], log[0]["kept_line"]) == (2, 1)


def test_rewriting_keeps_everything_about_the_texts() -> None:
    value = {
        "messages": [
            {"role": "user", "name": "a", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": None, "weight": 1, "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "a", "arguments": '{"a": ["a", 1]}'}}]},
            {"role": "tool", "tool_call_id": "a", "content": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "a", "description": "a"}}],
    }  # fmt: skip
    after = rewrite(value, str.upper)
    assert list(texts(after)) == ["A", "A", "A"]
    assert after["messages"][1]["tool_calls"][0]["function"] == {"name": "a", "arguments": '{"a": ["A", 1]}'}
    assert (after["tools"], after["messages"][0]["name"]) == (value["tools"], "a")
    assert rewrite(value, str) == value


@pytest.mark.parametrize("text", ["a < b and [x]", "<b>bold</b>", "Human: hello", "list[int] | None"])
def test_ordinary_text_has_no_marks(text: str) -> None:
    assert unmarked(None)(text) == text


def test_the_digest_is_equal_where_the_check_finds_rows_equal(tmp_path: Path) -> None:
    lines = [
        GOOD,
        GOOD.upper()
        .replace("MESSAGES", "messages")
        .replace("ROLE", "role")
        .replace("CONTENT", "content")
        .replace("USER", "user")
        .replace("ASSISTANT", "assistant"),
    ]
    lines += [row("q", "a", "s"), row("q", "a", "S "), row("q", "a", "t"), row("q ", "Ａ"), row("q", "a")]
    lines += [
        json.dumps({"prompt": "q", "completion": "a"}),
        json.dumps({"messages": [*chat_row("x", "y")["messages"], *chat_row("q", "a", None)["messages"]]}),
    ]
    path = put(tmp_path, lines)
    with path.open("rb") as file:
        digests = [row_digest(item(r.example, r.line, r.record)) for r in read_rows(file)]
        file.seek(0)
        corpus = survey(file, method="supervised", which="training", target=None, context=Context(), keep=True).corpus
        rows = corpus.rows.load().tolist()
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    assert [digests[i] == digests[j] for i, j in pairs] == [rows[i] == rows[j] for i, j in pairs]


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (["Q09"], "Q09 can't be applied by a machine: which of the different answers is right"),
        (["Q99"], "there is no code Q99; `pegbox clean` applies Q01"),
        (["Q05"], "--model"),
    ],
)
def test_codes_that_need_a_person_say_why(tmp_path: Path, codes: list[str], said: str) -> None:
    with pytest.raises(OutputError, match=said):
        clean(put(tmp_path, [GOOD]), tmp_path / "out.jsonl", codes)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_nothing_is_overwritten_or_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, [GOOD] * 3)
    with pytest.raises(OutputError, match="is the file that is read"):
        clean(path, path, ["Q06"], force=True)
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(OutputError, match="--force"):
        clean(path, tmp_path / "out.jsonl", ["Q06"])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pegbox.data.mending.clean._log_removal", fail)
    with pytest.raises(OSError, match="No space"):
        clean(path, tmp_path / "out.jsonl", ["Q06"], force=True)
    assert (tmp_path / "out.jsonl").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]
    dry = clean(path, None, ["Q06"])
    assert (dry.rows, dry.kept, dry.removed, dry.path) == (3, 1, {"Q06": 2}, None)


def test_utf16_is_refused_rather_than_emptied(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl"
    path.write_text(GOOD, "utf-16")
    with pytest.raises(OutputError, match="pegbox prepare"):
        clean(path, tmp_path / "out.jsonl", ["Q01"])


def test_a_long_line_that_is_kept_is_kept_whole(tmp_path: Path) -> None:
    long = "x" * (9 << 20)
    kept, _, _ = applied(put(tmp_path, [GOOD, long, GOOD]), "Q06")
    assert [len(line) for line in kept] == [len(GOOD), len(long)]


lines = st.lists(
    st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=8)
    | st.builds(row, st.text("ab Ａ\u200b", max_size=3), st.text("ab ", max_size=3))
    | st.sampled_from(
        [GOOD, GOOD + "\r", row("mail a.b@corp-mail.net", "<|im_end|>x"), '{"prompt": "a", "completion": "b"}']
    ),
    max_size=15,
)


@given(lines, st.sets(st.sampled_from(sorted(set(APPLICABLE) - {"Q05"})), min_size=1))
@settings(max_examples=100, deadline=None)
def test_every_row_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, every: list[str], codes: set[str]
) -> None:
    """Whatever the lines hold: a row is kept byte for byte, or named once in the log as changed or removed."""
    path = put(tmp_path_factory.mktemp("clean"), ["first", *every])
    kept, log, result = applied(path, *codes)
    named = {change["line"] for change in log}
    source = ["first", *every]
    wanted = [line for i, line in enumerate(source, 1) if line and not line.isspace() and i not in named]
    assert result.rows == sum(bool(line) and not line.isspace() for line in source)
    assert not Counter(wanted) - Counter(kept)
    if not result.changed:
        assert kept == wanted


def test_faults_put_into_real_data_are_all_taken_out(tmp_path: Path) -> None:
    """Precision and recall of what is removed, and the good rows as they were."""
    if not DATA.is_dir():
        pytest.skip("the shared data sets are not here")
    chance = random.Random(7)
    with (DATA / "gsm8k" / "test.jsonl").open(encoding="utf-8") as file:
        good = [row(r["question"], r["answer"]) for r in map(json.loads, file)]
    faults = [("Q06", good[i]) for i in range(0, 200, 4)]
    faults += [("Q02", json.dumps({"messages": json.loads(good[i])["messages"][::-1]})) for i in range(300, 340)]
    faults += [("Q01", good[i][: len(good[i]) // 2]) for i in range(400, 440)]
    every = list(good)
    for fault in chance.sample(faults, len(faults)):
        every.insert(chance.randint(250, len(every)), fault)
    path = put(tmp_path, [line if isinstance(line, str) else line[1] for line in every])
    truth = {i: line[0] for i, line in enumerate(every, 1) if not isinstance(line, str)}
    kept, log, _ = applied(path, "Q01", "Q02", "Q04", "Q06")
    assert {change["line"]: change["code"] for change in log} == truth
    assert kept == good
