"""How much a server bears: job reads, durable creates, event streams that wait, pages of a million events, claims.

    .venv/bin/python benchmarks/load.py [--seconds 10] [--training]

Needs `wrk` (Debian: `apt-get install wrk`). Server and clients share this machine's cores. Reads and creates go through
HTTP with a key; a create is acknowledged when its row is synced to disk. This server works on no jobs
(`PEGBOX_WORK_JOBS=false`). With `--training` the same is measured once more while a job trains on the default base
(`pegbox models pull`); both are printed.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from openai import OpenAI
from sqlalchemy import insert

from pegbox.queue import store
from pegbox.queue.states import Status
from pegbox.storage.db import Database
from pegbox.storage.tables import events, jobs
from pegbox.testing import ServerProcess

KEY = "sk-load"
STREAMS = 1_000
EVENTS = 1_000_000
QUEUE = 10_000
CLAIMS = 500
MODEL = "smollm2-135m-instruct"
USUAL = 8  # enough to keep one server process busy; more only wait for each other
CONNECTIONS = (1, USUAL, 16)
CREATORS = 16
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Rate:
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int  # answers that were no 2xx


def main() -> None:
    asked = _arguments()
    figures: dict[str, object] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        figures |= claims(Path(scratch) / "queue")
        print(figures, flush=True)
        figures |= through_http(Path(scratch) / "idle", asked.seconds, training=False)
        if asked.training:
            busy = through_http(Path(scratch) / "busy", asked.seconds, training=True)
            figures |= {f"training_{name}": value for name, value in busy.items()}
    print("RESULT", json.dumps(figures))


def through_http(folder: Path, seconds: int, *, training: bool) -> dict[str, object]:
    with ServerProcess(folder / "data", KEY, {} if training else {"PEGBOX_WORK_JOBS": "false"}) as server:
        client = OpenAI(base_url=server.base_url, api_key=KEY)
        file = client.files.create(file=("rows.jsonl", _rows(2_000 if training else 10)), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        if training:
            while client.fine_tuning.jobs.retrieve(job.id).status != "running":
                time.sleep(0.5)
            while not any("Step 1/" in e.message for e in client.fine_tuning.jobs.list_events(job.id, limit=3)):
                time.sleep(0.5)
        else:
            client.fine_tuning.jobs.cancel(job.id)
            while (left := list(client.fine_tuning.jobs.list(limit=1)))[0].status in ("validating_files", "running"):
                del left
                time.sleep(0.1)
        time.sleep(1)
        fill_events(server.data_dir, job.id)
        job_url = f"{server.base_url}/fine_tuning/jobs/{job.id}"
        reads = {n: wrk(job_url, seconds, connections=n) for n in CONNECTIONS}
        pages = {n: wrk(f"{job_url}/events?limit=20&after=e500000", seconds, connections=n) for n in CONNECTIONS}
        streams = idle_streams(server, _waiting(client, file.id))
        body = {"model": MODEL, "training_file": file.id}
        creates = wrk(f"{server.base_url}/fine_tuning/jobs", seconds, connections=CREATORS, body=json.dumps(body))
    return {
        "job_reads_per_second": reads[USUAL].per_second, "job_reads": _by_connections(reads),
        "events_page": _by_connections(pages),
        "idle_streams": STREAMS, "idle_streams_mb": streams,
        "job_creates_per_second": creates.per_second, "job_creates": asdict(creates),
    }  # fmt: skip


def _by_connections(rates: dict[int, Rate]) -> dict[str, object]:
    return {f"{n}_connections": asdict(rate) for n, rate in rates.items()}


def wrk(url: str, seconds: int, *, connections: int, body: str | None = None) -> Rate:
    """One thread of clients that ask as soon as they have an answer."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Authorization: Bearer {KEY}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body is not None:
            script.write(f"wrk.method='POST'\nwrk.headers['Content-Type']='application/json'\nwrk.body=[[{body}]]\n")
            script.flush()
            command += ["-s", script.name]
        said = subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    quantile = {q: float(n) * _UNITS[unit] for q, n, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\b", said)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None, said
    found = Rate(float(rate[1]), quantile["50"], quantile["99"], int(failed[1]) if failed else 0)
    print(f"{url.split('/v1')[1][:60]:62} {connections:2} connections {found}", flush=True)
    return found


def _waiting(client: OpenAI, file_id: str) -> str:
    """A job that nothing will happen to."""
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=file_id)
    client.fine_tuning.jobs.pause(job.id)
    return job.id


def idle_streams(server: ServerProcess, job_id: str) -> float:
    """By how many MB the server grows while so many streams wait."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    request = f"GET /v1/fine_tuning/jobs/{job_id}/events?stream=true HTTP/1.1\r\nHost: localhost\r\n"
    request += f"Authorization: Bearer {KEY}\r\n\r\n"
    before = process.memory_info().rss
    opened = []
    try:
        for _ in range(STREAMS):
            one = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            one.sendall(request.encode())
            opened.append(one)
        for one in opened:
            assert b"200 OK" in one.recv(65_536)
        time.sleep(3)  # so that every stream has told what there is, and waits
        return round((process.memory_info().rss - before) / 1e6, 1)
    finally:
        for one in opened:
            one.close()


def fill_events(data_dir: Path, job_id: str) -> None:
    """As if the job had told a million lines. Written beside the running server, as another process would."""
    db = Database(data_dir / "pegbox.db")
    for start in range(0, EVENTS, 50_000):
        rows = [
            {
                "id": f"e{i}", "job_id": job_id, "key": f"load:{i}", "created_at": 1, "level": "info",
                "type": "metrics", "message": f"Step {i}: training loss=1.00", "data": {"step": i, "train_loss": 1.0},
            }
            for i in range(start, start + 50_000)
        ]  # fmt: skip
        with db.write() as tx:
            tx.execute(insert(events), rows)
    db.close()


def claims(folder: Path) -> dict[str, object]:
    """Claims out of a long queue, each a synced transaction, from two threads."""
    db = Database(folder / "pegbox.db")
    with db.write() as tx:
        waiting = [{"id": f"job{i}", "status": Status.QUEUED, "created_at": 1, "attempt": 0} for i in range(QUEUE)]
        tx.execute(insert(jobs), waiting)
    took: list[float] = []

    def work() -> None:
        for _ in range(CLAIMS // 2):
            began = time.perf_counter()
            assert store.claim(db, (Status.QUEUED,)) is not None
            took.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    db.close()
    return {
        "queue": QUEUE,
        "claim_p50_ms": statistics.median(took),
        "claim_p99_ms": statistics.quantiles(took, n=100)[98],
    }


def _rows(n: int) -> bytes:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"What is {i} plus one?"},
                {"role": "assistant", "content": str(i + 1)},
            ]
        }
        for i in range(n)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="for each rate")
    parser.add_argument("--training", action="store_true", help="measure again while a job trains")
    return parser.parse_args()


if __name__ == "__main__":
    main()
