"""The server as its operator sees it: health, metrics, logs, and its end."""

import json
import logging
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from conftest import KEY, Server, ServerMaker, chat_row, finished, rows, upload_bytes
from following import children, gone, jsonl, resumptions, steps, story, wait_for, wait_for_step
from prometheus_client.parser import text_string_to_metric_families
from receiver import receiving

from pegbox import logs

HELLO = [{"role": "user", "content": "Hello"}]
LOCAL = {"PEGBOX_WEBHOOK_NETWORKS": "127.0.0.0/8", "PEGBOX_WEBHOOK_HTTP": "true"}


def samples(server: Server) -> dict[str, float]:
    """Name, and labels where there are any → value."""
    answer = httpx.get(f"{server.root_url}/metrics", headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for one in family.samples:
            found[one.name + "".join(f" {k}={v}" for k, v in sorted(one.labels.items()))] = one.value
    return found


# --- health --------------------------------------------------------------------------------------------------


def test_health_and_readiness_need_no_key_and_metrics_does(server: Server) -> None:
    assert httpx.get(f"{server.root_url}/healthz").json()["status"] == "ok"
    ready = httpx.get(f"{server.root_url}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reasons": []})
    assert httpx.get(f"{server.root_url}/metrics").status_code == 401


def test_metrics_may_be_opened_and_a_full_disk_is_not_ready(new_server: ServerMaker, tmp_path: Path) -> None:
    room = shutil.disk_usage(tmp_path).total
    server = new_server(PEGBOX_METRICS_OPEN="true", PEGBOX_MIN_FREE_BYTES=str(room * 2))
    assert httpx.get(f"{server.root_url}/metrics").status_code == 200
    answer = httpx.get(f"{server.root_url}/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert "the disk is nearly full" in answer.json()["reasons"][0]
    assert httpx.get(f"{server.root_url}/healthz").status_code == 200


def test_a_broken_database_is_not_ready(new_server: ServerMaker) -> None:
    server = new_server()
    database = server.data_dir / "pegbox.db"
    for path in (database, database.with_name("pegbox.db-wal"), database.with_name("pegbox.db-shm")):
        if path.exists():
            path.write_bytes(b"this is no database " * 1000)

    def reasons() -> list[str]:
        return list(httpx.get(f"{server.root_url}/readyz").json()["reasons"])

    wait_for(lambda: "the database does not answer" in reasons(), "the database to be missed", 30)


# --- metrics -------------------------------------------------------------------------------------------------


def test_figures_move_with_what_happens(server: Server) -> None:
    client = server.client()
    before = samples(server)
    content = jsonl(rows(12))
    file = upload_bytes(client, content)
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters={"n_epochs": 1})
    done = finished(client, job.id)
    assert done.status == "succeeded"
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=5, temperature=0)
    after = samples(server)

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grew("pegbox_upload_bytes_total") == len(content)
    assert grew("pegbox_jobs_succeeded") == 1
    assert grew("pegbox_train_tokens_total") == done.trained_tokens
    assert grew("pegbox_job_step_seconds_count") == len(steps(story(client, job.id)))
    assert grew("pegbox_prompt_tokens_total") >= answer.usage.prompt_tokens  # and what the receipt asked
    assert grew("pegbox_generation_tokens_total") >= answer.usage.completion_tokens
    assert grew("pegbox_time_to_first_token_seconds_count") >= 1
    assert grew("pegbox_db_commit_seconds_count") > 0
    assert after["pegbox_num_requests_running"] == after["pegbox_num_requests_waiting"] == 0
    assert grew("pegbox_http_requests_total method=POST route=/v1/fine_tuning/jobs status=200") == 1
    assert not [name for name in after if job.id in name or file in name]


def test_paths_that_are_none_make_no_series_of_their_own(server: Server) -> None:
    for i in range(3):
        httpx.get(f"{server.root_url}/v1/nothing-{i}", headers={"authorization": f"Bearer {KEY}"})
        httpx.request(f"VERB{i}", f"{server.root_url}/v1/files")
    assert not [name for name in samples(server) if "nothing" in name or "VERB" in name]


