"""A disk that is full, broken or read-only, and a process that may open no more files: each is made by the kernel, not by
a stand-in. What can't be done is said in the API's own shape, nothing half-made is left, and when the fault is gone the
server goes on without hands."""

import contextlib
import errno
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import KEY, Server, ServerMaker, finished, rows
from faulty_disk import injected, is_sound, left, said, send
from following import jsonl
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from pegbox.errors import StorageBroken, StorageFull
from pegbox.storage.trouble import trouble

MIB = 2**20


@contextlib.contextmanager
def limited(running: Server, what: int, soft: int) -> Iterator[None]:
    """Set a limit of a process that runs."""
    assert running.process is not None
    before = resource.prlimit(running.process.pid, what)
    resource.prlimit(running.process.pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(running.process.pid, what, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


# --- no room -----------------------------------------------------------------------------------------------------


def test_a_full_disk(small_disk: Path, tiny_catalog: Path) -> None:
    """Upload after upload until the disk is full to the last byte; then room again."""
    running = Server(small_disk / "data", tiny_catalog, {"PEGBOX_KEEP_FREE_BYTES": "0"}).start()
    try:
        kept = send(running, b"kept" * 1000).json()["id"]
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while out.write(bytes(MIB)):
                pass
        assert shutil.disk_usage(small_disk).free == 0
        text = said(send(running, b"x" * 3 * MIB), 507, "insufficient_storage")
        assert "MiB" in text
        assert said(send(running, b"y"), 507, "insufficient_storage"), "not even a small one"
        with running.http() as http:
            assert http.get(f"/files/{kept}/content").content == b"kept" * 1000, "reading goes on"
        assert left(running) == []
        ballast.unlink()
        assert send(running, b"z" * MIB).status_code == 200, "and without a restart"
    finally:
        running.close()
    is_sound(small_disk / "data")


def test_a_write_that_comes_to_the_end_of_the_disk_midway(new_server: ServerMaker) -> None:
    """A limit on the size of a file: the kernel takes a part of a write and refuses the rest."""
    running = new_server()
    with limited(running, resource.RLIMIT_FSIZE, MIB):
        said(send(running, b"x" * 3 * MIB), 507, "insufficient_storage")
        assert left(running) == []
        assert send(running, b"x" * 1000).status_code == 200
    assert send(running, b"x" * 3 * MIB).status_code == 200
    running.stop()
    is_sound(running.data_dir)


def test_an_upload_without_room_is_refused_before_its_body(new_server: ServerMaker) -> None:
    running = new_server(PEGBOX_MAX_STORED_BYTES=str(2 * MIB))
    form = {"content-type": "multipart/form-data; boundary=b"}
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as wire:
        lines = ["POST /v1/files HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {KEY}", "expect: 100-continue"]
        lines += [f"content-type: {form['content-type']}", f"content-length: {300 * MIB}", "", ""]
        wire.sendall("\r\n".join(lines).encode())
        assert b" 507 " in wire.recv(100), "before a byte of the body was sent"
    assert "quota of 2.0 MiB" in said(send(running, b"x" * 3 * MIB), 507, "insufficient_storage")
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    with running.http() as http:  # one that does not say how long it is
        answer = http.post("/files", content=(part for part in (head, *[b"x" * MIB] * 4)), headers=form)
    said(answer, 507, "insufficient_storage")
    assert left(running) == []
    assert send(running, b"x" * 1000).status_code == 200


def test_a_job_without_room_fails_before_it_starts(new_server: ServerMaker) -> None:
    running = new_server()
    file_id = send(running, jsonl(rows(12))).json()["id"]
    running.stop()
    running.settings = {**running.settings, "PEGBOX_KEEP_FREE_BYTES": str(2**60)}
    running.start()
    client = running.client()
    job = finished(client, client.fine_tuning.jobs.create(model="tiny", training_file=file_id).id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "insufficient_storage", job.error
    assert "MiB free on the disk" in job.error.message


# --- a disk that refuses, and other limits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", "EIO"),
        ("blobs", "EIO"),
        ("pegbox.db-wal", "EIO"),
        ("blobs", "EROFS"),
        ("pegbox.db-wal", "ENOSPC"),
        ("", "ENOSPC"),
    ],
)
def test_a_flush_that_fails_fails_the_upload(new_server: ServerMaker, path: str, error: str) -> None:
    """Of the bytes, of the folder that holds their name, of the database's log: nothing is acknowledged."""
    running = new_server()
    assert send(running, b"before").status_code == 200
    with injected(running, "fsync", f"error={error}", below=path):
        answer = send(running, b"x" * 1000)
    full = error == "ENOSPC" and not path  # SQLite has one word for all that a flush may say
    said(answer, *((507, "insufficient_storage") if full else (503, "storage_unavailable")))
    assert left(running) == []
    with running.http() as http:
        assert len(http.get("/files").json()["data"]) == 1, "what was not acknowledged is not shown"
    assert send(running, b"after").status_code == 200
    running.stop()
    is_sound(running.data_dir)


def test_too_many_open_files(new_server: ServerMaker) -> None:
    running = new_server()
    with running.http() as http:
        assert http.get("/models").status_code == 200  # this connection is open already
        assert running.process is not None
        with limited(running, resource.RLIMIT_NOFILE, 3):
            form = {"files": {"file": ("f", b"x")}, "data": {"purpose": "fine-tune"}}
            said(http.post("/files", **form), 503, "storage_unavailable")
        assert http.post("/files", **form).status_code == 200
    running.stop()
    is_sound(running.data_dir)


def test_a_read_only_disk_stops_the_start_with_a_sentence(small_disk: Path, tiny_catalog: Path) -> None:
    running = Server(small_disk / "data", tiny_catalog, {"PEGBOX_KEEP_FREE_BYTES": "0"}).start()
    running.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    command = [sys.executable, "-m", "pegbox.cli.main", "serve", "--data-dir", str(small_disk / "data"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    running.start()
    assert send(running, b"x").status_code == 200
    running.close()


# --- the words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(errno.ENOSPC, ""), StorageFull), (OSError(errno.EDQUOT, ""), StorageFull), (OSError(errno.EFBIG, ""), StorageFull),
        (OSError(errno.EIO, ""), StorageBroken), (OSError(errno.EROFS, ""), StorageBroken), (OSError(errno.EMFILE, ""), StorageBroken),
        (OperationalError("", {}, Exception("database or disk is full")), StorageFull),
        (OperationalError("", {}, Exception("disk I/O error")), StorageBroken),
        (OperationalError("", {}, Exception("attempt to write a readonly database")), StorageBroken),
        (OperationalError("", {}, Exception("unable to open database file")), StorageBroken),
        (OperationalError("", {}, Exception("database is locked")), StorageBroken),
        (OperationalError("", {}, Exception("database disk image is malformed")), StorageBroken),
        (OperationalError("", {}, LockNotAvailable("canceling statement due to lock timeout")), StorageBroken),
        (OSError(errno.ENOENT, ""), type(None)), (ValueError(), type(None)),
        (OperationalError("", {}, Exception("no such table: files")), type(None)),
    ],
)  # fmt: skip
def test_what_each_refusal_is_called(error: Exception, wanted: type) -> None:
    assert type(trouble(error)) is wanted
