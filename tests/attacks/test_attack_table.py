"""docs/security.md names a test beside each row, and each is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_every_row_of_the_list_is_there() -> None:
    assert {int(n) for n in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)} == set(range(1, 21))


def test_every_test_that_is_named_is_there() -> None:
    files = {path.name: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    for path in re.findall(r"tests/[\w/]+\.py", TEXT):
        assert (ROOT / path).exists(), path
    last = ""
    for file, name in re.findall(r"(test_\w+\.py)?(?:::|`)(test_\w+)(?!\w*\.py)", TEXT):
        last = file or last
        assert any(f"def {name}(" in text for text in files.values()), name
        if file:
            assert f"def {name}(" in files[last], f"{file}::{name}"
