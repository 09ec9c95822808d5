"""Files go in and out byte for byte, at any size in little memory, whatever the form looks like."""

import base64
import hashlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai
import psutil
import pytest
from answers import check_error, check_headers
from conftest import KEY, Server, ServerMaker
from openai import OpenAI

MIB = 1 << 20
BLOCK = hashlib.shake_256(b"block").digest(MIB)
BOUNDARY = "pegboxtestboundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
PURPOSE = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'.encode()
FILE = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
    "Content-Type: application/octet-stream\r\n\r\n"
).encode()
END = f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http
        for file in http.get("/files").json()["data"]:
            http.delete(f"/files/{file['id']}")


def big_form(blocks: int) -> tuple[Iterator[bytes], str]:
    """A form that holds this many MiB, made as it is sent; and its length."""
    head, tail = PURPOSE + FILE, b"\r\n" + END

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(blocks):
            yield BLOCK
        yield tail

    return pieces(), str(len(head) + blocks * MIB + len(tail))


@contextmanager
def memory_of(running: Server) -> Iterator[list[int]]:
    """How many bytes the server's memory grew by, at most, as the list's only number."""
    assert running.process is not None
    process = psutil.Process(running.process.pid)
    before = process.memory_info().rss
    seen = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen[0] = max(seen[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def test_the_largest_file_takes_little_memory(server: Server, http: httpx.Client):
    if shutil.disk_usage(server.data_dir).free < 2 << 30:
        pytest.skip("less than 2 GB of disk are free")
    small = http.post("/files", files={"file": ("a", b"warm")}, data={"purpose": "fine-tune"}).json()
    http.get(f"/files/{small['id']}/content")
    pieces, length = big_form(512)
    with memory_of(server) as grown:
        answer = http.post("/files", content=pieces, headers={**FORM, "content-length": length}, timeout=300)
        assert answer.status_code == 200, answer.text
        file = answer.json()
        assert file["bytes"] == 512 * MIB
        received, wanted = hashlib.sha256(), hashlib.sha256()
        with http.stream("GET", f"/files/{file['id']}/content") as download:
            assert download.headers["content-length"] == str(512 * MIB)
            for chunk in download.iter_raw():
                received.update(chunk)
    for _ in range(512):
        wanted.update(BLOCK)
    assert received.digest() == wanted.digest()
    assert grown[0] < 32 * MIB, f"the server grew by {grown[0] / MIB:.0f} MiB"
    assert http.delete(f"/files/{file['id']}").json() == {"id": file["id"], "object": "file", "deleted": True}
    assert not list((server.data_dir / "blobs").glob(f"{file['id']}*"))


def test_a_file_over_the_limit(new_server: ServerMaker):
    """The client reads a 413, though it is still sending; and nothing of the file stays."""
    running = new_server(PEGBOX_MAX_FILE_BYTES=str(MIB - 1))
    cases = [(1, True, "file_too_large"), (1, False, "file_too_large"), (200, True, "request_too_large")]
    with running.http() as http:
        for blocks, told, code in cases:
            pieces, length = big_form(blocks)
            answer = http.post(
                "/files", content=pieces, headers={**FORM, **({"content-length": length} if told else {})}
            )
            check_error(answer, 413, code=code, message="larger than the .* bytes allowed")
            assert incoming(running) == []
            assert http.get("/files").json()["data"] == []
        least = http.post("/files", files={"file": ("a", BLOCK[1:])}, data={"purpose": "fine-tune"})
        assert least.status_code == 200, "one byte less is allowed"


def incoming(running: Server) -> list[str]:
    parts = (running.data_dir / "blobs" / "incoming").glob("*/*")  # a folder a process, which holds a lock in it
    return [path.name for path in parts if path.name != "alive.lock"]


MISSING = "missing_required_parameter"
FORMS = {
    # what is sent after the headers, the error's param and code, its message
    "no file": (PURPOSE + END, "file", MISSING, "Missing required parameter: 'file'"),
    "no purpose": (FILE + b"{}\r\n" + END, "purpose", MISSING, "Missing required parameter: 'purpose'"),
    "empty purpose": (PURPOSE.replace(b"fine-tune", b"") + FILE + b"{}\r\n" + END, "purpose", MISSING, "Missing"),
    "purpose of our own": (
        PURPOSE.replace(b"fine-tune", b"fine-tune-results") + FILE + b"{}\r\n" + END, "purpose", "invalid_value", "is not one of",
    ),
    "two files": (PURPOSE + FILE + b"{}\r\n" + FILE + b"{}\r\n" + END, "file", None, "more than one file"),
    "no end": (PURPOSE + FILE + b"{}\r\n", None, None, "no end; the upload broke off"),
    "no end, in a field": (PURPOSE[:-8], None, None, "no end"),
    "nothing": (b"", None, None, "no end"),
    "another boundary": (PURPOSE.replace(BOUNDARY.encode(), b"other") + END, None, None, "malformed"),
    "no form at all": (b"{}", None, None, "malformed"),
    "a field without end": (PURPOSE[:-2] + b"x" * 40_000 + b"\r\n" + END, "purpose", None, "fields are too long"),
    "a header without end": (f"--{BOUNDARY}\r\nX: ".encode() + b"x" * 40_000, None, None, "malformed"),
    "fields without end": (
        b"".join(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f{i}"\r\n\r\n\r\n'.encode() for i in range(99)) + END,
        "f16", None, "more than 16 fields",
    ),
    "expiry": (
        PURPOSE.replace(b"purpose", b"expires_after[seconds]").replace(b"fine-tune", b"60") + PURPOSE + FILE + b"{}\r\n" + END,
        "expires_after", "invalid_value", "between 3600 and 2592000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_bad_forms(server: Server, http: httpx.Client, name: str):
    content, param, code, message = FORMS[name]
    before = [file["id"] for file in http.get("/files").json()["data"]]
    check_error(http.post("/files", content=content, headers=FORM), 400, param=param, code=code, message=message)
    assert incoming(server) == []
    assert [file["id"] for file in http.get("/files").json()["data"]] == before


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data", f"multipart/mixed; boundary={BOUNDARY}", "text/plain", ""]
)
def test_what_is_no_form(http: httpx.Client, kind: str):
    answer = http.post("/files", content=PURPOSE + FILE + END, headers={"content-type": kind})
    check_error(answer, 400, message="Send the file as multipart/form-data")


@pytest.mark.parametrize(
    "content",
    [
        PURPOSE + FILE + b"abc\r\n" + END,
        FILE + b"abc\r\n" + PURPOSE + END,
        FILE + b"abc\r\n" + PURPOSE + END.rstrip(),
        PURPOSE + FILE + b"abc\r\n" + END + b"what stands after the end",
        PURPOSE.replace(b"purpose", b"model") + PURPOSE + FILE + b"abc\r\n" + END,  # openai 0.28 may send a model
        PURPOSE + FILE.replace(b"; filename", b"; ignored") + b"abc\r\n" + END,
        PURPOSE.replace(b"Content-Disposition", b"content-disposition") + FILE + b"abc\r\n" + END,
    ],
)
def test_forms_that_are_taken(http: httpx.Client, content: bytes):
    """The purpose before the file or after it; and sent in one piece or byte by byte."""
    for body in (content, (content[i : i + 1] for i in range(len(content)))):
        answer = http.post("/files", content=body, headers=FORM)
        assert answer.status_code == 200, answer.text
        check_headers(answer)
        assert http.get(f"/files/{answer.json()['id']}/content").content == b"abc"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\r\n--" + BOUNDARY.encode(), bytes(range(256)) * 300, b"\r\n" * 70_000, "\ufeffé\u2028".encode()],
)
def test_what_went_in_comes_out(client: OpenAI, http: httpx.Client, content: bytes):
    file = client.files.create(file=("data.bin", content), purpose="user_data")
    assert (file.bytes, file.status) == (len(content), "processed")
    answer = http.get(f"/files/{file.id}/content")
    assert answer.content == content == client.files.content(file.id).read()
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    check_headers(answer)
    encoded = http.get(f"/files/{file.id}/content", params={"encoding": "base64"})
    assert base64.b64decode(encoded.content, validate=True) == content
    wrong = http.get(f"/files/{file.id}/content", params={"encoding": "rot13"})
    check_error(wrong, 400, param="encoding", code="invalid_value")


NAMES = [
    "../../x", "/etc/passwd", "..", "", 'a"b.jsonl', "a'b;c=d.jsonl", "a\nb\r\nc.jsonl", "日本語.jsonl", "ü.jsonl", "a%20b", "a\\b",
    "\U0001f600" * 50, "x" * 1000, "COM1", "-rf",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_label_and_never_a_path(server: Server, http: httpx.Client, name: str):
    before = {path for path in server.data_dir.rglob("*") if "incoming" not in path.parts}
    answer = http.post("/files", files={"file": (name, b"abc")}, data={"purpose": "fine-tune"})
    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert file["filename"] == (name or "file")
    new = {path for path in server.data_dir.rglob("*") if "incoming" not in path.parts} - before
    assert [path for path in new if "pegbox.db" not in path.name] == [server.data_dir / "blobs" / file["id"]]
    download = http.get(f"/files/{file['id']}/content")
    assert download.content == b"abc"
    assert download.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert http.get(f"/files/{file['id']}").json() == file


def test_a_name_that_is_too_long_is_refused(http: httpx.Client):
    answer = http.post("/files", files={"file": ("x" * 10_000, b"abc")}, data={"purpose": "fine-tune"})
    check_error(answer, 400, message="malformed")


def test_an_upload_that_breaks_off_leaves_nothing(server: Server, http: httpx.Client):
    before = http.get("/files").json()["data"]
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        wire.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {100 * MIB}\r\n"
            f"Content-Type: {FORM['content-type']}\r\n\r\n".encode()
        )
        wire.sendall(PURPOSE + FILE)
        for _ in range(10):
            wire.sendall(BLOCK)
        wait_for(lambda: len(incoming(server)) == 1, "the upload to begin")
    wait_for(lambda: incoming(server) == [], "the half file to go")
    assert http.get("/files").json()["data"] == before


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("told", [True, False])
def test_a_wrong_key_on_a_big_upload(server: Server, told: bool):
    """The answer arrives, though the server never took the file; the connection stays fit for use."""
    with httpx.Client(base_url=server.base_url, headers={"authorization": "Bearer sk-wrong"}, timeout=60) as http:
        pieces, length = big_form(100)
        answer = http.post("/files", content=pieces, headers={**FORM, **({"content-length": length} if told else {})})
        check_error(answer, 401, code="invalid_api_key", message="Incorrect API key")
        assert incoming(server) == []
        assert http.get("/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_client_that_reads_only_when_it_has_sent_all(server: Server):
    """A closed connection would break its pipe in the middle."""
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        wire.settimeout(60)
        wire.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-wrong\r\nContent-Length: {100 * MIB}\r\n"
            f"Content-Type: {FORM['content-type']}\r\n\r\n".encode()
        )
        for _ in range(100):
            wire.sendall(BLOCK)
        assert wire.recv(65_536).startswith(b"HTTP/1.1 401 ")
        wire.sendall(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        assert wire.recv(65_536).startswith(b"HTTP/1.1 200 "), "the connection stays fit for use"


def test_a_wrong_key_in_the_stock_client(server: Server):
    with (
        OpenAI(base_url=server.base_url, api_key="sk-wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        wrong.files.create(file=("a.jsonl", BLOCK * 64), purpose="fine-tune")
    assert caught.value.code == "invalid_api_key"


def test_a_client_that_asks_before_it_sends_is_spared_the_sending(server: Server):
    """`Expect: 100-continue`, as curl sends it: 401 at once, and the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port)) as wire:
        wire.settimeout(20)
        wire.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-wrong\r\nContent-Length: {100 * MIB}\r\n"
            f"Content-Type: {FORM['content-type']}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        received = b""
        while chunk := wire.recv(65_536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"invalid_api_key" in received


def test_files_expire(client: OpenAI):
    file = client.files.create(
        file=("a.jsonl", b"{}"), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    client.files.delete(file.id)
