"""`pegbox check` as people run it: a process of its own, no server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import chat_row, rows, write_jsonl

CLI = [sys.executable, "-m", "pegbox.cli.main", "check"]


@pytest.fixture
def check(tiny_catalog: Path, tmp_path: Path):
    """Run the command; the finished process, with its output as text."""

    def run(*args: str | Path, models: Path | None = tiny_catalog) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PEGBOX_", "OPENAI_", "COLUMNS"))}
        env |= {"PEGBOX_MODELS_DIR": str(models), "PEGBOX_DATA_DIR": str(tmp_path / "data")}
        done = subprocess.run(
            [*CLI, *map(str, args)], env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def file(tmp_path: Path):
    return lambda content, name="train.jsonl": write_jsonl(tmp_path / name, content)


CLASH = [chat_row("What colour is the sky today?", "blue"), chat_row("What colour is the sky today?", "red")]


def test_a_good_file_is_told_in_a_screen(check, file):
    done = check(file(rows(40)))
    assert done.returncode == 0
    assert done.stdout.startswith("Nothing that must be mended before you train")
    assert "train.jsonl: 40 rows read, all used." in done.stdout
    assert "3 epochs on smollm2-135m-instruct" in done.stdout
    assert len(done.stdout.splitlines()) <= 40
    assert done.stderr == ""


def test_json_says_the_same_to_a_program(check, file):
    done = check(file([*rows(20), *CLASH]), "--json", "--fail-on", "never")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    clash = next(f for f in report["findings"] if f["code"] == "Q09")
    assert (clash["severity"], clash["lines"]) == ("warning", [21, 22])
    assert report["training"]["rows"] == 22
    assert report["estimate"]["jobs"] == 0


@pytest.mark.parametrize(
    ("policy", "status"),
    [("error", 0), ("warning", 1), ("info", 1), ("never", 0), ("Q09", 1), ("q09,Q12", 1), ("Q12", 0), ("error,Q09", 1)],
)
def test_the_exit_status_follows_the_policy(check, file, policy, status):
    assert check(file([*rows(20), *CLASH]), "--fail-on", policy).returncode == status


def test_a_bad_row_fails_by_default_and_is_named(check, file, tmp_path):
    path = file(rows(12))
    path.write_text(path.read_text() + "{oops\n")
    done = check(path)
    assert done.returncode == 1
    assert "line 13" in done.stdout.lower()
    assert "12 used" in done.stdout.replace("\n", " ")


def test_sarif_and_html(check, file, tmp_path):
    path = file([*rows(20), *CLASH])
    sarif = json.loads(check(path, "--sarif").stdout)
    places = [
        result["locations"][0]["physicalLocation"]
        for result in sarif["runs"][0]["results"]
        if result["ruleId"] == "Q09"
    ]
    assert places[0]["artifactLocation"]["uri"].endswith("train.jsonl")
    assert {place["region"]["startLine"] for place in places} <= {21, 22}
    page = tmp_path / "report.html"
    done = check(path, "--html", page)
    assert "Wrote" in done.stderr
    assert page.read_text("utf-8").lstrip().lower().startswith("<!doctype html>")


def test_a_validation_file_is_compared(check, file):
    done = check(file(rows(30)), "--valid", file(rows(30)[:3] + rows(50)[40:], "valid.jsonl"), "--json")
    report = json.loads(done.stdout)
    leak = next(f for f in report["findings"] if f["code"] == "Q12" and f["kind"] == "same-row")
    assert (leak["file"], leak["lines"]) == ("validation", [1, 2, 3])
    assert report["validation"]["rows"] == 13


def test_preference_pairs_are_known_by_their_keys(check, file):
    pair = {
        "input": {"messages": [{"role": "user", "content": "Tell me"}]},
        "preferred_output": [{"role": "assistant", "content": "Gladly."}],
        "non_preferred_completion": [{"role": "assistant", "content": "No."}],
    }
    report = json.loads(check(file([pair] * 12), "--json").stdout)
    assert (report["training"]["method"], report["training"]["used"]) == ("dpo", 12)


def test_quick_says_what_it_leaves_out(check, file):
    done = check(file(rows(20)), "--quick", "--price", "8")
    assert "not asked for" in done.stdout
    assert "cost" in done.stdout


def test_without_a_model_here_tokens_are_not_counted(check, file, tmp_path):
    (tmp_path / "none").mkdir()
    done = check(file(rows(20)), models=tmp_path / "none")
    assert done.returncode == 0
    assert "pegbox models pull" in done.stderr
    assert "20 rows read, all used" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{file}", "--model", "nope"], "there is no base model nope"),
        (["{file}", "--fail-on", "sometimes"], "--fail-on takes"),
        (["{file}", "--method", "magic"], "no method magic"),
        (["missing.jsonl"], "there is no file missing.jsonl"),
        (["{file}", "--valid", "missing.jsonl"], "there is no file missing.jsonl"),
    ],
)
def test_what_can_not_be_done_is_said(check, file, args, said):
    path = file(rows(12))
    done = check(*(arg.format(file=path) for arg in args))
    assert done.returncode == 1
    assert said in done.stderr


def test_the_time_that_may_be_spent_is_kept_and_what_was_left_out_is_named(check, file):
    report = json.loads(check(file(rows(40)), "--seconds", "0", "--json").stdout)
    assert report["not_run"]["Q09"] == "no time was left"
    assert report["training"]["used"] == 40
