"""Dying at each commit, flush and rename by name, and the short version of the crash sweep; the long ones are
`benchmarks/crash_sweep.py --kills 2000` and `--points`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.upkeep.collect import Collected, collect
from pegbox.upkeep.store import Store, references
from pegbox.upkeep.verify import damage

ROOT = Path(__file__).parent.parent
# What a server does to its store, in small: an upload, an adapter with its name, a deletion. Says what is acknowledged.
WORK = """
import hashlib, sys
from pathlib import Path
from pegbox import durable
from pegbox.adapters import FILES, Adapters
from pegbox.files import Files
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT

root = Path(sys.argv[1])
db, blobs = Database(root / "pegbox.db"), Blobs(root / "blobs")
files, adapters = Files(db, blobs), Adapters(db, blobs)

def upload(content):
    written = files.incoming()
    with written.open("xb") as out:
        out.write(content)
        durable.sync(out, "upload")
    sha256 = hashlib.sha256(content).hexdigest()
    return files.keep(DEFAULT, written, filename="x", purpose="fine-tune", sha256=sha256).id

print("kept", upload(b"kept"), flush=True)
gone = upload(b"deleted")
files.delete(DEFAULT, gone)
print("gone", gone, flush=True)
source = root / "source"
source.mkdir()
for name in FILES:
    (source / name).write_text(name)
adapters.store(source, "adapters/job/step-1")
with db.write() as tx:
    adapters.publish(tx, DEFAULT, name="ft:x", base="x", job_id="job", format_="chat", key="adapters/job/step-1")
print("named adapters/job/step-1", flush=True)
"""
POINTS = [
    *(f"upload.{step}:{n}" for step in ("fsync", "rename", "folder", "done") for n in (1, 2)),
    *(f"adapter.{step}" for step in ("fsync", "fsync:2", "fsync:3", "rename", "folder", "done")),
    *(f"commit.{step}:{n}" for step in ("before", "done") for n in (1, 2, 3, 4)),
]


def work(root: Path, crash_at: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PEGBOX_CRASH_AT": crash_at}
    return subprocess.run([sys.executable, "-c", WORK, str(root)], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("point", POINTS)
def test_death_at_a_point_loses_nothing_and_shows_nothing_half(tmp_path: Path, point: str) -> None:
    done = work(tmp_path, point)
    assert done.returncode == 137, done.stderr
    store = Store(tmp_path, Database(tmp_path / "pegbox.db"), Blobs(tmp_path / "blobs"))
    with store.db.read() as tx:
        wanted = references(tx)
    assert damage(store.blobs.root, wanted) == []
    said = dict(line.split() for line in done.stdout.splitlines())
    assert said.get("kept") in {None, *wanted.files}
    assert said.get("gone") not in wanted.files
    assert said.get("named") in {None, *wanted.adapters}
    collect(store)
    assert set(store.blobs.keys()) == set(wanted.files) | wanted.adapters
    assert collect(store) == Collected(0, 0, 0, 0)
    store.db.close()


def test_a_point_that_is_not_passed_kills_nobody(tmp_path: Path) -> None:
    used_up = tmp_path / "token"  # it is not there any more
    for i, crash_at in enumerate(("", "upload.rename:3", "no.such", f"upload.rename:1:{used_up}")):
        assert work(tmp_path / str(i), crash_at).returncode == 0, crash_at
    trace = tmp_path / "trace"
    assert work(tmp_path / "traced", f"trace:0:{trace}").returncode == 0
    passed = trace.read_text("ascii").split()
    names = {point.split(":")[0] for point in POINTS}
    assert names <= set(passed), "every point of the table is on the way"
    assert set(passed) - names == set(), "and the table has all that are on the way"


def sweep(*arguments: str) -> dict[str, object]:
    command = [sys.executable, str(ROOT / "benchmarks" / "crash_sweep.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_random_kills_of_server_and_trainer() -> None:
    figures = sweep("--kills", "5", "--seconds", "3", "--seed", "4")
    assert {name: figures[name] for name in ("kills", "lost", "doubled", "half_visible", "unequal")} == {
        "kills": 5, "lost": 0, "doubled": 0, "half_visible": 0, "unequal": 0,
    }  # fmt: skip
    assert figures["jobs_succeeded"] >= 2
