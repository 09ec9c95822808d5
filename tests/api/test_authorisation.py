"""Every route, with every kind of key that should not get through: the table is made from the router, so that a new
route can't be forgotten. What isn't yours answers exactly as what does not exist."""

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from answers import check_error
from conftest import KEY, Server, rows
from openai import OpenAI

from pegbox.api.app import all_routes, make_api
from pegbox.api.gate import OPEN_PATHS, needed_access
from pegbox.storage.db import Database
from pegbox.storage.scope import Scope
from pegbox.storage.tables import adapters

ROUTES = sorted({(method, route.path) for route in all_routes() for method in route.methods or ()})
# What a path's braces stand for. A route with a new one has to say here what its things look like.
UNKNOWN = {
    "file_id": "file-" + "x" * 24, "job_id": "ftjob-" + "x" * 24, "name:path": "ft:tiny:pegbox::xxxxxxxx",
    "engine:path": "ft:tiny:pegbox::xxxxxxxx", "project_id": "proj_" + "x" * 24, "key_id": "key_" + "x" * 24,
    "endpoint_id": "whe_" + "x" * 24,
}  # fmt: skip
TOLD = "fine_tuning.job.succeeded"
HELLO = [{"role": "user", "content": "Hello"}]
BODIES: dict[tuple[str, str], dict[str, object]] = {
    ("POST", "/v1/fine_tuning/jobs"): {"model": "tiny", "training_file": "{file_id}"},
    ("POST", "/v1/chat/completions"): {"model": "{engine:path}", "messages": HELLO, "max_tokens": 1},
    ("POST", "/v1/completions"): {"model": "{engine:path}", "prompt": "Hello", "max_tokens": 1},
    ("POST", "/v1/engines/{engine:path}/chat/completions"): {"messages": HELLO, "max_tokens": 1},
    ("POST", "/v1/engines/{engine:path}/completions"): {"prompt": "Hello", "max_tokens": 1},
    ("POST", "/v1/fine-tunes"): {"model": "tiny", "training_file": "{file_id}"},
    ("POST", "/v1/webhook_endpoints"): {"name": "mine", "url": "https://1.1.1.1/", "event_types": [TOLD]},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}"): {"name": "mine now"},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret"): {},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/test"): {"event_type": TOLD},
    ("POST", "/v1/organization/projects"): {"name": "mine"},
    ("POST", "/v1/organization/projects/{project_id}"): {"name": "mine now"},
    ("POST", "/v1/organization/projects/{project_id}/api_keys"): {"name": "mine"},
    ("POST", "/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate"): {},
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A server with two projects. Ours has one of everything; theirs has admin keys that must see none of it."""

    server: Server
    http: httpx.Client  # without a key
    things: dict[str, str]  # ours, by what a path calls them
    keys: dict[str, str]

    def send(self, method: str, path: str, key: str | None, things: dict[str, str]) -> httpx.Response:
        body = BODIES.get((method, path))
        headers = {"authorization": f"Bearer {key}"} if key else {}
        if (method, path) == ("POST", "/v1/files"):
            return self.http.post(path, headers=headers, files={"file": ("a", b"x")}, data={"purpose": "batch"})
        content = fill(json.dumps(body), things).encode() if body is not None else None
        return self.http.request(method, fill(path, things), headers=headers, content=content)

    def admin(self, method: str, path: str, body: dict[str, object] | None = None, key: str = KEY) -> dict[str, str]:
        answer = self.http.request(
            method, f"/v1/organization{path}", json=body, headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def key(self, project: str, scope: str, **more: object) -> dict[str, str]:
        return self.admin("POST", f"/projects/{project}/api_keys", {"name": scope, "scope": scope, **more})


def fill(text: str, things: dict[str, str]) -> str:
    return re.sub(r"\{([a-z_:]+)\}", lambda brace: things[brace[1]], text)


@pytest.fixture(scope="module")
def world(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    env = {"PEGBOX_WRONG_KEYS_PER_MINUTE": "0", "PEGBOX_MIN_EXAMPLES": "1000"}
    server = Server(tmp_path_factory.mktemp("matrix") / "data", tiny_catalog, env).start()
    with httpx.Client(base_url=server.root_url, timeout=60) as http:
        made = World(server, http, {}, {})
        ours, theirs, closed = (made.admin("POST", "/projects", {"name": name})["id"] for name in ("a", "b", "c"))
        admin = made.key(ours, "admin")
        revoked, expired = made.key(ours, "admin"), made.key(ours, "admin", expires_in_seconds=1)
        archived = made.key(closed, "admin")
        made.admin("DELETE", f"/projects/{ours}/api_keys/{revoked['id']}")
        made.admin("POST", f"/projects/{closed}/archive")
        made.keys.update({
            "ours": admin["value"], "read": made.key(ours, "read")["value"], "write": made.key(ours, "write")["value"],
            "theirs": made.key(theirs, "admin")["value"], "bad": "sk-pegbox-" + "x" * 43, "revoked": revoked["value"],
            "expired": expired["value"], "archived": archived["value"],
        })  # fmt: skip
        with OpenAI(base_url=server.base_url, api_key=admin["value"], max_retries=0) as client:
            content = "".join(json.dumps(row) + "\n" for row in rows(12)).encode()
            file = client.files.create(file=("a.jsonl", content), purpose="fine-tune").id
            job = client.fine_tuning.jobs.create(model="tiny", training_file=file).id
            hook = client.webhooks.create(name="ours", url="https://1.1.1.1/", event_types=[TOLD]).id
        model = "ft:tiny:pegbox:ours:abcdefgh"
        row = {
            "name": model,
            "base": "tiny",
            "created_at": 1,
            "job_id": job,
            "format": "chat",
            "folder": "adapters/none",
        }
        db = Database(server.data_dir / "pegbox.db")
        with db.write() as tx:
            tx.execute(Scope(ours).insert(adapters).values(row))
        db.close()
        made.things.update({
            "file_id": file, "job_id": job, "name:path": model, "engine:path": model, "project_id": ours,
            "key_id": admin["id"], "endpoint_id": hook,
        })  # fmt: skip
        deadline = time.monotonic() + 60
        while made.send("GET", "/v1/files", made.keys["expired"], {}).status_code != 401:
            assert time.monotonic() < deadline
        yield made
    server.close()


def test_the_table_holds_every_route() -> None:
    described = make_api().openapi()["paths"]
    paths = {(method.upper(), path) for path, operations in described.items() for method in operations}
    plain = {(method, path.replace(":path}", "}")) for method, path in ROUTES}
    assert paths == plain | {("GET", path) for path in (*OPEN_PATHS, "/metrics")}
    braces = {brace for _, path in ROUTES for brace in re.findall(r"\{(.+?)\}", path)}
    assert braces == set(UNKNOWN), "say in UNKNOWN what such a thing looks like, and make one in `world`"
    assert BODIES.keys() <= set(ROUTES)


@pytest.mark.parametrize("which", ["none", "bad", "revoked", "expired", "archived"])
def test_without_a_good_key_nothing_answers(world: World, which: str):
    wanted = {"none": None, "archived": "not_authorized_invalid_project"}.get(which, "invalid_api_key")
    for method, path in ROUTES:
        answer = world.send(method, path, world.keys.get(which), world.things)
        check_error(answer, 401, code=wanted)
        assert not [thing for thing in world.things.values() if thing in answer.text]


def test_what_is_not_yours_does_not_exist(world: World):
    """With an admin key of another project: the same answer, to the letter, for our things and for what never was."""
    key = world.keys["theirs"]
    for method, path in ROUTES:
        named = re.findall(r"\{([a-z_:]+)\}", path + json.dumps(BODIES.get((method, path), "")))
        named = [brace for brace in named if brace in UNKNOWN]
        asked = {**UNKNOWN, **world.things}
        answer = world.send(method, path, key, asked)
        if not named:
            assert not [thing for thing in world.things.values() if thing in answer.text], (method, path)
            continue
        other = world.send(method, path, key, UNKNOWN)
        text, never = answer.text, other.text
        for brace in named:
            text, never = text.replace(asked[brace], "…"), never.replace(UNKNOWN[brace], "…")
        assert (answer.status_code, text) == (other.status_code, never), (method, path)
        in_body = method == "POST" and path in (
            "/v1/fine_tuning/jobs",
            "/v1/fine-tunes",
        )  # a file named there was always a 400
        assert answer.status_code == (400 if in_body else 404), (method, path, answer.text)


def test_a_key_of_ours_for_something_of_theirs(world: World):
    """Only the id in the path is theirs; the project in it is ours."""
    theirs = world.admin("GET", "/projects", key=world.keys["theirs"])["data"][0]["id"]
    key_id = world.admin("GET", f"/projects/{theirs}/api_keys", key=world.keys["theirs"])["data"][0]["id"]
    for method, path in ROUTES:
        if "{key_id}" in path:
            answer = world.send(method, path, world.keys["ours"], {**world.things, "key_id": key_id})
            check_error(answer, 404, param="api_key_id", code="api_key_not_found")
    assert world.send("GET", "/v1/files", world.keys["theirs"], {}).status_code == 200


def test_a_key_that_may_only_read(world: World):
    for method, path in ROUTES:
        answer = world.send(method, path, world.keys["read"], world.things)
        if method == "GET" and "/organization/" not in path:
            assert answer.status_code in (200, 404), (path, answer.text)
            assert answer.status_code == 200 or path.endswith(("/receipt", "/rows")), "a failed job has none"
        else:
            check_error(answer, 403, code="missing_scope", message=f"Missing scopes: {needed_access(method, path)}")
    assert world.send("GET", "/v1/files/{file_id}", world.keys["ours"], world.things).status_code == 200, "all is there"


def test_a_key_that_may_not_administer(world: World):
    for method, path in ROUTES:
        if "/organization/" in path:
            check_error(world.send(method, path, world.keys["write"], world.things), 403, code="missing_scope")


def test_an_admin_of_a_project_is_none_of_the_server(world: World):
    ours = world.keys["ours"]
    for method, path in (
        ("POST", "/v1/organization/projects"),
        ("POST", "/v1/organization/projects/{project_id}"),
        ("POST", "/v1/organization/projects/{project_id}/archive"),
    ):
        check_error(world.send(method, path, ours, world.things), 403, code="missing_scope")
    for path in ("/v1/organization/projects/{project_id}", "/v1/organization/projects/{project_id}/api_keys/{key_id}"):
        assert world.send("GET", path, ours, world.things).status_code == 200


def test_figures_of_the_server_are_for_its_own_keys(world: World):
    check_error(world.send("GET", "/metrics", None, {}), 401)
    for key in ("ours", "theirs", "read"):
        check_error(world.send("GET", "/metrics", world.keys[key], {}), 403, code="missing_scope")
    assert "pegbox_jobs_queued" in world.send("GET", "/metrics", KEY, {}).text


def test_a_second_credential_opens_no_second_door(world: World):
    """One place reads the key: the first that is known decides, and what it may not do, no other key beside it may."""
    for known in ("revoked", "expired"):
        mixed = {"authorization": f"Bearer {world.keys[known]}", "api-key": world.keys["ours"]}
        check_error(world.http.get("/v1/files", headers=mixed), 401, code="invalid_api_key")
    meaningless = {"authorization": f"Bearer {world.keys['bad']}", "api-key": world.keys["theirs"]}
    theirs = {"authorization": f"Bearer {world.keys['theirs']}"}
    lists = [world.http.get("/v1/files", headers=headers).json() for headers in (meaningless, theirs)]
    assert lists[0] == lists[1], "the rights of the key that is one, and no others"
    check_error(world.http.get("/v1/files", headers={"x-api-key": world.keys["ours"]}), 401)
    read = {"authorization": f"Bearer {world.keys['read']}", "api-key": world.keys["ours"]}
    check_error(world.http.delete(f"/v1/files/{world.things['file_id']}", headers=read), 403, code="missing_scope")


@pytest.mark.parametrize("prefix", ["/openai", "/openai/v1", "//v1", "/v1/", "/openai//v1"])
def test_no_spelling_of_a_path_leads_around_the_gate(world: World, prefix: str):
    for path in (f"{prefix}/organization/projects", f"{prefix}//organization//audit_logs/"):
        answer = world.http.get(path, headers={"authorization": f"Bearer {world.keys['write']}"})
        assert answer.status_code in (403, 404), (path, answer.text)
        assert "proj_" not in answer.text.replace(world.things["project_id"], "")


HOSTILE = [
    "..", "%2e%2e", "%252e%252e", "..%2f..%2fpegbox.db", "..%5c..%5cpegbox.db", "%00", "file-%00", "%2fetc%2fpasswd",
    "..%c0%af..%c0%afpegbox.db", "%c0%ae%c0%ae", "file-" + "a" * 5000, "%ff%fe", "file-*", "file-%25", "'%20OR%201=1--",
]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_id_is_never_a_path(world: World, hostile: str):
    headers = {"authorization": f"Bearer {world.keys['ours']}"}
    for path in ("/v1/files/{}", "/v1/files/{}/content", "/v1/files/{}/report", "/v1/fine_tuning/jobs/{}/receipt",
                 "/v1/fine_tuning/jobs/{}/rows", "/v1/models/{}", "/v1/organization/projects/{}"):  # fmt: skip
        with socket.create_connection(("127.0.0.1", world.server.port)) as wire:  # as it stands: httpx would tidy it
            wire.settimeout(60)
            request = f"GET {path.format(hostile)} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            wire.sendall(request.encode() + f"authorization: {headers['authorization']}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: wire.recv(65_536), b""))
        status = int(answer.split(b" ", 2)[1])
        assert status in (400, 404) or (status == 200 and hostile in ("..", "%2e%2e")), (path, answer[:300])
        assert b"SQLite format" not in answer
        assert b"root:" not in answer


@pytest.mark.parametrize("how", [b"Content-Length: 536870912", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("which", ["none", "bad", "read"])
def test_an_upload_is_refused_before_its_body(world: World, how: bytes, which: str):
    """512 MB are announced and none is sent: the answer is there all the same."""
    with socket.create_connection(("127.0.0.1", world.server.port)) as wire:
        wire.settimeout(30)
        key = world.keys.get(which)
        head = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n" + how
        wire.sendall(head + (f"\r\nAuthorization: Bearer {key}".encode() if key else b"") + b"\r\n\r\n")
        answer = wire.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 403 " if which == "read" else b"HTTP/1.1 401 "), answer
    incoming = (world.server.data_dir / "blobs" / "incoming").rglob("*")
    assert [path for path in incoming if path.is_file() and path.suffix != ".lock"] == []


def test_no_key_and_no_prompt_is_in_the_log(world: World):
    """A canary for each: in headers of good and bad requests, in bodies, in what fails."""
    canary = "sk-pegbox-canary-0123456789abcdefghijklmnopqrstu"
    secret = "canary-prompt-5f3a"
    for key in (canary, world.keys["ours"]):
        for method, path in ROUTES:
            world.http.request(
                method, fill(path, UNKNOWN), headers={"authorization": f"Bearer {key}"}, content=f'{{"x": "{secret}"}}'
            )
    logged = world.server.log.read_text("utf-8")
    assert secret not in logged
    assert not [value for value in (canary, KEY, *world.keys.values()) if value in logged]
