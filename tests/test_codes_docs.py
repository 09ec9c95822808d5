"""docs/codes.md tells of every code and kind, and what it tells is true."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import pegbox.data
from pegbox.data import reading
from pegbox.data.formats import parse_row
from pegbox.data.quality import characters, lengths, rendering, shapes, turns
from pegbox.data.quality.codes import CODES, Code
from pegbox.data.rows import method_of

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
    "Q13": {*shapes.KINDS, "made-up"},
    "Q15": {f"{word}-{role}" for word in ("long", "short") for role in lengths._ROLES},
    "Q20": set(characters._SAID),
}


def _spoken() -> tuple[dict[str, set[str]], set[str]]:
    """The kinds that stand as literals in calls of `finding`, by code; and the codes of calls where none stands."""
    literal: dict[str, set[str]] = {}
    open_: set[str] = set()
    for path in [*sorted((DATA / "quality").glob("*.py")), DATA / "reading.py", DATA / "check.py"]:
        tree = ast.parse(path.read_text("utf-8"))
        helpers = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding"):
                continue
            codes, kinds = _literals(node.args[0]), _literals(node.args[1])
            if isinstance(node.args[1], ast.Name):  # the parameter of a helper: what its callers say
                kinds = _said_to(node, node.args[1].id, helpers, tree)
            for code in codes:
                literal.setdefault(code, set()).update(kinds)
                open_.update([code] if not kinds or isinstance(node.args[1], ast.JoinedStr) else [])
    return literal, open_


def _literals(node: ast.expr) -> set[str]:
    if isinstance(node, ast.JoinedStr):
        return set()
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def _said_to(call: ast.Call, name: str, helpers: list[ast.FunctionDef], tree: ast.Module) -> set[str]:
    """The literals that the callers of the function around `call` give for its parameter."""
    around = [f for f in helpers if call in ast.walk(f) and any(a.arg == name for a in f.args.args)]
    if not around:
        return set()
    at = next(i for i, a in enumerate(around[-1].args.args) if a.arg == name)
    method = around[-1].args.args[0].arg == "self"
    out: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == around[-1].name:
            out |= _literals(node.args[at - method])
    return out


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_kind_is_documented(code: str) -> None:
    literal, open_ = _spoken()
    assert open_ <= TABLES.keys(), "a finding's kind comes from a table that this test does not know"
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", SECTIONS[code].text, re.MULTILINE))
    assert named == literal.get(code, set()) | TABLES.get(code, set())
