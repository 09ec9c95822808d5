"""A job's events as a stream: what was told, what is told next, and an end."""

import json
import threading
from collections.abc import Iterator

import httpx
from conftest import Server, rows
from following import jsonl, wait_for
from openai import OpenAI


def events(running: Server, job_id: str) -> Iterator[dict[str, object]]:
    """Of a stream, up to its end."""
    with running.http() as http, http.stream("GET", f"/fine_tuning/jobs/{job_id}/events?stream=true") as answer:
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield json.loads(line[6:])
    raise AssertionError("the stream broke off")


def test_many_streams_tell_a_whole_job(server: Server, client: OpenAI):
    file = client.files.create(file=("rows.jsonl", jsonl(rows(10))), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file.id)
    found: list[list[object]] = [[] for _ in range(8)]

    def follow(into: list[object]) -> None:
        into.extend(event["id"] for event in events(server, job.id))

    threads = [threading.Thread(target=follow, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
    whole = [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=100)][::-1]
    assert len(whole) > 10
    assert found == [whole] * 8


def test_a_stream_ends_with_its_job(server: Server, client: OpenAI):
    file = client.files.create(file=("rows.jsonl", jsonl(rows(10))), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file.id, hyperparameters={"n_epochs": 50})
    told: list[dict[str, object]] = []
    thread = threading.Thread(target=lambda: told.extend(events(server, job.id)))
    thread.start()
    wait_for(lambda: told or not thread.is_alive(), "the first event")
    client.fine_tuning.jobs.cancel(job.id)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert told[-1]["message"] == "Fine tuning process stopping due to job cancellation"


def test_a_stream_of_no_job(server: Server):
    with server.http() as http:
        answer = http.get("/fine_tuning/jobs/ftjob-none/events", params={"stream": "true"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "fine_tune_not_found")
