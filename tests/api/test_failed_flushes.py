"""A flush that failed, of the database's log and of its data file: after it nobody knows what is on the disk, so what was
acknowledged is written anew before anything more is stored."""

import shutil
from pathlib import Path

import httpx
from conftest import Server, ServerMaker, finished, rows
from faulty_disk import injected, is_sound, left, said, send
from following import jsonl, steps, story, wait_for, wait_for_step

from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.upkeep.collect import collect
from pegbox.upkeep.store import Store

LOG, DATA = "pegbox.db-wal", "pegbox.db"
COPIED_AFTER = 1_300 * 4_096  # bytes of the log; SQLite copies it when it has 1,000 pages
EPOCH, EPOCHS = 20, 5


def sizes(running: Server) -> list[int]:
    with running.http() as http:
        return [file["bytes"] for file in http.get("/files").json()["data"]]


def readiness(running: Server) -> httpx.Response:
    return httpx.get(f"{running.root_url}/readyz")


def test_nothing_is_stored_until_the_disk_is_well_again(new_server: ServerMaker) -> None:
    running = new_server()
    assert send(running, b"before").status_code == 200
    assert readiness(running).status_code == 200
    with injected(running, "fsync", "error=EIO", below=LOG):
        text = said(send(running, b"doubtful"), 503, "storage_unavailable")
        assert "may be there or not" in text
        assert "nothing was stored" in said(send(running, b"more"), 503, "storage_unavailable")
        (reason,) = readiness(running).json()["reasons"]
        assert reason.startswith("the disk failed")
        assert sizes(running) == [len(b"before")], "reading goes on"
    wait_for(lambda: readiness(running).status_code == 200, "the server to be ready without hands", 30)
    running.kill()
    running.start()
    assert sizes(running) == [len(b"before")], "and what was not acknowledged does not come back"
    assert send(running, b"after").status_code == 200
    assert left(running) == []
    running.kill()
    is_sound(running.data_dir)


def test_one_flush_that_failed_is_settled_at_once(new_server: ServerMaker) -> None:
    running = new_server()
    assert sizes(running) == []  # the first use of the key is written down
    with injected(running, "fsync", "error=EIO:when=1", below=LOG):
        assert "nothing was stored" in said(send(running, b"x"), 503, "storage_unavailable")
        assert readiness(running).status_code == 200
    running.kill()
    running.start()
    assert sizes(running) == []
    running.kill()


def test_a_collector_in_between_leaves_no_row_without_bytes(new_server: ServerMaker) -> None:
    """It removes the bytes of a row that failed; the row must not come back after that."""
    running = new_server()
    root = running.data_dir
    assert sizes(running) == []  # the first use of the key is written down
    with injected(running, "fsync", "error=EIO", below=LOG):
        assert "may be there or not" in said(send(running, b"doubtful"), 503, "storage_unavailable")
        store = Store(root, Database(root / DATA), Blobs(root / "blobs"))
        assert collect(store).blobs == 1
        store.db.close()
        running.kill()
    running.start()
    assert sizes(running) == []
    running.kill()
    is_sound(root)


def test_a_flush_of_the_data_file_that_fails_is_not_believed_later(new_server: ServerMaker, tmp_path: Path) -> None:
    """SQLite copies its log into the data file now and then, and says nothing where that fails. All that was written
    there since counts as lost: the log must still hold everything."""
    running = new_server(PEGBOX_WORK_JOBS="false")
    wish = {"model": "tiny", "training_file": send(running, jsonl(rows(12))).json()["id"]}
    wish["metadata"] = {str(number): "x" * 500 for number in range(16)}  # so that the log grows quickly
    before = Path(shutil.copyfile(running.data_dir / DATA, tmp_path / "before"))
    made = []
    with injected(running, "fsync", "error=EIO", below=DATA), running.http() as http:
        while (running.data_dir / LOG).stat().st_size < COPIED_AFTER:
            made.append(http.post("/fine_tuning/jobs", json=wish).json()["id"])
        running.kill()
    shutil.copyfile(before, running.data_dir / DATA)
    running.start()
    client = running.client()
    assert [job.id for job in client.fine_tuning.jobs.list(limit=100)] == made[::-1]
    running.kill()


def test_a_job_at_work_goes_on_after_it(new_server: ServerMaker) -> None:
    running = new_server()
    client = running.client()
    file_id = send(running, jsonl(rows(EPOCH))).json()["id"]
    hyperparameters = {"n_epochs": EPOCHS, "batch_size": 1}
    job_id = client.fine_tuning.jobs.create(model="tiny", training_file=file_id, hyperparameters=hyperparameters).id
    wait_for_step(client, job_id, 3)
    with injected(running, "fsync", "error=EIO:when=1", below=LOG):
        wait_for(lambda: "a commit failed" in running.log.read_text("utf-8"), "the fault to be met", 30)
    assert finished(client, job_id).status == "succeeded"
    assert steps(story(client, job_id)) == list(range(1, EPOCH * EPOCHS + 1)), "each step is told once"
    running.kill()
    is_sound(running.data_dir)
