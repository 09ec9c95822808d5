"""Projects through the stock client: its own administration calls, its two headers, models of other projects, limits."""

import time

import httpx
import openai
import pytest
from answers import check_error
from conftest import KEY, Server, ServerMaker, finished, messages, rows, upload_bytes
from openai import OpenAI

from pegbox.api.gate import _span


def operator(server: Server) -> OpenAI:
    return server.client(admin_api_key=KEY)


def member(server: Server, project: str, scope: str = "write", **options: object) -> OpenAI:
    body = {"name": "member", "scope": scope}
    with server.http() as http:
        key = http.post(f"/organization/projects/{project}/api_keys", json=body).json()["value"]
    client = server.client(**options)
    client.api_key = key
    return client


def jsonl(n: int) -> bytes:
    import json

    return "".join(json.dumps(row) + "\n" for row in rows(n)).encode()


def test_the_stock_clients_own_administration(new_server: ServerMaker):
    server = new_server()
    organization = operator(server).admin.organization
    made = organization.projects.create(name="Team A")
    assert (made.name, made.status, made.archived_at) == ("Team A", "active", None)
    assert organization.projects.retrieve(made.id).id == made.id
    assert organization.projects.update(made.id, name="Team B").name == "Team B"
    assert [project.id for project in organization.projects.list(limit=1)] == ["proj_default", made.id]
    member(server, made.id)
    key = organization.projects.api_keys.list(made.id).data[0]
    assert organization.projects.api_keys.retrieve(key.id, project_id=made.id).redacted_value == key.redacted_value
    assert organization.projects.api_keys.delete(key.id, project_id=made.id).deleted is True
    assert organization.projects.archive(made.id).status == "archived"
    assert [project.id for project in organization.projects.list()] == ["proj_default"]
    assert [project.id for project in organization.projects.list(include_archived=True)] == ["proj_default", made.id]
    log = list(organization.audit_logs.list(limit=2))
    assert [entry.type for entry in log] == [
        "project.archived", "api_key.deleted", "api_key.created", "project.updated", "project.created",
    ]  # fmt: skip
    assert log[1].api_key_deleted.id == key.id
    assert log[3].project_updated.id == log[3].project.id == made.id


def test_the_two_headers(new_server: ServerMaker):
    server = new_server()
    project = operator(server).admin.organization.projects.create(name="Team A").id
    theirs = member(server, project)
    for named in (None, project):
        assert theirs.with_options(project=named).files.list().data == []
    for organization in ("pegbox", "org-pegbox", "org-from-elsewhere"):
        answer = theirs.with_options(organization=organization).files.with_raw_response.list()
        assert answer.headers["openai-organization"] == "pegbox"
        assert answer.headers["openai-project"] == project
    for client, named in ((theirs, "proj_default"), (theirs, "proj_unknown"), (server.client(), project)):
        with pytest.raises(openai.AuthenticationError, match="should match project") as caught:
            client.with_options(project=named).files.list()
        assert caught.value.code == "mismatched_project"


def test_what_one_project_makes_no_other_sees(new_server: ServerMaker):
    """A real tuned model: who made it chats with it, trains on from it and deletes it; others never heard of it."""
    server = new_server()
    projects = operator(server).admin.organization.projects
    ours, theirs = (member(server, projects.create(name=name).id) for name in "ab")
    default = server.client()
    file_id = upload_bytes(ours, jsonl(12))
    job = finished(
        ours, ours.fine_tuning.jobs.create(model="tiny", training_file=file_id, hyperparameters={"n_epochs": 2}).id
    )
    assert job.status == "succeeded", job.error
    model = job.fine_tuned_model
    checkpoint = ours.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
    hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
    for name in (model, checkpoint):
        assert ours.chat.completions.create(model=name, **hello).model == name
    assert ours.files.content(job.result_files[0]).read().startswith(b"step,train_loss")
    assert len(messages(ours, job.id)) > 5
    for other in (theirs, default):
        for name in (model, checkpoint):
            for call in (
                lambda name=name, other=other: other.chat.completions.create(model=name, **hello),
                lambda name=name, other=other: other.models.retrieve(name),
                lambda name=name, other=other: other.models.delete(name),
            ):
                with pytest.raises(openai.NotFoundError):
                    call()
            own_file = upload_bytes(other, jsonl(12))
            with pytest.raises(openai.BadRequestError, match="does not exist") as caught:
                other.fine_tuning.jobs.create(model=name, training_file=own_file)
            assert caught.value.code == "model_not_available"
        for file in (file_id, job.result_files[0]):
            with pytest.raises(openai.NotFoundError):
                other.files.content(file)
        assert job.id not in [one.id for one in other.fine_tuning.jobs.list()]
        assert not [one.id for one in other.models.list() if one.id.startswith("ft:")]
        assert other.fine_tuning.jobs.list(after=job.id).data == []
    further = finished(
        ours, ours.fine_tuning.jobs.create(model=model, training_file=file_id, hyperparameters={"n_epochs": 1}).id
    )
    assert further.status == "succeeded", further.error
    assert ours.models.delete(model).deleted is True


