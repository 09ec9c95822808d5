"""A disk on which every flush takes long: what is acknowledged is true, reading goes on, and no worker loses its job."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
from conftest import KEY, Server, ServerMaker, rows
from faulty_disk import injected, is_sound, send
from following import jsonl, resumptions, steps, story, wait_for_step

FLUSHES = "fsync,fdatasync"
LATE = "delay_enter=300ms"


@contextmanager
def reading(running: Server, path: str) -> Iterator[list[int]]:
    """Ask for that again and again meanwhile; the statuses of the answers."""
    over, seen = threading.Event(), []

    def read() -> None:
        with httpx.Client(base_url=running.base_url, headers={"authorization": f"Bearer {KEY}"}, timeout=30) as http:
            while not over.wait(0.02):
                seen.append(http.get(path).status_code)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        over.set()
        reader.join()


def test_a_slow_disk(new_server: ServerMaker) -> None:
    """Uploads and creates side by side, while a job trains; then the power goes, and each answer is held to."""
    running = new_server()
    client = running.client()
    file_id = send(running, jsonl(rows(20))).json()["id"]
    wish = {"model": "tiny", "training_file": file_id, "hyperparameters": {"n_epochs": 50, "batch_size": 1}}
    job_id = client.fine_tuning.jobs.create(**wish).id
    wait_for_step(client, job_id, 3)

    def write(number: int) -> httpx.Response:
        if number % 2:
            return send(running, b"x" * number)
        with running.http() as http:
            return http.post("/fine_tuning/jobs", json={**wish, "metadata": {"number": str(number)}})

    with injected(running, FLUSHES, LATE):
        with reading(running, f"/fine_tuning/jobs/{job_id}") as statuses, ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(write, range(12)))
        told = wait_for_step(client, job_id, max(steps(story(client, job_id))) + 2)
        running.kill()
    assert {answer.status_code for answer in answers} == {200}, "nothing errs for being slow"
    assert set(statuses) == {200}
    assert len(statuses) > len(answers), "who reads does not wait for those who write"
    assert [event.level for event in told if event.level == "error"] == []
    assert resumptions(told) == [], "its worker kept it"

    running.start()
    with running.http() as http:
        for number, answer in enumerate(answers):
            made = answer.json()["id"]
            if number % 2:
                assert http.get(f"/files/{made}/content").content == b"x" * number
            else:
                assert http.get(f"/fine_tuning/jobs/{made}").json()["metadata"] == {"number": str(number)}
    running.kill()
    is_sound(running.data_dir)
