"""What an operator does beside the server: collect, back up, restore, examine. Against a real store, and a real server."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from conftest import Server, ServerMaker, finished, free_port, rows, upload_bytes
from following import jsonl, wait_for_step
from sqlalchemy import insert

from pegbox.adapters import FILES, Adapters
from pegbox.catalog.models import MANIFEST, load_manifest, save_manifest
from pegbox.catalog.pull import fingerprint
from pegbox.errors import CommandFailed
from pegbox.files import File, Files
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import jobs
from pegbox.train.rundir import RunDir
from pegbox.upkeep.backup import backup, restore
from pegbox.upkeep.collect import Collected, collect
from pegbox.upkeep.doctor import examine
from pegbox.upkeep.store import Store, references
from pegbox.upkeep.verify import damage

NOTHING = Collected(blobs=0, halves=0, runs=0, reports=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    root = tmp_path / "data"
    root.mkdir(mode=0o700)
    made = Store(root, Database(root / "pegbox.db"), Blobs(root / "blobs"))
    yield made
    made.db.close()


def keep(store: Store, content: bytes) -> File:
    """A file as an upload makes it."""
    shelf = Files(store.db, store.blobs)
    file = shelf.put(content, filename="rows.jsonl", purpose="fine-tune")
    with store.db.write() as tx:
        shelf.record(tx, DEFAULT, file)
    return file


def add_job(store: Store, job_id: str, status: str) -> RunDir:
    with store.db.write() as tx:
        tx.execute(insert(jobs).values(id=job_id, status=status, created_at=1, attempt=1))
    run = RunDir(store.root / "runs" / job_id)
    run.create()
    run.train_data.write_bytes(b"{}\n")
    run.recipe_path.write_bytes(b"{}")
    return run


def add_adapter(store: Store, job_id: str, step: int, *, named: bool) -> str:
    shelf, key = Adapters(store.db, store.blobs), f"adapters/{job_id}/step-{step:06d}"
    source = store.root / "source"
    source.mkdir(exist_ok=True)
    for name in FILES:
        (source / name).write_bytes(f"{name} {key}".encode())
    shelf.store(source, key)
    shutil.rmtree(source)
    if named:
        with store.db.write() as tx:
            shelf.publish(
                tx, DEFAULT, name=f"ft:tiny:{job_id}:{step}", base="tiny", job_id=job_id, format_="chat", key=key
            )
    return key


# --- the collector ---------------------------------------------------------------------------------------------


def test_only_what_belongs_to_nothing_is_collected(store: Store) -> None:
    file = keep(store, b"kept")
    going, ended = add_job(store, "ftjob-going", "running"), add_job(store, "ftjob-ended", "succeeded")
    kept = [
        file.id,
        add_adapter(store, "ftjob-going", 1, named=False),  # its worker is about to name it
        add_adapter(store, "ftjob-ended", 1, named=True),
    ]
    store.blobs.put("file-orphan", b"a crash fell between its name and its row")
    orphan = add_adapter(store, "ftjob-ended", 2, named=False)
    stray = add_adapter(store, "ftjob-unknown", 1, named=False)
    (store.root / "runs" / "ftjob-unknown").mkdir()
    (store.root / "runs" / "ftjob-unknown" / "log.txt").write_text("x", "utf-8")
    (store.root / "reports").mkdir()
    for name in (f"{file.id}.0123.json", f"{file.id}+file-gone.0123.json", "file-gone.0123.json"):
        (store.root / "reports" / name).write_bytes(b"{}")

    assert collect(store) == Collected(blobs=3, halves=0, runs=2, reports=2)
    assert store.blobs.keys() == sorted(kept)
    assert not store.blobs.path(orphan).exists()
    assert not store.blobs.path(stray).parent.exists()
    assert going.train_data.exists()
    assert not (ended.path / "data").exists()
    assert ended.recipe_path.exists(), "what outlives a job stays"
    assert [path.name for path in (store.root / "reports").iterdir()] == [f"{file.id}.0123.json"]
    assert collect(store) == NOTHING


def test_half_written_things_go_when_their_process_is_gone(store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from pegbox.storage.blobs import Blobs\n"
        "blobs = Blobs(Path(sys.argv[1])); blobs.begin().write_bytes(b'half'); blobs.begin().mkdir()\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(store.blobs.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"ready\n"
    assert collect(store) == NOTHING, "another server's upload"
    writer.kill()
    writer.communicate()
    assert collect(store) == replace(NOTHING, halves=2)


def test_the_collector_waits_for_a_naming_in_flight(store: Store) -> None:
    """Bytes that have their name and not yet their row are never taken away."""
    shelf, collected, found = Files(store.db, store.blobs), threading.Event(), []

    def run() -> None:
        found.append(collect(store))
        collected.set()

    thread = threading.Thread(target=run)
    with shelf.naming():
        file = shelf.put(b"about to be acknowledged", filename="x", purpose="fine-tune")
        thread.start()
        assert not collected.wait(0.5)
        with store.db.write() as tx:
            shelf.record(tx, DEFAULT, file)
    thread.join()
    assert found == [NOTHING]
    assert shelf.path(file).read_bytes() == b"about to be acknowledged"


def test_uploads_while_the_collector_runs_all_stay(store: Store) -> None:
    shelf, over, kept = Files(store.db, store.blobs), threading.Event(), []

    def write() -> None:
        for i in range(60):
            written = shelf.incoming()
            written.write_bytes(b"%d" % i)
            kept.append(shelf.keep(DEFAULT, written, filename="x", purpose="fine-tune", sha256=""))
            if i % 3 == 0:
                shelf.delete(DEFAULT, kept.pop().id)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    runs = 0
    while not over.is_set() or not runs:
        collect(store)
        runs += 1
    writer.join()
    assert store.blobs.keys() == sorted(file.id for file in kept)


def test_damage_is_found_wherever_it_is(store: Store) -> None:
    files = [keep(store, b"one"), keep(store, b"two"), keep(store, b"three")]
    keys = [add_adapter(store, "ftjob-1", step, named=True) for step in range(1, 5)]
    with store.db.read() as tx:
        wanted = references(tx)
    assert damage(store.blobs.root, wanted) == []
    store.blobs.path(files[0].id).write_bytes(b"onf")
    store.blobs.path(files[1].id).unlink()
    (store.blobs.path(keys[0]) / FILES[0]).write_bytes(b"")
    (store.blobs.path(keys[1]) / FILES[1]).unlink()
    shutil.rmtree(store.blobs.path(keys[2]))
    found = {one.key: one.text for one in damage(store.blobs.root, wanted)}
    assert set(found) == {files[0].id, files[1].id, *keys[:3]}
    assert found[files[0].id].startswith("has other bytes than were stored")
    assert found[files[1].id] == found[keys[2]] == "is missing"
    assert found[keys[1]] == f"{FILES[1]} is missing"


# --- backup and restore ----------------------------------------------------------------------------------------


def test_a_backup_is_one_moment_and_comes_back_whole(store: Store, tmp_path: Path) -> None:
    file, gone = keep(store, b"kept"), keep(store, b"deleted later")
    key = add_adapter(store, "ftjob-1", 1, named=True)
    add_job(store, "ftjob-1", "running")
    made = backup(store, tmp_path / "backup")
    assert made.damaged == ()
    Files(store.db, store.blobs).delete(DEFAULT, gone.id)
    assert list((store.root / "blobs" / "incoming").glob("*/*/")) == [], "its links are gone"

    restore(tmp_path / "backup", tmp_path / "again")
    again = Store(tmp_path / "again", Database(tmp_path / "again" / "pegbox.db"), Blobs(tmp_path / "again" / "blobs"))
    with again.db.read() as tx:
        wanted = references(tx)
    assert set(wanted.files) == {file.id, gone.id}
    assert wanted.adapters == {key}
    assert damage(again.blobs.root, wanted) == []
    assert (tmp_path / "again" / "runs" / "ftjob-1" / "checkpoints").is_dir(), "a folder that was empty"
    assert collect(again) == NOTHING
    again.db.close()


@pytest.mark.parametrize("how", ["changed", "missing", "no manifest", "torn manifest", "outside"])
def test_a_backup_that_is_not_whole_is_refused(store: Store, tmp_path: Path, how: str) -> None:
    file, folder = keep(store, b"kept"), tmp_path / "backup"
    backup(store, folder)
    manifest = folder / "manifest.json"
    if how == "changed":
        (folder / "blobs" / file.id).write_bytes(b"kepT")
    elif how == "missing":
        (folder / "blobs" / file.id).unlink()
    elif how == "no manifest":
        manifest.unlink()
    elif how == "torn manifest":
        manifest.write_bytes(manifest.read_bytes()[:-9])
    else:
        values = json.loads(manifest.read_bytes())
        values["files"]["../outside"] = values["files"].pop(f"blobs/{file.id}")
        manifest.write_text(json.dumps(values), "utf-8")
    with pytest.raises(CommandFailed, match=r"backup"):
        restore(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data"], "nothing half-made is left"


def test_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    backup(store, tmp_path / "backup")
    with pytest.raises(CommandFailed, match="is not empty"):
        backup(store, tmp_path / "backup")
    with pytest.raises(CommandFailed, match="is not empty"):
        restore(tmp_path / "backup", store.root)


def test_a_backup_says_what_was_damaged_already(store: Store, tmp_path: Path) -> None:
    file = keep(store, b"kept")
    store.blobs.path(file.id).write_bytes(b"rotten")
    (said,) = backup(store, tmp_path / "backup").damaged
    assert said.startswith(f"{file.id} has other bytes")


def command(*arguments: str, models: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "pegbox.cli.main", *arguments]
    settings = {"PEGBOX_MODELS_DIR": str(models), **env}
    import os

    kept = {name: value for name, value in os.environ.items() if not name.startswith("PEGBOX_")}
    return subprocess.run(line, capture_output=True, text=True, check=False, env={**kept, **settings})


def test_a_job_at_work_goes_on_from_a_backup_made_while_serving(
    new_server: ServerMaker, tiny_catalog: Path, tmp_path: Path
) -> None:
    """The restored server ends the job with the same bytes as the one that was never disturbed."""
    running = new_server()
    client = running.client()
    training = upload_bytes(client, jsonl(rows(20)))
    job_id = client.fine_tuning.jobs.create(
        model="tiny", training_file=training, seed=7, hyperparameters={"n_epochs": 4, "batch_size": 1}
    ).id
    wait_for_step(client, job_id, 25)
    done = command("backup", str(tmp_path / "copy"), "--data-dir", str(running.data_dir), models=tiny_catalog)
    assert done.returncode == 0, done.stderr
    undisturbed = finished(client, job_id)
    running.stop()

    data = tmp_path / "elsewhere" / "data"
    done = command("restore", str(tmp_path / "copy"), "--data-dir", str(data), models=tiny_catalog)
    assert done.returncode == 0, done.stderr
    assert "files, of " in done.stdout
    again = Server(data, tiny_catalog).start()
    try:
        job = finished(again.client(), job_id)
        assert (job.status, job.trained_tokens) == ("succeeded", undisturbed.trained_tokens), job.error
        assert again.client().files.content(training).content == jsonl(rows(20))
    finally:
        again.close()
    name = f"blobs/adapters/{job_id}/step-000080/{FILES[0]}"
    assert (data / name).read_bytes() == (running.data_dir / name).read_bytes()


# --- the doctor ------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A models directory with one base, whose fingerprint is true."""
    weights, entry = tmp_path / "weights", tmp_path / "models" / "tiny"
    shutil.copytree(tiny_model, weights)
    entry.mkdir(parents=True)
    values = {
        "name": "tiny", "folder": str(weights), "created_at": 1, "source": "tests", "formats": ("chat",), "context": 512,
        "hidden_size": 64, "parameters": 1, "license": "Apache-2.0", "fingerprint": fingerprint(weights),
    }  # fmt: skip
    from pegbox.catalog.models import BaseModel

    save_manifest(entry / MANIFEST, BaseModel(**values))
    assert asdict(load_manifest(entry / MANIFEST))["name"] == "tiny"
    return tmp_path / "models"


