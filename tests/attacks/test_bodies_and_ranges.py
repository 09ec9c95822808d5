"""Rows 13, 15 and 16 of the attack table, where no other test has them: byte ranges, packed bodies, pictures, odd JSON
in both places, a body and an uploaded line."""

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
from conftest import KEY, SMOLLM2, Server, chat_row, finished, rows, upload_bytes
from openai import OpenAI

MIB = 1 << 20


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


def error_of(answer: httpx.Response, status: int) -> dict[str, str | None]:
    """The error object, which is all that the answer holds."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    return body["error"]


def jsonl(lines: list[object]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


# --- row 13: ranges ------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 400
RANGES = [
    "bytes=0-0", "bytes=-1", "bytes=5-", "bytes=100000000-", "bytes=9-1", "bytes=0-,0-,0-",
    "bytes=" + ",".join(f"{i}-" for i in range(1_000)), "bytes=" + "0" * 20_000 + "-1", "bytes=--1", "lines=1-2", "\xff",
]  # fmt: skip


@pytest.mark.parametrize("asked", RANGES, ids=lambda text: text[:16].encode().hex())
def test_content_knows_no_ranges(client: OpenAI, http: httpx.Client, asked: str) -> None:
    """One answer to all: the whole file once, as the standard allows. Nothing is parsed, so nothing can blow up."""
    file = client.files.create(file=("a.bin", CONTENT), purpose="user_data")
    for more in (
        {},
        {"if-range": '"x"'},
        {"if-none-match": "*"},
        {"if-modified-since": "Sun, 06 Nov 2094 08:49:37 GMT"},
    ):
        answer = http.get(f"/files/{file.id}/content", headers={"range": asked.encode("latin-1"), **more})
        assert (answer.status_code, answer.content) == (200, CONTENT)
        assert not {"content-range", "etag", "accept-ranges"} & set(answer.headers)
    client.files.delete(file.id)


# --- row 15: packed bodies, pictures -------------------------------------------------------------------------

PACKED = [
    "gzip",
    "GZIP",
    "x-gzip",
    "deflate",
    "br",
    "zstd",
    "compress",
    "identity, gzip",
    "gzip, identity",
    "aes128gcm",
    "?",
]
BODY = json.dumps({"model": SMOLLM2, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}).encode()


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize("path", ["/chat/completions", "/fine_tuning/jobs", "/files", "/nothing"])
def test_a_packed_body_is_refused(http: httpx.Client, path: str, encoding: str) -> None:
    error = error_of(http.post(path, content=gzip.compress(BODY), headers={"content-encoding": encoding}), 415)
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error", None, "unsupported_content_encoding",
    )  # fmt: skip
    assert error["message"] == (
        f"Content-Encoding '{encoding}' is not supported; send the body as it is, without compression."
    )


def test_a_second_header_hides_no_packing(http: httpx.Client) -> None:
    for encodings in (["identity", "gzip"], ["gzip", "identity"], ["", "br"]):
        headers = [("content-encoding", encoding) for encoding in encodings]
        error_of(http.post("/chat/completions", content=BODY, headers=headers), 415)


def test_what_is_not_packed_may_say_so(http: httpx.Client) -> None:
    for encoding in ("identity", "Identity", ""):
        answer = http.post("/chat/completions", content=BODY, headers={"content-encoding": encoding})
        assert answer.status_code == 200, answer.text


def test_a_packed_body_is_refused_before_it_is_read(server: Server) -> None:
    """A bomb is announced and never sent; the answer comes all the same. Without a key nobody learns even that."""
    for key, status in ((KEY, b"415"), ("sk-wrong", b"401")):
        with socket.create_connection(("127.0.0.1", server.port)) as wire:
            wire.settimeout(20)
            wire.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Encoding: gzip\r\nContent-Length: {MIB}\r\n\r\n".encode()
            )
            assert wire.recv(65_536).split(b" ", 2)[1] == status


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_an_uploaded_archive_stays_packed(client: OpenAI, http: httpx.Client, pack: object) -> None:
    """100 MB in 100 kB: stored as it came, and no training file."""
    bomb = pack(b"x" * 100_000_000)  # type: ignore[operator]
    file = client.files.create(file=("bomb.jsonl.gz", bomb), purpose="fine-tune")
    assert file.bytes == len(bomb)
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    error = finished(client, job.id).error
    assert error is not None
    assert error.code in ("invalid_file_format", "invalid_training_file")
    assert http.get(f"/files/{file.id}/content").content == bomb


def test_no_answer_is_packed(http: httpx.Client) -> None:
    answer = http.get("/models", headers={"accept-encoding": "gzip, br"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x.png", "data:image/png;base64,AAAA", "file:///etc/passwd"])
def test_a_picture_is_neither_fetched_nor_opened(http: httpx.Client, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        part = {"type": "image_url", "image_url": {"url": url.format(port=listening.getsockname()[1])}}
        body = {"model": SMOLLM2, "messages": [{"role": "user", "content": [part]}]}
        error = error_of(http.post("/chat/completions", json=body), 400)
        assert "image_url" in str(error["message"])
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


# --- row 16: JSON in both places -----------------------------------------------------------------------------

TEXT = json.dumps(chat_row("Question?", "yes", None))
# What stands in the place of a good row → a word of the reason. A body and a line are read by the same function.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "100,000 brackets": (b'{"messages": ' + b"[" * 100_000, ""),
    "100,000 brackets, closed": (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 64 levels"),
    "100,000 objects": (b'{"messages":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 64 levels"),
    "65 levels": (b'{"messages": ' + b"[" * 65 + b"]" * 65 + b"}", "nested more than 64 levels"),
    "NaN": (b'{"messages": NaN}', "NaN is not JSON"),
    "-Infinity": (b'{"messages": -Infinity}', "-Infinity is not JSON"),
    "1e999": (b'{"messages": 1e999}', "1e999 is too large"),
    "-1e999": (b'{"messages": -1e999}', "-1e999 is too large"),
    "duplicate keys": (b'{"messages": [], "messages": []}', 'the key "messages" appears twice'),
    "duplicate keys, escaped": (rb'{"messages": [], "m\u0065ssages": []}', 'the key "messages" appears twice'),
    "5,000 digits": (b'{"messages": ' + b"9" * 5_000 + b"}", "5000 digits"),
    "half a surrogate pair": (rb'{"messages": "\udc00"}', "surrogate"),
    "half a pair as a key": (rb'{"messages": [{"\ud800": 1}]}', "surrogate"),
    "a surrogate's bytes": (b'{"messages": "\xed\xa0\x80"}', "not UTF-8"),
    "overlong": (b'{"messages": "\xc0\xaf"}', "not UTF-8"),
    "Latin-1": (b'{"messages": "\xe9"}', "not UTF-8"),
    "two values": (b"{} {}", "not valid JSON"),
    "a comment": (b"{} // a", "not valid JSON"),
    "single quotes": (b"{'messages': []}", "not valid JSON"),
    "a raw control": (b'{"messages": "\x01"}', "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body(http: httpx.Client, name: str) -> None:
    content, word = HOSTILE[name]
    for path in ("/chat/completions", "/fine_tuning/jobs"):
        error = error_of(http.post(path, content=content), 400)
        assert word in str(error["message"])


def test_hostile_lines(client: OpenAI) -> None:
    """All of them in one file: each is named by its number, with its reason."""
    good = [json.dumps(row).encode() for row in rows(12)]
    bad = {13 + i: word for i, (_, word) in enumerate(HOSTILE.values())}
    content = b"\n".join([*good, *(line for line, _ in HOSTILE.values())]) + b"\n"
    job = client.fine_tuning.jobs.create(model="tiny", training_file=upload_bytes(client, content))
    error = finished(client, job.id).error
    assert error is not None
    assert f"{len(bad)} of {len(bad) + 12} examples are bad" in error.message
    said = {int(line.split()[1].rstrip(":,")): line for line in error.message.replace("format. ", "format.\n").split("\n")
            if line.startswith("Example ")}  # fmt: skip
    assert said.keys() == bad.keys()
    for number, word in bad.items():
        assert word in said[number]


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_a_body_in_another_coding(http: httpx.Client, coding: str) -> None:
    """json.loads on bytes would guess; a mark at the start is no JSON either."""
    content = json.dumps({"model": SMOLLM2, "messages": []}).encode(coding)
    error = error_of(http.post("/chat/completions", content=content), 400)
    assert "UTF-8" in str(error["message"]) or "could not parse the JSON body" in str(error["message"])


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_another_coding(client: OpenAI, coding: str) -> None:
    content = jsonl(rows(12)).decode().encode(coding)
    job = client.fine_tuning.jobs.create(model="tiny", training_file=upload_bytes(client, content))
    error = finished(client, job.id).error
    assert error is not None
    assert "UTF-16 or binary, not UTF-8; save it as UTF-8 text" in error.message


def test_carriage_returns_alone_end_no_line(client: OpenAI) -> None:
    content = jsonl(rows(12)).replace(b"\n", b"\r")
    job = client.fine_tuning.jobs.create(model="tiny", training_file=upload_bytes(client, content))
    error = finished(client, job.id).error
    assert error is not None
    assert "Example 1: not valid JSON" in error.message


NUL = "a\x00b"


def test_nul_goes_in_and_comes_out(client: OpenAI, http: httpx.Client) -> None:
    """SQLite cuts at it, PostgreSQL refuses it, C ends texts with it: here it is a character like others."""
    body = jsonl([chat_row(f"Question {i} {NUL}?", "yes") for i in range(12)])
    file = client.files.create(file=("a.jsonl", body), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file.id, suffix=NUL, metadata={NUL: NUL}, hyperparameters={"n_epochs": 1}
    )
    shown = client.fine_tuning.jobs.retrieve(job.id)
    assert shown.metadata == {NUL: NUL}
    client.fine_tuning.jobs.cancel(job.id)
    asked = {"model": SMOLLM2, "messages": [{"role": "user", "content": NUL}], "max_tokens": 1}
    assert http.post("/chat/completions", json=asked).status_code == 200
    for path in ("/files/%00", "/models/%00", "/fine_tuning/jobs/%00", f"/files/{file.id}%00"):
        error_of(http.get(path), 404)


def refused_line(http: httpx.Client, client: OpenAI, megabytes: int) -> str:
    """Upload good rows and a line of that length; the reason of the job that fails with it."""

    def form() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + jsonl(rows(12))
        for _ in range(megabytes):
            yield b"x" * 1_000_000
        yield b"\r\n--b--\r\n"

    answer = http.post("/files", content=form(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 200, answer.text
    job = client.fine_tuning.jobs.create(model="tiny", training_file=answer.json()["id"])
    error = finished(client, job.id).error
    client.files.delete(answer.json()["id"])
    assert error is not None
    return error.message


def peak(server: Server, work: Callable[[], str]) -> tuple[str, int]:
    """What `work` says, and the most memory that the server had meanwhile, in bytes."""
    assert server.process is not None
    process, seen, over = psutil.Process(server.process.pid), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            seen[0] = max(seen[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return work(), seen[0]
    finally:
        over.set()
        watcher.join()


def test_a_line_of_200_mb_takes_no_more_memory_than_one_of_10(
    server: Server, client: OpenAI, http: httpx.Client
) -> None:
    """Uploaded, looked at, and refused with its number."""
    refused_line(http, client, 10)  # warm
    _, small = peak(server, lambda: refused_line(http, client, 10))
    text, large = peak(server, lambda: refused_line(http, client, 200))
    assert "Example 13: the line is 200,000,000 bytes long, more than 8 MiB" in text
    assert large - small < 48 * MIB, f"{small / MIB:.0f} MiB, then {large / MIB:.0f}"


def test_a_body_of_brackets_stops_nobody(server: Server, http: httpx.Client) -> None:
    """4 MB of them take a second to parse: in a thread, so that others are answered meanwhile."""
    content = b'{"a": [' + b"[]," * 1_390_000 + b"[]]}"
    parsing, answered, over = threading.Event(), [], threading.Event()

    def others() -> None:
        with server.http() as mine:
            parsing.wait()
            while not over.is_set():
                answered.append(mine.get("/models").status_code)

    asking = threading.Thread(target=others)
    asking.start()
    try:
        parsing.set()
        began = time.monotonic()
        error = error_of(http.post("/chat/completions", content=content), 400)
        took = time.monotonic() - began
    finally:
        over.set()
        asking.join()
    assert error["code"] in ("missing_required_parameter", "unknown_parameter")
    assert set(answered) == {200}
    assert len(answered) > 2, f"{len(answered)} answers in {took:.1f} s"