def test_every_figure_is_in_the_documents(server: Server) -> None:
    text = (Path(__file__).parent.parent / "docs" / "operations.md").read_text("utf-8")
    answer = httpx.get(f"{server.root_url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    families = {line.split()[2] for line in answer.splitlines() if line.startswith("# TYPE pegbox_")}
    families = {name for name in families if not name.endswith("_created")}
    shown = {name if not name.startswith("pegbox_jobs_") else "pegbox_jobs_" for name in families}
    assert {name for name in shown if f"`{name}" not in text} == set()


# --- logs ----------------------------------------------------------------------------------------------------


def log_lines(server: Server) -> list[dict[str, object]]:
    lines = server.log.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_every_request_has_a_line_with_the_id_that_its_client_got(new_server: ServerMaker) -> None:
    server = new_server(PEGBOX_LOG="json")
    answer = server.http().get("/files", params={"limit": 3, "secretive": "canary"})
    wanted = answer.headers["x-request-id"]
    wait_for(lambda: [one for one in log_lines(server) if one.get("request_id") == wanted], "the line")
    (line,) = [one for one in log_lines(server) if one.get("request_id") == wanted]
    assert (line["message"], line["method"], line["route"], line["status"]) == ("request", "GET", "/v1/files", 200)
    assert line["level"] == "info"
    assert "canary" not in server.log.read_text("utf-8")


CANARY = "Quetzalcoatlus-northropi"
CANARY_KEY = "sk-canary-0000-this-is-a-key-4711"


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_prompt_and_no_key_is_in_a_log_an_event_or_a_figure(new_server: ServerMaker, form: str) -> None:
    """Attack 17 of docs/security.md."""
    server = new_server(PEGBOX_LOG=form, **LOCAL)
    client, http = server.client(), server.http()
    good = [chat_row(f"{CANARY} question {i}?", f"{CANARY} answer {i}") for i in range(12)]
    broken = [*good, {"messages": [{"role": CANARY, "content": CANARY}]}]
    with receiving() as receiver:
        hook = client.webhooks.create(
            name="hook", url=receiver.url(), event_types=["fine_tuning.job.succeeded", "fine_tuning.job.failed"]
        )
        jobs = [
            client.fine_tuning.jobs.create(
                model="tiny", training_file=upload_bytes(client, jsonl(lines)), hyperparameters={"n_epochs": 1}
            ).id
            for lines in (good, broken)
        ]
        assert [finished(client, job).status for job in jobs] == ["succeeded", "failed"]
        receiver.wait(2)
    model = client.fine_tuning.jobs.retrieve(jobs[0]).fine_tuned_model
    asked = {"model": model, "messages": [{"role": "user", "content": CANARY}], "max_tokens": 3}
    for body in (asked, {**asked, "model": CANARY}, {**asked, CANARY: 1}, {**asked, "messages": CANARY}):
        http.post("/chat/completions", json=body)
    list(client.chat.completions.create(**asked, stream=True))
    http.post("/chat/completions", content=f'{{"messages": "{CANARY}'.encode())
    http.get(f"/files/{CANARY}")
    http.get("/files", headers={"authorization": f"Bearer {CANARY_KEY}"})
    http.get("/files", headers={"api-key": CANARY_KEY})
    figures = http.get(f"{server.root_url}/metrics").text
    server.stop()
    log = server.log.read_text("utf-8")
    assert "/v1/chat/completions" in log
    events = "".join(path.read_text("utf-8") for path in (server.data_dir / "runs").glob("*/events.jsonl"))
    for secret in (CANARY, CANARY_KEY, KEY, hook.signing_secret, hook.signing_secret.removeprefix("whsec_")):
        for place in (log, figures, events, receiver.got[0].body.decode()):
            assert secret not in place


def record(message: str, **more: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "name": "pegbox.x", "levelname": "INFO", "levelno": 20, **more})
    made.request_id = None
    return made


