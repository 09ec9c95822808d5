"""`pegbox prepare`, `clean` and `split` as people run them: each in a process of its own."""

import json
import re
from pathlib import Path

import pytest
from conftest import chat_row, write_jsonl
from test_cli import BELL_AND_COLOUR, fails, run


def works(*args: str | Path) -> tuple[str, str]:
    """What is on standard output, and on the error stream."""
    done = run(*args, key=None)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "faq.csv"
    rows = [f"Where is item {i * 7919}?;In room {i}" for i in range(30)]
    path.write_text("\n".join(["Frage;Antwort", *rows, rows[3], "Wo ist Größe?;", "broken"]) + "\n", "cp1252")
    return path


def test_from_a_table_to_two_files(tmp_path: Path, sheet: Path) -> None:
    said = fails("prepare", sheet)
    assert 'they are "Frage", "Antwort". Name them: --prompt COLUMN --completion COLUMN' in said
    columns = ("--prompt", "Frage", "--completion", "Antwort")
    shown, talk = works("prepare", sheet, *columns)
    assert "faq.csv (CSV, Windows-1252)" in shown
    assert "33: 31 ready, 1 unreadable, 1 without a completion" in shown
    assert "Frage = prompt, Antwort = completion" in shown
    assert "row 34: has 1 cells" in shown
    assert '{"messages": [{"role": "user", "content": "Where is item 0?"}' in shown
    assert "Nothing was written" in talk
    assert [path.name for path in tmp_path.iterdir()] == ["faq.csv"]

    out = tmp_path / "rows.jsonl"
    assert "--apply unreadable" in fails("prepare", sheet, *columns, "-o", out)
    assert not out.exists()
    shown, talk = works("prepare", sheet, *columns, "-o", out, "--yes", "--system", "Be brief.")
    assert re.search(r"written +30 rows to ", shown)
    assert re.search(r"left out +Q01: 1, Q04: 1, Q06: 1", shown)
    assert f"pegbox check {out}" in talk
    assert len(out.read_text().splitlines()) == 30
    assert json.loads(out.read_text().splitlines()[0])["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "--force" in fails("prepare", sheet, *columns, "-o", out, "--yes")

    shown, _ = works("split", out, "--valid", "6", "--seed", "3")
    assert "30 rows = 24 train + 6 valid" in shown
    assert len((tmp_path / "rows.valid.jsonl").read_text().splitlines()) == 6
    assert "exists" in fails("split", out)


def test_clean_says_what_it_did_and_what_it_can_not(tmp_path: Path) -> None:
    row = chat_row("Where is it?", "Mail jane.roe@corp-mail.net")
    path = write_jsonl(tmp_path / "train.jsonl", [row, row, chat_row("q", "a")])
    shown, talk = works("clean", path, "--apply", "q06,Q13")
    assert "3 rows = 1 kept + 1 changed + 1 left out" in shown
    assert "Nothing was written" in talk
    out = tmp_path / "clean.jsonl"
    shown, _ = works("clean", path, "--apply", "Q06,Q13", "-o", out)
    assert "«EMAIL»" in out.read_text("utf-8")
    assert str(out) + ".changes.jsonl" in shown
    assert "only you know" in fails("clean", path, "--apply", "Q09")
    assert "Q06  leave out rows that an earlier one equals" in fails("clean", path)
    assert "is the file that is read" in fails("clean", path, "--apply", "Q06", "-o", path, "--force")
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("prepare", "no.csv"), "there is no file no.csv"),
        (("prepare", "a.csv", "--format", "magic"), "there is no format magic"),
        (("prepare", "a.csv", "--delimiter", "ab"), "one character"),
        (("prepare", "a.csv", "-o", "b.jsonl", "--apply", "magic"), 'no remedy "magic"'),
        (("split", "a.csv", "--valid", "1.5"), "--valid is a share"),
        (("split", "a.csv", "--by", "magic"), "there is no --by magic"),
        (("clean", "a.csv", "--apply", "Q06", "--method", "magic"), "there is no method magic"),
    ],
)
def test_what_can_not_be_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("prompt,completion\nq,a\n")
    assert said in fails(*args)


def test_a_table_can_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"prompt,completion,{BELL_AND_COLOUR}\nq{BELL_AND_COLOUR},a,x\n{BELL_AND_COLOUR}\n", "utf-8")
    shown, talk = works("prepare", path, "--delimiter", ",")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown + talk)