def states(settings: Settings) -> dict[str, tuple[str, str]]:
    return {one.name: (one.state, one.text) for one in examine(settings)}


def test_a_sound_server_is_well_in_all(store: Store, base: Path) -> None:
    keep(store, b"kept")
    add_job(store, "ftjob-1", "running")
    found = states(Settings(data_dir=store.root, models_dir=base, max_file_bytes=1024))
    assert {state for state, _ in found.values()} == {"well"}, found
    assert list(found) == [
        "data directory", "database", "stored bytes", "run directories", "garbage", "room", "base model tiny", "mail",
    ]  # fmt: skip


def test_each_fault_is_found_and_has_a_remedy(store: Store, base: Path) -> None:
    file = keep(store, b"kept")
    store.blobs.path(file.id).write_bytes(b"rotten")
    store.blobs.put("file-orphan", b"x")
    shutil.rmtree(add_job(store, "ftjob-1", "queued").path)
    store.root.chmod(0o755)
    weights = base.parent / "weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    settings = Settings(
        data_dir=store.root, models_dir=base, max_stored_bytes=1, smtp_host="127.0.0.1", smtp_port=free_port()
    )
    found = {one.name: one for one in examine(settings)}
    assert {name: one.state for name, one in found.items()} == {
        "data directory": "watch", "database": "well", "stored bytes": "broken", "run directories": "broken",
        "garbage": "watch", "room": "broken", "base model tiny": "broken", "mail": "broken",
    }  # fmt: skip
    assert all(one.remedy for one in found.values() if one.state != "well")