@pytest.mark.parametrize("formatter", [logs.AsText(), logs.AsJSON()])
@pytest.mark.parametrize(
    "secret", ["sk-pegbox-AbC_dEf-123456", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "Bearer abcdef.ghijkl"]
)
def test_what_looks_like_a_secret_is_masked(formatter: logging.Formatter, secret: str) -> None:
    said = formatter.format(record(f"here is {secret}, and more"))
    assert secret not in said
    assert "and more" in said


def test_an_exception_is_told_without_its_words() -> None:
    def choke() -> None:
        try:
            {}[CANARY]
        except KeyError as error:
            raise ValueError(f"can't read {CANARY}") from error

    try:
        choke()
    except ValueError as error:
        caught = record("it broke", exc_info=(type(error), error, error.__traceback__))
    said = json.loads(logs.AsJSON().format(caught))["exception"]
    assert CANARY not in said
    assert "KeyError" in said
    assert "ValueError" in said
    assert "in choke" in said


# --- the end -------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(new_server: ServerMaker) -> Server:
    """A server that trains. What it is asked for takes seconds."""
    server = new_server(PEGBOX_SHUTDOWN_SECONDS="2", PEGBOX_LOG="json")
    client = server.client()
    client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=1)  # the engine is there
    return server


def test_what_is_in_flight_is_answered_and_training_goes_on_at_the_next_start(busy: Server) -> None:
    client = busy.client()
    file = upload_bytes(client, jsonl(rows(30)))
    hyperparameters = {"n_epochs": 5, "batch_size": 1}
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, hyperparameters=hyperparameters, seed=7).id
    wait_for_step(client, job, 3)
    trainer = children(busy, "pegbox.train")
    short: list[object] = []
    first_chunk = threading.Event()
    ended: list[str] = []

    def ask() -> None:
        for _ in range(1000):
            try:
                short.append(client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=3))
            except openai.APIConnectionError:  # it listens no more
                return

    def listen() -> None:
        """Raw, to see how it ends: 400 answers of 100 tokens do not come to their end."""
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 100, "n": 128, "stream": True, "temperature": 2.0}
        with busy.http().stream("POST", "/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                first_chunk.set()
                ended[:] = [line] if line else ended

    threads = [threading.Thread(target=work) for work in (ask, listen)]
    for thread in threads:
        thread.start()
    assert first_chunk.wait(60)
    wait_for(lambda: len(short) >= 2, "some answers")
    assert busy.process is not None
    busy.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    busy.process.wait(60)
    assert json.loads(ended[0].removeprefix("data: "))["error"]["code"] == "server_shutting_down"
    assert gone(trainer)
    log = busy.log.read_text("utf-8")
    assert "Traceback" not in log
    assert "Cancel " not in log  # uvicorn's word for what it had to tear down
    busy.start()
    assert finished(client, job).status == "succeeded"
    told = story(client, job)
    assert steps(told) == list(range(1, 151))
    assert len(resumptions(told)) == 1
    assert resumptions(told)[0] >= 3


def test_a_whole_answer_that_takes_too_long_is_refused_with_503(busy: Server) -> None:
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 100, "n": 128, "temperature": 2.0}
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(busy.http().post("/chat/completions", json=asked)))
    before = samples(busy)["pegbox_prompt_tokens_total"]
    thread.start()
    wait_for(lambda: samples(busy)["pegbox_prompt_tokens_total"] > before, "the request to be in the making")
    busy.stop()
    thread.join(60)
    (answer,) = answers
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_shutting_down")


def test_it_ends_at_once_when_nothing_is_to_be_done(busy: Server) -> None:
    assert busy.process is not None
    family = [psutil.Process(busy.process.pid), *children(busy)]
    began = time.monotonic()
    busy.stop()
    wait_for(lambda: gone(family), "all processes to end", 10)
    assert time.monotonic() - began < 60  # STOP_SECONDS, after which it would have been killed
    assert busy.process.returncode == -signal.SIGTERM
