"""The documents are true to the code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pegbox
from pegbox.queue.states import diagram
from pegbox.settings import Settings

ROOT = Path(__file__).parent.parent


def test_settings_table_is_complete() -> None:
    text = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        assert f"| `PEGBOX_{name.upper()}` | {default} | {field.description} |" in text


def test_status_diagram_is_made_from_the_table() -> None:
    assert diagram() in (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def test_architecture_names_every_room() -> None:
    tree = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    package = Path(pegbox.__file__).parent
    for room in [p for p in package.iterdir() if (p / "__init__.py").exists()]:
        assert f"  {room.name}/ " in tree, room.name
    for module in package.glob("[a-z]*.py"):
        assert module.name in tree, module.name


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_readme_speaks_of_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for path in ("examples/tickets/train.jsonl", "examples/tickets/test.jsonl", "examples/marv/train_ja.jsonl"):
        assert path not in text or (ROOT / path).exists()
    for link in ("docs/settings.md", "docs/codes.md", "ARCHITECTURE.md", "docs/curves.png", "docs/report.png"):
        assert link in text
        assert (ROOT / link).exists(), link


def test_the_readme_client_example_compiles() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")


def test_readme_shows_what_check_prints(smollm2_models: Path) -> None:
    shown = (ROOT / "README.md").read_text("utf-8").split("$ pegbox check examples/desk/tickets_with_faults.jsonl\n")[1]
    command = [sys.executable, "-m", "pegbox.cli.main", "check", "examples/desk/tickets_with_faults.jsonl"]
    env = {**os.environ, "PEGBOX_MODELS_DIR": str(smollm2_models), "COLUMNS": "80"}
    printed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False).stdout
    for line in shown.split("  …")[0].splitlines():
        if not line.startswith("  About "):  # minutes on this machine
            assert line in printed.splitlines()
