"""What no single module can promise: which libraries load, and what stands nowhere in the source."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pegbox

ROOT = Path(pegbox.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
# They unpickle, or run what they read; a library's own use of them is not ours to ban.
BANNED = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "multiprocessing",
}  # fmt: skip
NEVER = {"torch.load", "eval", "exec", "os.system", "os.popen", "tempfile.mktemp", "subprocess.getoutput"}
HEAVY = ("torch", "transformers", "peft", "matplotlib")


@pytest.mark.parametrize(
    "module", ["pegbox.api.app", "pegbox.cli.main", "pegbox.jobs.prepare", "pegbox.catalog.pull", "pegbox.data.render"]
)
def test_no_heavy_library_is_loaded_by(module: str) -> None:
    code = f"import sys, {module}; print(sorted({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_every_folder_says_what_it_is() -> None:
    for folder in {path.parent for path in SOURCES}:
        init = folder / "__init__.py"
        if folder.name == "versions":  # Alembic reads the files by path
            continue
        assert init.exists(), f"{folder} has no __init__.py"
        if folder != ROOT / "storage" / "migrations":
            assert ast.get_docstring(ast.parse(init.read_text("utf-8"))), f"{init} has no docstring"


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_dangerous_is_called(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not {name for name in imported if name.split(".")[0] in BANNED}
    for call in _calls(tree):
        name = ast.unparse(call.func)
        assert name not in NEVER, f"line {call.lineno}"
        if name.startswith("Auto") and name.endswith(".from_pretrained"):
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert said.get("trust_remote_code") == "False", f"line {call.lineno}"
            if "Model" in name and "gguf_file" not in said:
                assert said.get("use_safetensors") == "True", f"line {call.lineno}"
        for keyword in call.keywords:
            if keyword.arg in ("trust_remote_code", "shell", "allow_pickle"):
                assert ast.unparse(keyword.value) == "False", f"line {call.lineno}: {keyword.arg}"


@pytest.mark.parametrize(
    "word", [r"\bpickle\.", r"trust_remote_code\s*=\s*True", r"shell\s*=\s*True", r"verify\s*=\s*False"]
)
def test_words_that_stand_nowhere(word: str) -> None:
    assert [str(path) for path in SOURCES if re.search(word, path.read_text("utf-8"))] == []


def test_the_version_is_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?\w+)?", pegbox.__version__)
