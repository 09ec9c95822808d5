"""Kill the server and its trainers with SIGKILL at random moments of a mixed load, and hold what they left against what
was acknowledged.

    .venv/bin/python benchmarks/crash_sweep.py --kills 2000
    .venv/bin/python benchmarks/crash_sweep.py --points        # die at every commit, fsync and rename instead

Stock clients upload, create, cancel, pause, resume and delete; each call and each answer goes into a history. After
each kill the bytes on the disk are held against the rows, the server is started again, and it is asked for everything
that was ever acknowledged. At the end every job is let go to its end, and its adapter must have the bytes of an
undisturbed one.

lost          acknowledged and not there, or not as acknowledged; a job that failed, unless it was killed so many times
              in a row that the server gave it up (`jobs_given_up`)
doubled       a call that made two jobs, an event told twice, a run directory with two trainers
half_visible  a row whose bytes are not whole, a model that was announced and is not there
"""

import argparse
import collections
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from crash_history import FINAL, History
from crash_load import Load, training_rows
from openai import OpenAI
from tiny_model import in_process

from pegbox.catalog.models import MANIFEST, BaseModel, save_manifest
from pegbox.storage.db import Database
from pegbox.testing import ServerProcess
from pegbox.upkeep.store import references
from pegbox.upkeep.verify import damage

KEY = "sk-sweep-0123456789abcdef"
TRAINER_SHARE = 0.25  # of the kills
_PATIENCE = 900


class Sweep:
    """One server, its data directory, and the history of what it said."""

    def __init__(self, root: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        weights, entry = in_process(root / "weights"), root / "models" / "tiny"
        entry.mkdir(parents=True)
        save_manifest(
            entry / MANIFEST,
            BaseModel(
                name="tiny", folder=str(weights), created_at=1, source="benchmark", formats=("chat", "completion"),
                context=512, hidden_size=64, parameters=1, license="Apache-2.0", fingerprint="tiny",
            ),
        )  # fmt: skip
        settings = {"PEGBOX_MODELS_DIR": str(root / "models"), "PEGBOX_THREADS": "1", "PEGBOX_CHECK_SECONDS": "0"}
        self.server = ServerProcess(root / "data", KEY, settings)
        self.history = History()
        self.where: collections.Counter[str] = collections.Counter()

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.server.base_url, api_key=KEY, timeout=20)

    def start(self, crash_at: str | None = None) -> None:
        settings = {name: value for name, value in self.server.settings.items() if name != "PEGBOX_CRASH_AT"}
        self.server.settings = settings | ({"PEGBOX_CRASH_AT": crash_at} if crash_at else {})
        self.server.start()

    def trainers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "pegbox.train" in words and any(str(self.server.data_dir) in word for word in words):
                found.append(process)
        return found

    def kill(self) -> None:
        """The server or, where one is at work, a trainer."""
        trainers = self.trainers()
        if trainers and self.draw.random() < TRAINER_SHARE:
            with suppress(psutil.NoSuchProcess):
                self.draw.choice(trainers).kill()
            self.where["trainer"] += 1
            return
        self.server.kill()
        self.where["server, training" if trainers else "server"] += 1
        self.look_at_the_disk()
        self.start()

    def look_at_the_disk(self) -> None:
        """Between two lives: what has a row is whole."""
        root = self.server.data_dir
        db = Database(root / "pegbox.db")
        with db.read() as tx:
            wanted = references(tx)
        db.close()
        for one in damage(root / "blobs", wanted):
            self.history.fault("half_visible", f"{one.key} {one.text}")

    def look_at_the_server(self) -> None:
        runs = [process.info["cmdline"][-1] for process in self.trainers()]
        for run in {run for run in runs if runs.count(run) > 1}:
            self.history.fault("doubled", f"two trainers in {run}")
        with self.client() as client:
            self.history.check(client, self.draw)

    def settle(self) -> None:
        """Let everything come to its end, undisturbed."""
        with self.client() as client:
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                jobs = list(client.fine_tuning.jobs.list(limit=100))
                for job in jobs:
                    if job.status == "paused":
                        client.fine_tuning.jobs.resume(job.id)
                        self.history.resumed(job.id)
                if all(job.status in FINAL for job in jobs):
                    return
                time.sleep(0.2)
        self.history.fault("lost", "a job did not come to its end")

    def compare_adapters(self) -> None:
        """A job that was interrupted ends with the bytes of one that was not."""
        found: dict[str, set[str]] = collections.defaultdict(set)
        with self.client() as client:
            for job in client.fine_tuning.jobs.list(limit=100):
                kind = (job.metadata or {}).get("kind", "")
                if job.status == "succeeded" and kind:
                    folder = max((self.server.data_dir / "blobs" / "adapters" / job.id).glob("step-*"))
                    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
                    found[kind].add(digest)
                    self.history.ended += 1
        for kind, digests in found.items():
            if len(digests) > 1:
                self.history.fault("unequal", f"jobs of kind {kind} ended with {len(digests)} different adapters")