def test_a_rotated_key_overlaps_with_its_successor(new_server: ServerMaker):
    server = new_server()
    keys = "/organization/projects/proj_default/api_keys"
    with server.http() as http:
        old = http.post(keys, json={"name": "robot"}).json()
        new = http.post(f"{keys}/{old['id']}/rotate", json={"overlap_seconds": 3_600}).json()

        def status(key: dict[str, str]) -> int:
            return httpx.get(
                f"{server.base_url}/files", headers={"authorization": f"Bearer {key['value']}"}
            ).status_code

        assert (status(old), status(new)) == (200, 200)
        last = http.post(f"{keys}/{new['id']}/rotate", json={"overlap_seconds": 0}).json()
        assert (status(old), status(new), status(last)) == (200, 401, 200)
        assert http.delete(f"{keys}/{old['id']}").json()["deleted"] is True
        assert (status(old), status(last)) == (401, 200)
        listed = http.get(keys).json()["data"]
        assert "value" not in str(listed).replace("redacted_value", "")
        assert [key["id"] for key in listed[:3]] == [last["id"], new["id"], old["id"]]
        configured = listed[-1]
        check_error(http.delete(f"{keys}/{configured['id']}"), 400, code="configured_key", message="PEGBOX_API_KEY")
    server.stop()
    server.start()
    assert (status(old), status(new), status(last)) == (401, 401, 200), "a restart changes nothing"


def test_requests_a_minute(new_server: ServerMaker):
    server = new_server(PEGBOX_REQUESTS_PER_MINUTE="3")
    with server.http() as http:
        left = [http.get("/files").headers["x-ratelimit-remaining-requests"] for _ in range(3)]
        assert left == ["2", "1", "0"]
        answer = http.post("/files", files={"file": ("a", b"x")}, data={"purpose": "batch"})
        check_error(answer, 429, code="rate_limit_exceeded", kind="requests", message="Limit 3, Used 3, Requested 1")
        assert answer.headers["x-ratelimit-limit-requests"] == "3"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        bad = httpx.get(f"{server.base_url}/files", headers={"authorization": "Bearer sk-wrong-0123456789"})
        assert bad.status_code == 401, "other keys have buckets of their own"
        assert httpx.get(f"{server.root_url}/healthz").status_code == 200
    with pytest.raises(openai.RateLimitError) as caught:
        server.client().files.list()
    assert caught.value.code == "rate_limit_exceeded"


def test_without_a_limit_there_are_no_rate_headers(server: Server):
    with server.http() as http:
        assert not [name for name in http.get("/files").headers if name.startswith("x-ratelimit")]


def test_wrong_keys_a_minute(new_server: ServerMaker):
    server = new_server(PEGBOX_WRONG_KEYS_PER_MINUTE="5")
    with server.http() as http:
        wrong = [http.get("/files", headers={"authorization": f"Bearer sk-wrong-{i}"}) for i in range(8)]
        assert [answer.status_code for answer in wrong] == [401] * 5 + [429] * 3
        check_error(wrong[-1], 429, code="rate_limit_exceeded", kind="requests", message="Too many wrong API keys")
        assert int(wrong[-1].headers["retry-after"]) >= 1
        assert http.get("/files").status_code == 200, "who has a good key is not locked out by a neighbour"


def test_a_use_is_shown(new_server: ServerMaker):
    server = new_server()
    project = operator(server).admin.organization.projects.create(name="Team A").id
    theirs = member(server, project)
    keys = operator(server).admin.organization.projects.api_keys
    assert keys.list(project).data[0].last_used_at is None
    theirs.files.list()
    assert abs(keys.list(project).data[0].last_used_at - time.time()) < 60


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [({}, "name", "missing_required_parameter"), ({"name": ""}, "name", "invalid_value"),
     ({"name": "a", "scope": "root"}, "scope", "invalid_value"), ({"name": "a", "expires_in_seconds": 0}, "expires_in_seconds", "invalid_value"),
     ({"name": "a", "project": "b"}, "project", "unknown_parameter"), ({"name": "a", "expires_in_seconds": 1.5}, "expires_in_seconds", "invalid_value")],
)  # fmt: skip
def test_bad_keys_are_not_made(server: Server, body: dict[str, object], param: str, code: str):
    with server.http() as http:
        answer = http.post("/organization/projects/proj_default/api_keys", json=body)
    check_error(answer, 400, param=param, code=code)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (59.999, "60s"), (60, "1m0s"), (360, "6m0s")]
)
def test_spans_are_written_as_the_api_writes_them(seconds: float, text: str):
    assert _span(seconds) == text
