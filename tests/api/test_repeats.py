"""One call, one job: idempotency keys, and the stock client's own silent retry after a lost answer."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from answers import check_error
from conftest import KEY, Server, ServerMaker, rows, upload_bytes
from openai import OpenAI
from sqlalchemy import text

from pegbox.storage.db import Database

JOBS = "/fine_tuning/jobs"


def train(client: OpenAI, n: int = 12) -> str:
    return upload_bytes(client, "".join(json.dumps(row) + "\n" for row in rows(n)).encode())


@pytest.fixture
def idle(new_server: ServerMaker) -> Server:
    """Its jobs fail at once, because their files are too small."""
    return new_server(PEGBOX_MIN_EXAMPLES="1000")


def test_the_same_key_makes_one_job(idle: Server):
    client = idle.client()
    body = {"model": "tiny", "training_file": train(client)}
    with idle.http() as http:

        def create(key: str, **more: object) -> dict[str, object]:
            return http.post(JOBS, json={**body, **more}, headers={"idempotency-key": key}).json()

        first = create("one")
        assert create("one")["id"] == first["id"]
        assert create("one", suffix=None)["id"] == first["id"], "what is left out and null are the same"
        assert create("two")["id"] != first["id"]
        other = http.post(JOBS, json={**body, "suffix": "x"}, headers={"idempotency-key": "one"})
        check_error(other, 409, code="idempotency_key_reused", message=f"made {first['id']}")
        assert other.headers["x-should-retry"] == "false"
        for bad in ("", "x" * 256, "a\tb", "é"):
            answer = http.post(JOBS, json=body, headers=[("idempotency-key", bad.encode())])
            check_error(answer, 400, param="Idempotency-Key", code="invalid_value")
        client.files.delete(body["training_file"])
        assert create("one")["id"] == first["id"], "the job is there, though its file is gone"
    assert len(client.fine_tuning.jobs.list(limit=100).data) == 2
    with pytest.raises(openai.ConflictError):
        client.with_options(max_retries=5).fine_tuning.jobs.create(
            model="tiny", training_file="file-x", extra_headers={"idempotency-key": "one"}
        )


def test_a_refused_call_uses_up_no_key(idle: Server):
    client = idle.client()
    with idle.http() as http:
        key = {"idempotency-key": "one"}
        assert http.post(JOBS, json={"model": "tiny", "training_file": "file-x"}, headers=key).status_code == 400
        body = {"model": "tiny", "training_file": train(client)}
        assert http.post(JOBS, json=body, headers=key).status_code == 200


def test_many_at_once_make_one_job(idle: Server):
    client = idle.client()
    body = {"model": "tiny", "training_file": train(client)}
    together = threading.Barrier(8)
    with idle.http() as http, ThreadPoolExecutor(8) as pool:

        def create(_: int) -> tuple[int, str]:
            together.wait()
            answer = http.post(JOBS, json=body, headers={"idempotency-key": "one"})
            return answer.status_code, answer.json()["id"]

        answers = set(pool.map(create, range(8)))
    assert len(answers) == 1, answers
    assert answers.pop()[0] == 200
    assert len(client.fine_tuning.jobs.list().data) == 1


def test_a_key_is_remembered_for_a_day(idle: Server):
    client = idle.client()
    body = {"model": "tiny", "training_file": train(client)}
    with idle.http() as http:
        first = http.post(JOBS, json=body, headers={"idempotency-key": "one"}).json()["id"]
        db = Database(idle.data_dir / "pegbox.db")
        for age, same in ((86_000, True), (86_400, False)):
            with db.write() as tx:
                tx.execute(
                    text("UPDATE idempotency SET created_at = CAST(strftime('%s') AS INTEGER) - :age"), {"age": age}
                )
            again = http.post(JOBS, json=body, headers={"idempotency-key": "one"}).json()["id"]
            assert (again == first) is same
        with db.read() as tx:
            assert tx.execute(text("SELECT count(*) FROM idempotency")).scalar() == 1, "the old one is gone"
        db.close()


def test_projects_do_not_share_their_keys(idle: Server):
    with idle.http() as http:
        project = http.post("/organization/projects", json={"name": "a"}).json()["id"]
        value = http.post(f"/organization/projects/{project}/api_keys", json={"name": "a"}).json()["value"]
        default, theirs = idle.client(), idle.client()
        theirs.api_key = value
        jobs = [
            client.fine_tuning.jobs.create(
                model="tiny", training_file=train(client), extra_headers={"idempotency-key": "one"}
            ).id
            for client in (default, theirs)
        ]
    assert len(set(jobs)) == 2


class LosesTheFirstAnswer:
    """A connection in between that hands a request on, waits for the answer and hangs up instead of giving it."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
                request = b""
                while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < self._length(request):
                    request += client.recv(65_536)
                self.requests.append(request)
                server.sendall(request)
                answer = server.recv(65_536)
                while len(answer.split(b"\r\n\r\n", 1)[1]) < self._length(answer):
                    answer += server.recv(65_536)
                if len(self.requests) > 1:
                    client.sendall(answer)

    @staticmethod
    def _length(message: bytes) -> int:
        head = message.split(b"\r\n\r\n")[0].lower().decode()
        return next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)

    def close(self) -> None:
        self._listener.close()


def test_the_stock_clients_silent_retry(idle: Server):
    """The real client against a network that loses an answer: it says nothing, and there is one job."""
    direct = idle.client()
    file_id = train(direct)
    between = LosesTheFirstAnswer(idle.port)
    with OpenAI(base_url=f"http://127.0.0.1:{between.port}/v1", api_key=KEY, max_retries=2) as client:
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file_id)
    between.close()
    assert [
        b"x-stainless-retry-count: 0" in r.lower() or b"x-stainless-retry-count: 1" in r.lower()
        for r in between.requests
    ] == [True, True]
    assert not [request for request in between.requests if b"idempotency" in request.lower()], (
        "it sends no key of its own"
    )
    assert [one.id for one in direct.fine_tuning.jobs.list()] == [job.id]


def test_a_retry_is_known_by_key_body_and_time(idle: Server):
    client = idle.client()
    file_id = train(client)
    again = {"x-stainless-retry-count": "1"}
    with idle.http() as http:
        other_key = http.post("/organization/projects/proj_default/api_keys", json={"name": "a"}).json()["value"]

    def create(by: OpenAI = client, **more: object) -> str:
        return by.fine_tuning.jobs.create(model="tiny", training_file=file_id, **more).id

    first = create()
    assert create(extra_headers=again) == first
    other = idle.client()
    other.api_key = other_key
    assert create(other, extra_headers=again) != first, "another key may well want the same"
    db = Database(idle.data_dir / "pegbox.db")
    with db.write() as tx:
        tx.execute(text("UPDATE jobs SET created_at = created_at - 800 WHERE id = :id"), {"id": first})
    assert create(extra_headers=again) == first, "the client waits ten minutes before it asks again"
    with db.write() as tx:
        tx.execute(text("UPDATE jobs SET created_at = created_at - 101 WHERE id = :id"), {"id": first})
    db.close()
    assert create(extra_headers=again) != first
