"""docs/codes.md tells of every code and kind, and what it tells is true."""

import ast
import itertools
import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import SMOLLM2, write_jsonl
from data.chat_templates import style

import pegbox.data
from pegbox.data import reading
from pegbox.data.check import CHECKS, check
from pegbox.data.formats import parse_row
from pegbox.data.quality import characters, leakage, lengths, markers, preferences, rendering, shapes, turns
from pegbox.data.quality.codes import CODES, Code
from pegbox.data.quality.findings import Finding
from pegbox.data.rows import method_of
from pegbox.data.survey import Target
from pegbox.data.template import load_template

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "codes.md").read_text("utf-8")


@dataclass(frozen=True)
class Section:
    text: str
    bad: list[str]
    good: list[str]


def _sections() -> dict[str, Section]:
    out = {}
    for part in re.split(r'^<a id="', PAGE, flags=re.MULTILINE)[1:]:
        code = re.search(r"^## (Q\d\d): ", part, re.MULTILINE)
        assert code, part[:80]
        blocks = re.findall(r"^(Bad|Good)[^\n]*:\n\n```jsonl\n(.*?)```", part, re.MULTILINE | re.DOTALL)
        rows = {
            name: [line for _, text in blocks if _ == name for line in text.splitlines()] for name in ("Bad", "Good")
        }
        assert code[1] not in out, code[1]
        out[code[1]] = Section(part, rows["Bad"], rows["Good"])
    return out


SECTIONS = _sections()


def test_no_code_is_undocumented_and_none_made_up() -> None:
    assert list(SECTIONS) == sorted(CODES)


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.code)
def test_a_section_says_what_the_table_says(code: Code) -> None:
    section = SECTIONS[code.code]
    assert section.text.startswith(f'{code.name}"></a>\n\n## {code.code}: {code.title}\n\nSeverity: {code.severity}.')
    assert f"**Remedy.** {code.fix}\n" in section.text
    threshold = re.search(r"Threshold: ([^\n]*)", section.text)
    assert threshold
    if code.threshold is None:
        assert threshold[1].startswith("none")
    else:
        spoken = f"{code.threshold:.0%}".replace("%", " %") if code.threshold < 1 else f"{code.threshold:g}"
        assert spoken in threshold[1]
    assert section.bad
    assert section.good


@pytest.mark.parametrize("code", sorted(CODES))
def test_good_rows_are_good(code: str) -> None:
    for line in SECTIONS[code].good:
        value = json.loads(line)
        parse_row(value, method_of(value))


# --- kinds: every one that a module can say is named, and none that no module says -----------------------------

DATA = Path(pegbox.data.__file__).parent
# Kinds that are not written where the finding is made.
TABLES = {
    "Q01": {*(kind for _, kind in reading._SIGNS), "template-refuses", "unknown-format", "bad-field"},
    "Q02": set(turns._KINDS),
    "Q03": set(rendering._KINDS),
    "Q12": set(leakage._SAID),
    "Q13": {*shapes.KINDS, "made-up"},
    "Q15": {f"{word}-{role}" for word in ("long", "short") for role in lengths._ROLES},
    "Q18": {"same-opening", "same-ending", "upper-case-prompts", "upper-case-completions"},
    "Q19": set(markers._KINDS),
    "Q20": set(characters._SAID),
    "Q23": set(preferences._KINDS),
    "Q22": {"unknown-numbers", "unknown-names", "unknown-addresses"},
}


@cache
def _spoken() -> tuple[dict[str, set[str]], set[str]]:
    """The kinds that stand as literals where findings are made, by code; and the codes of places where none stands."""
    literal: dict[str, set[str]] = {}
    open_: set[str] = set()
    for path in [*sorted((DATA / "quality").glob("*.py")), DATA / "reading.py", DATA / "check.py"]:
        tree = ast.parse(path.read_text("utf-8"))
        for call in _calls(tree, "finding"):
            for code, kind in _given(call, tree):
                for one in _literals(code):
                    literal.setdefault(one, set()).update(_literals(kind))
                    open_.update([] if _literals(kind) else [one])
    return literal, open_


def _given(call: ast.Call, tree: ast.Module) -> list[tuple[ast.expr, ast.expr]]:
    """Code and kind of a finding; what the callers give, where both or one are parameters of the function around."""
    around = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and call in ast.walk(f)]
    names = [a.arg for a in around[-1].args.args] if around else []
    at = [names.index(n.id) if isinstance(n, ast.Name) and n.id in names else None for n in call.args[:2]]
    if at == [None, None]:
        return [(call.args[0], call.args[1])]
    method = names[0] == "self"
    callers = _calls(tree, around[-1].name)
    return [tuple(n if i is None else c.args[i - method] for n, i in zip(call.args, at, strict=False)) for c in callers]


def _calls(tree: ast.Module, name: str) -> list[ast.Call]:
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return [n for n in calls if getattr(n.func, "id", getattr(n.func, "attr", "")) == name]