def test_a_damaged_database_is_found(store: Store, base: Path) -> None:
    for i in range(300):
        keep(store, b"%d" % i)
    store.db.close()
    path = store.root / "pegbox.db"
    content = bytearray(path.read_bytes())
    content[8192:16384] = b"\xff" * 8192
    path.write_bytes(content)
    done = command("doctor", "--data-dir", str(store.root), models=base)
    assert done.returncode == 1
    assert "BROKEN  database:" in done.stdout
    assert "pegbox restore" in done.stdout


def test_mail_that_answers_is_well(store: Store, base: Path) -> None:
    class Deaf:
        pass

    controller = Controller(Deaf(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        settings = Settings(
            data_dir=store.root, models_dir=base, smtp_host="127.0.0.1", smtp_port=controller.port, smtp_security="none"
        )
        assert states(settings)["mail"] == ("well", f"127.0.0.1:{controller.port} answers")
    finally:
        controller.stop()


def test_before_the_first_start_the_doctor_says_what_is_missing(tmp_path: Path) -> None:
    done = command("doctor", "--data-dir", str(tmp_path / "none"), models=tmp_path / "no-models")
    assert done.returncode == 1
    assert "pegbox models pull" in done.stdout
    assert "pegbox serve" in done.stdout
    assert not (tmp_path / "none").exists(), "looking makes nothing"


@pytest.mark.parametrize("name", ["collect", "backup"])
def test_a_folder_that_is_no_data_directory_is_refused(tmp_path: Path, name: str) -> None:
    arguments = [name, *([str(tmp_path / "to")] if name == "backup" else []), "--data-dir", str(tmp_path)]
    done = command(*arguments, models=tmp_path)
    assert done.returncode == 1
    assert "is no data directory of pegbox" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_collect_beside_a_server(server: Server, tiny_catalog: Path) -> None:
    """Jobs of other tests that were cancelled may have left things too."""
    owned = upload_bytes(server.client(), jsonl(rows(3)))
    orphan = server.data_dir / "blobs" / "file-000000000000000000000000"
    orphan.write_bytes(b"{}")
    done = command("collect", "--data-dir", str(server.data_dir), models=tiny_catalog)
    assert done.returncode == 0, done.stderr
    assert re.match(r"removed [1-9]\d* stored things? without an owner", done.stdout), done.stdout
    assert not orphan.exists()
    assert server.client().files.content(owned).content == jsonl(rows(3))
