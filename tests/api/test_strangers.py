"""Browsers of strangers: cross-site requests and rebound names are refused even with a good key; programs pass."""

import socket

import chromium
import httpx
import pytest
from answers import check_error
from conftest import KEY, SMOLLM2, Server, ServerMaker
from starlette.datastructures import Headers

from pegbox.api.strangers import Neighbours
from pegbox.errors import Forbidden
from pegbox.settings import Settings

AT_HOME = {"host": "127.0.0.1"}
OPEN = {"host": "0.0.0.0"}
CASES = [
    # settings, method, headers, whether it may
    (AT_HOME, "POST", {"host": "127.0.0.1:8000"}, True),
    (AT_HOME, "POST", {"host": "localhost:8000"}, True),
    (AT_HOME, "POST", {"host": "[::1]:8000"}, True),
    (AT_HOME, "POST", {"host": "pegbox:8000"}, True),  # a container's name
    (AT_HOME, "POST", {"host": "box.localhost"}, True),
    (AT_HOME, "POST", {"host": "evil.example:8000"}, False),  # rebinding
    (AT_HOME, "POST", {"host": "127.0.0.1.evil.example"}, False),
    (AT_HOME, "POST", {"host": "localhost.evil.example"}, False),
    (AT_HOME, "POST", {"host": "evil.example."}, False),
    (AT_HOME, "DELETE", {"host": "evil.example"}, False),
    (AT_HOME, "PUT", {"host": "evil.example"}, False),
    (AT_HOME, "GET", {"host": "evil.example"}, True),  # needs the key, which the page has not
    (AT_HOME, "POST", {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, True),
    (AT_HOME, "POST", {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, False),  # another program's page
    (AT_HOME, "POST", {"host": "127.0.0.1:8000", "origin": "http://evil.example"}, False),
    (AT_HOME, "DELETE", {"host": "127.0.0.1:8000", "origin": "https://evil.example"}, False),
    (AT_HOME, "POST", {"host": "127.0.0.1:8000", "origin": "null"}, False),
    (AT_HOME, "POST", {"host": "127.0.0.1:8000", "origin": ""}, False),
    (AT_HOME, "POST", {"host": "127.0.0.1:8000", "origin": "http://[x"}, False),
    (AT_HOME, "POST", {"host": "evil.example:8000", "origin": "http://evil.example:8000"}, False),  # rebinding
    (AT_HOME, "POST", {"host": "127.0.0.1", "sec-fetch-site": "cross-site"}, False),
    (AT_HOME, "POST", {"host": "127.0.0.1", "sec-fetch-site": "same-site"}, False),
    (AT_HOME, "POST", {"host": "127.0.0.1", "sec-fetch-site": "same-origin"}, True),
    (OPEN, "POST", {"host": "tuning.example"}, True),
    (OPEN, "POST", {"host": "tuning.example", "origin": "https://tuning.example"}, False),
    (OPEN, "POST", {"host": "192.168.1.5:8000", "origin": "http://192.168.1.5:8000"}, True),
    ({**OPEN, "allowed_hosts": "tuning.example, b.example"}, "POST", {"host": "tuning.example", "origin": "https://tuning.example"}, True),
    ({**OPEN, "allowed_hosts": "tuning.example"}, "POST", {"host": "127.0.0.1:8000", "origin": "https://tuning.example"}, True),  # a proxy
    ({**OPEN, "allowed_hosts": "tuning.example"}, "POST", {"host": "other.example"}, False),
    ({**AT_HOME, "allowed_hosts": "tuning.example"}, "DELETE", {"host": "Tuning.Example:443"}, True),
]  # fmt: skip


@pytest.mark.parametrize(("given", "method", "headers", "may"), CASES)
def test_who_may_ask(given: dict[str, str], method: str, headers: dict[str, str], may: bool):
    neighbours = Neighbours.of(Settings(**given))
    if may:
        neighbours.check(method, Headers(headers))
    else:
        with pytest.raises(Forbidden):
            neighbours.check(method, Headers(headers))


def test_a_strangers_page_gets_nothing(server: Server):
    with server.http() as http:
        for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}):
            for method in ("POST", "DELETE", "PUT", "PATCH"):
                answer = http.request(method, "/files", headers={**headers, "content-type": "text/plain"}, content="x")
                check_error(answer, 403, code="foreign_origin")
                assert not [name for name in answer.headers if name.startswith("access-control-")], "no CORS"
        preflight = http.options(
            "/files", headers={"origin": "http://evil.example", "access-control-request-method": "POST"}
        )
        assert preflight.status_code == 405
        assert not [name for name in preflight.headers if name.startswith("access-control-")]


def test_a_name_can_be_allowed(new_server: ServerMaker):
    server = new_server(PEGBOX_ALLOWED_HOSTS="tuning.example")
    with server.http() as http:
        form = {"files": {"file": ("a", b"x")}, "data": {"purpose": "batch"}}
        for headers in ({"host": "tuning.example"}, {"host": "tuning.example", "origin": "https://tuning.example"}, {}):
            assert http.post("/files", headers=headers, **form).status_code == 200
        check_error(http.post("/files", headers={"host": "evil.example"}, **form), 403, code="foreign_origin")


ASK = """(async () => {{
  try {{
    const answer = await fetch("{url}/chat/completions", {{
      method: "POST", headers: {{"authorization": "Bearer {key}", "content-type": "application/json"}},
      body: JSON.stringify({{model: "{model}", max_tokens: 1, messages: [{{role: "user", content: "hi"}}]}}),
    }})
    return [answer.status, (await answer.json()).object, answer.headers.get("x-request-id").slice(0, 4)]
  }} catch (error) {{ return [String(error)] }}
}})()"""


@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed")
def test_pages_of_a_site_that_is_allowed(server: Server, new_server: ServerMaker):
    """In a real browser: a page of another site may ask if its site is listed, and reads the answer."""
    site = f"http://127.0.0.1:{server.port}"
    open_to_it = new_server(PEGBOX_ALLOWED_ORIGINS=f"https://ui.example, {site}/")
    script = ASK.format(url=open_to_it.base_url, key=KEY, model=SMOLLM2)
    with chromium.browser() as tab:
        tab.open(f"{site}/healthz")
        assert tab.run(script) == [200, "chat.completion", "req_"]
        tab.open(f"http://localhost:{server.port}/healthz")
        assert tab.run(script) == ["TypeError: Failed to fetch"]
    with open_to_it.http() as http:
        wrong = http.post("/files", headers={"origin": "https://ui.example", "authorization": "Bearer sk-wrong-987654"})
        check_error(wrong, 401, code="invalid_api_key", message="Incorrect")
        assert wrong.headers["access-control-allow-origin"] == "https://ui.example", "it may read why"
        check_error(http.post("/files", headers={"origin": "https://evil.example"}), 403, code="foreign_origin")
        assert (
            "access-control-allow-origin" not in http.get("/models", headers={"origin": "https://evil.example"}).headers
        )


def test_no_websocket_leads_past_the_gate(server: Server):
    for path in ("/v1/files", "/healthz"):
        with socket.create_connection(("127.0.0.1", server.port)) as wire:
            wire.settimeout(30)
            wire.sendall(
                f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            assert wire.recv(4096).startswith(b"HTTP/1.1 403 ")
    assert httpx.get(f"{server.root_url}/healthz").status_code == 200
