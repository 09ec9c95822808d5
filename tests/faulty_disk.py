"""A disk that refuses or is slow, made by the kernel, and what a server on it says and leaves behind."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import Server

from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.upkeep.store import references
from pegbox.upkeep.verify import damage


def send(running: Server, content: bytes, **options: object) -> httpx.Response:
    with running.http() as http:
        form = {"files": {"file": ("rows.jsonl", content)}, "data": {"purpose": "fine-tune"}}
        return http.post("/files", **{**form, **options})


def said(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", code)
    return str(error["message"])


def left(running: Server) -> list[str]:
    """Half-written things."""
    parts = (running.data_dir / "blobs" / "incoming").glob("*/*")
    return [path.name for path in parts if path.name != "alive.lock"]


def is_sound(root: Path) -> None:
    db = Database(root / "pegbox.db")
    with db.read() as tx:
        assert damage(Blobs(root / "blobs").root, references(tx)) == []
    db.close()


@contextlib.contextmanager
def injected(running: Server, calls: str, what: str, below: str = "") -> Iterator[None]:
    """From now on those system calls of the server, and of its children, go wrong as strace says (`error=EIO`,
    `delay_enter=300ms`); for one path of its data directory only, if one is named."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert running.process is not None
    server = psutil.Process(running.process.pid)
    family = [server, *server.children(recursive=True)]
    command = ["strace", "-f", "-qq", "-e", f"trace={calls}", "-e", f"inject={calls}:{what}", "-o", "/dev/null"]
    command += [word for process in family for word in ("-p", str(process.pid))]
    if below:
        command += ["-P", str((running.data_dir / below).resolve())]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    states = [Path(f"/proc/{process.pid}/status") for process in family]
    try:
        deadline = time.monotonic() + 20
        while any("TracerPid:\t0\n" in state.read_text("ascii") for state in states):
            if tracer.poll() is not None or time.monotonic() > deadline:
                pytest.skip("a process may not be traced here")
            time.sleep(0.05)
        yield
    finally:
        tracer.terminate()
        tracer.communicate()