def at_random(sweep: Sweep, kills: int, seconds: float) -> None:
    """Every kind of job goes undisturbed once; then the load goes on, and so do the kills."""
    sweep.start()
    with sweep.client() as client:
        Load(client, sweep.history, random.Random(0)).each_kind()
    sweep.settle()
    loads = [Load.thread(sweep.client, sweep.history, sweep.draw.randrange(2**31)) for _ in range(2)]
    for load in loads:
        load.start()
    for i in range(kills):
        time.sleep(sweep.draw.uniform(0, seconds) * (4 if sweep.draw.random() < 0.2 else 1))
        sweep.kill()
        sweep.look_at_the_server()
        if (i + 1) % 10 == 0 or i + 1 == kills:
            print(f"{i + 1:5} kills  {sweep.history.summary()}", flush=True)
    for load in loads:
        load.stop()
    sweep.settle()
    sweep.look_at_the_server()
    sweep.compare_adapters()
    sweep.server.stop()
    sweep.look_at_the_disk()


def at_every_point(sweep: Sweep, most: int, only: str | None) -> int:
    """Once through the story with a note of each point that is passed; then die at each of them, first to last pass."""
    notes = Path(tempfile.mkdtemp(dir="/dev/shm"))  # a trainer is confined to its run's folder, and to devices
    trace, token = notes / "trace", notes / "token"
    sweep.start(f"trace:0:{trace}")
    with sweep.client() as client:
        load = Load(client, sweep.history, random.Random(0))
        load.each_kind()
        sweep.settle()
        load.story()
    sweep.server.stop()
    passed = collections.Counter(trace.read_text("ascii").split())
    points = [
        (name, n)
        for name, count in sorted(passed.items())
        for n in sorted({1, 2, (count + 1) // 2, count} & set(range(1, count + 1)))
    ]
    points = [point for point in points if only is None or point[0].startswith(only)][:most]
    died = 0
    for name, n in points:
        token.touch()
        with suppress(RuntimeError):  # it may die before it answers at all
            sweep.start(f"{name}:{n}:{token}")
        with sweep.client() as client:
            Load(client, sweep.history, random.Random(f"{name}{n}")).story(lambda: not token.exists())
        hit = not token.exists()
        died += hit
        token.unlink(missing_ok=True)
        sweep.server.stop()
        sweep.look_at_the_disk()
        sweep.start()
        sweep.look_at_the_server()
        sweep.settle()
        sweep.look_at_the_server()
        print(f"{name}:{n}  {'died' if hit else 'not passed'}  {sweep.history.summary()}", flush=True)
        sweep.server.stop()
    sweep.start()
    sweep.compare_adapters()
    sweep.server.stop()
    shutil.rmtree(notes)
    sweep.where = collections.Counter({"points": len(points), "died": died})
    return died


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.5, help="longest time between two kills, four out of five")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", action="store_true")
    parser.add_argument("--only", help="points whose names begin so")
    parser.add_argument("--most", type=int, default=10_000, help="points to try")
    asked = parser.parse_args()
    began = time.monotonic()
    print(f"seed {asked.seed}; a job trains on {len(training_rows('a'))} rows", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        sweep = Sweep(Path(scratch), asked.seed)
        kills = asked.kills
        try:
            if asked.points:
                kills = at_every_point(sweep, asked.most, asked.only)
            else:
                at_random(sweep, asked.kills, asked.seconds)
        finally:
            sweep.server.stop()
    history = sweep.history
    figures = {
        "kills": kills, **{name: history.count(name) for name in ("lost", "doubled", "half_visible", "unequal")},
        "calls": history.calls, "unanswered": history.unanswered, "server_errors": history.server_errors,
        "jobs_succeeded": history.ended, "jobs_given_up": history.given_up, "where": dict(sweep.where),
        "seed": asked.seed, "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(figures))
    sys.exit(bool(history.faults))


if __name__ == "__main__":
    main()