def _literals(node: ast.expr) -> set[str]:
    if isinstance(node, ast.JoinedStr):
        return set()
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_kind_is_documented(code: str) -> None:
    literal, open_ = _spoken()
    assert code in TABLES or code not in open_, "its kinds come from a table that this test does not know"
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", SECTIONS[code].text, re.MULTILINE))
    assert named == literal.get(code, set()) | TABLES.get(code, set())


# --- the bad rows are bad, and the good ones are not, by the check itself --------------------------------------

LIMITS = {"Q04": 400, "Q05": 400}  # about 100 tokens of a real model; the test's tokenizer knows bytes
SPREAD = {"Q11", "Q18"}  # a matter of many rows: all of the file answers so
TICKETS = [json.loads(line) for line in (ROOT / "examples" / "tickets" / "train.jsonl").read_text("utf-8").splitlines()]
random.Random(0).shuffle(TICKETS)
MODEL = Path.home() / ".cache" / "pegbox" / "models" / SMOLLM2


def _padding(code: str) -> list[dict[str, Any]]:
    """Rows without the fault."""
    plain = [{"messages": row["messages"][1:]} for row in TICKETS]
    if code in LIMITS:
        return [row for row in plain if len(str(row)) < 250]
    if code == "Q23":
        pairs = itertools.pairwise(TICKETS)
        return [
            {
                "input": {"messages": row["messages"][:2]},
                "preferred_output": row["messages"][2:],
                "non_preferred_output": [{"role": "assistant", "content": f"no {other['messages'][2]['content']}"}],
            }
            for row, other in pairs
        ]
    return plain if code == "Q03" else TICKETS


def _file(code: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    padding = _padding(code)
    if code in SPREAD:
        said = rows[0]["messages"][-1]["content"]
        padding = [
            {
                "messages": [
                    *user(row),
                    {"role": "assistant", "content": f"{said} This is for {answer(row)}, number {i}."},
                ]
            }
            for i, row in enumerate(padding)
        ]
    return [*padding, *rows]


def user(row: dict[str, Any]) -> list[dict[str, str]]:
    return row["messages"][:-1]


def answer(row: dict[str, Any]) -> str:
    return row["messages"][-1]["content"]


def _findings(code: str, training: list[dict[str, Any]], valid: list[dict[str, Any]], folder: Path) -> list[Finding]:
    if code not in {*reading.CODES, "Q12", *(c for one in CHECKS for c in one.codes)}:
        pytest.skip("the check does not look for it yet")
    template = load_template(MODEL) if code == "Q08" else style("gemma" if code == "Q03" else "chatml")
    target = Target("a-model", MODEL if code == "Q08" else folder, template, LIMITS.get(code, 100_000))
    paths = [write_jsonl(folder / "train.jsonl", training)]
    if valid:
        paths.append(write_jsonl(folder / "valid.jsonl", valid))
    return [found for found in check(*paths, target=target).findings if found.code == code]


def _named(findings: list[Finding], code: str, rows: int, total: int) -> set[int]:
    """Which of the documented rows a code names: they stand last in training, or alone in validation."""
    which, first = ("validation", 1) if code == "Q12" else ("training", total - rows + 1)
    return {n - first for f in findings if f.file == which for n in f.lines if n >= first}


@pytest.mark.parametrize("code", sorted(CODES.keys() - {"Q08", "Q21"}))
def test_bad_rows_are_bad(code: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in SECTIONS[code].bad]
    training = _file(code, rows)
    findings = _findings(code, training, rows if code == "Q12" else [], tmp_path)
    assert findings
    if code not in SPREAD:
        assert _named(findings, code, len(rows), len(training))


@pytest.mark.parametrize("code", sorted(CODES.keys() - {"Q08", "Q21"}))
def test_good_rows_are_not(code: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in SECTIONS[code].good]
    training = [*_padding(code), *([] if code == "Q12" else rows)]
    findings = _findings(code, training, rows if code == "Q12" else [], tmp_path)
    assert not _named(findings, code, len(rows), len(training))


def test_rows_in_order_of_their_answers_are_sorted(tmp_path: Path) -> None:
    """As in the bad rows of Q21, a whole file long; the good ones stand as the examples do."""
    ordered = sorted(TICKETS, key=answer)
    assert _findings("Q21", ordered, [], tmp_path)
    assert not _findings("Q21", TICKETS, [], tmp_path)
    bad, good = ([answer(json.loads(row)) for row in rows] for rows in (SECTIONS["Q21"].bad, SECTIONS["Q21"].good))  # fmt: skip
    assert bad == sorted(bad) == sorted(good) != good


def test_rows_that_say_the_same(tmp_path: Path) -> None:
    if not (MODEL / "config.json").exists():
        pytest.skip(f"{SMOLLM2} is not here, and its word embeddings are needed")
    for rows, found in ((SECTIONS["Q08"].bad, True), (SECTIONS["Q08"].good, False)):
        training = _file("Q08", [json.loads(row) for row in rows])
        findings = _findings("Q08", training, [], tmp_path)
        assert bool(_named(findings, "Q08", len(rows), len(training))) == found
