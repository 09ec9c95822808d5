"""Row 14 of the attack table: nobody else on the machine reads or swaps what the server keeps."""

import ast
import json
import os
import stat
from pathlib import Path

import pytest
from conftest import ServerMaker, finished, rows, upload_bytes

import pegbox

ROOT = Path(pegbox.__file__).parent


def loose(root: Path) -> list[str]:
    """What users other than the owner may read, write or enter."""
    found = [root, *root.rglob("*")]
    return [f"{path} {oct(path.stat().st_mode)}" for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.fixture
def _generous_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_generous_umask")
def test_all_that_a_server_writes_is_its_users_alone(new_server: ServerMaker, tmp_path: Path) -> None:
    """Under an umask that would let everybody in: an upload, a report, a job to its end, a chat."""
    shared = tmp_path / "shared-tmp"
    shared.mkdir()
    running = new_server(TMPDIR=str(shared))
    client = running.client()
    content = "".join(json.dumps(row) + "\n" for row in rows(12)).encode()
    file_id = upload_bytes(client, content)
    with running.http() as http:
        assert http.get(f"/files/{file_id}/report").status_code == 200
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file_id, hyperparameters={"n_epochs": 1, "batch_size": 4}
    )
    ended = finished(client, job.id)
    assert ended.status == "succeeded", ended.error
    asked = [{"role": "user", "content": "a"}]
    client.chat.completions.create(model=ended.fine_tuned_model, messages=asked, max_tokens=1)  # type: ignore[arg-type]
    running.stop()
    names = {path.name for path in running.data_dir.rglob("*")}
    assert {"pegbox.db", "recipe.json", "adapter_model.safetensors", "receipt.json"} <= names
    assert loose(running.data_dir) == []
    assert list(shared.iterdir()) == [], "nothing with a name lies in the shared temporary folder"


NAMED = {
    "mktemp",
    "mkstemp",
    "mkdtemp",
    "NamedTemporaryFile",
    "TemporaryDirectory",
    "SpooledTemporaryFile",
    "gettempdir",
}


def test_no_named_temporary_files() -> None:
    """`tempfile.TemporaryFile` makes files without a name, which nobody can find or swap."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert name not in NAMED, f"{path}, line {node.lineno}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith(("/tmp", "/var/tmp")), f"{path}, line {node.lineno}"
