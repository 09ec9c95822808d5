"""docs/codes.md tells of every code and kind, and what it tells is true."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import pegbox.data
from pegbox.data.formats import parse_row
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


def _kinds() -> dict[str, set[str]]:
    """The kinds in the code: the second argument of each call of `finding`, by the code in the first. Where either is
    no literal, the strings of the module count under each of its codes."""
    data = Path(pegbox.data.__file__).parent
    out: dict[str, set[str]] = {}
    for path in [*sorted((data / "quality").glob("*.py")), data / "check.py"]:
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding":
                code, kind = _literals(node.args[0]), _literals(node.args[1])
                for one in code:
                    out.setdefault(one, set()).update(kind)
    return out


def _literals(node: ast.expr) -> list[str]:
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_kind_is_documented(code: str) -> None:
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", SECTIONS[code].text, re.MULTILINE))
    assert named == _kinds().get(code, set())
