"""The power fails at any moment of an upload, a training run's commits and a publication; the disk holds any state that it
legally may; recovery is right in all of them. How the states are made: tests/powercut.py."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest
from conftest import rows
from following import jsonl
from powercut import Moment, Node, recorded, replay
from sqlalchemy import select
from test_execute import EPOCH, Shop, Trainer, end, shop, train, trainer

from pegbox import durable
from pegbox.files import Files
from pegbox.queue.states import Status
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import tunings
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.upkeep.collect import collect
from pegbox.upkeep.store import References, Store, references
from pegbox.upkeep.verify import damage

__all__ = ["shop", "trainer"]  # fixtures
CONTENT = jsonl(rows(20))


# --- the states themselves ---------------------------------------------------------------------------------------


def test_a_file_that_is_renamed_and_not_flushed_may_be_anything() -> None:
    """By hand: folder 1 held nothing; file 2 was written as `a` and renamed to `b`, with no flush at all."""
    sure, now = {1: Node(names={})}, {1: Node(names={"b": 2}), 2: Node(content=b"wxyz")}
    states = list(Moment("", 1, sure, now, {}).states())
    assert sorted(state.get("b", b"-") for state in states) == sorted([b"-", b"", b"wxyz", b"wx", bytes(4)])


def test_flushed_bytes_and_a_rename_in_the_air_are_old_or_new() -> None:
    old, new = Node(content=b"old"), Node(content=b"new")
    sure = {1: Node(names={"f": 2, "f.tmp": 3}), 2: old, 3: new}
    now = {1: Node(names={"f": 3}), 3: new}
    states = list(Moment("", 1, sure, now, {}).states())
    assert sorted(states, key=str) == sorted([{"f": b"old", "f.tmp": b"new"}, {"f": b"new"}], key=str)


def test_a_recorder_sees_a_rename_without_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a careless writer risks is among the states: else the other tests would prove nothing."""
    with recorded(tmp_path, monkeypatch) as tape:
        (tmp_path / "x.tmp").write_bytes(b"content")
        (tmp_path / "x.tmp").rename(tmp_path / "x")
    found = {state.get("x") for moment in tape.moments for state in moment.states()}
    assert {None, b"", b"content"} < found


# --- an upload ---------------------------------------------------------------------------------------------------


def open_store(root: Path) -> tuple[Store, References]:
    store = Store(root, Database(root / "pegbox.db"), Blobs(root / "blobs"))
    with store.db.read() as tx:
        return store, references(tx)


def test_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    root.mkdir()
    db = Database(root / "pegbox.db")
    with recorded(root, monkeypatch) as tape:
        shelf = Files(db, Blobs(root / "blobs"))
        written = shelf.incoming()
        with written.open("xb") as out:
            out.write(CONTENT)
            durable.sync(out, "upload")
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        file = shelf.keep(DEFAULT, written, filename="rows.jsonl", purpose="fine-tune", sha256=sha256)
        acknowledged = len(tape.moments)
    db.close()
    seen = {"absent": 0, "whole": 0}

    def check(disk: Path, moment: Moment) -> None:
        store, wanted = open_store(disk)
        assert damage(store.blobs.root, wanted) == [], moment.done
        if tape.moments.index(moment) >= acknowledged:
            assert file.id in wanted.files, "it was acknowledged"
        seen["whole" if wanted.files else "absent"] += 1
        collect(store)
        assert store.blobs.keys() == list(wanted.files), "and nothing else is left"
        assert damage(store.blobs.root, wanted) == []
        store.db.close()

    count = replay(tape.moments, tmp_path / "replayed", check)
    assert count > 10
    assert min(seen.values()) > 0, seen


# --- a training run's commits ------------------------------------------------------------------------------------


def test_checkpoints(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pegbox.train import checkpoint
    from pegbox.train.loop import train as learn

    run = RunDir(tmp_path / "run")
    run.create()
    run.train_data.write_bytes(jsonl(rows(4)))
    run.valid_data.write_bytes(jsonl(rows(2)))
    Recipe(
        job_id="power", base="tiny", base_folder=str(tiny_model), base_fingerprint="", seed=7, n_epochs=3, batch_size=2,
        learning_rate=1e-3, learning_rate_multiplier=1.0, warmup_steps=1, max_tokens=256, threads=1,
    ).save(run.recipe_path)  # fmt: skip
    committed: dict[int, int] = {}  # moment → newest step whose commit had returned
    with recorded(run.path, monkeypatch) as tape:
        save = checkpoint.save

        def saved(where: RunDir, state: checkpoint.State, *parts: object) -> None:
            save(where, state, *parts)  # type: ignore[arg-type]
            committed[len(tape.moments)] = state.step

        monkeypatch.setattr(checkpoint, "save", saved)
        run.finish(learn(run))
    monkeypatch.setattr(checkpoint, "save", save)
    names = ("adapter_model.safetensors", "state.safetensors")
    wanted = {
        folder.name: [(folder / name).read_bytes() for name in names] for folder in run.checkpoints.glob("step-*")
    }
    assert sorted(wanted) == ["step-000002", "step-000004", "step-000006"]
    kept: list[tuple[str, Path]] = []

    def check(disk: Path, moment: Moment) -> None:
        again, at = RunDir(disk), tape.moments.index(moment)
        again.recipe()  # whole, before and after the trainer settled it
        again.repair()
        whole = checkpoint._whole(again)
        for folder in whole:
            assert [(folder / name).read_bytes() for name in names] == wanted[folder.name], moment.done
        due = max((step for since, step in committed.items() if since <= at), default=0)
        newest = max((int(folder.name.removeprefix("step-")) for folder in whole), default=0)
        assert newest >= due, f"{moment.done}: a commit that had returned is gone"
        told = [metrics.step for metrics in again.curve()]
        assert told[:newest] == list(range(1, newest + 1)), "what a checkpoint builds on is told"
        assert (result := again.result()) is None or result.outcome == "succeeded"
        if random.Random(f"{at} {len(kept)}").random() < 0.02 and len(kept) < 3:
            copy = tmp_path / f"kept-{len(kept)}"
            shutil.copytree(disk, copy)
            kept.append((moment.done, copy))

    assert replay(tape.moments, tmp_path / "replayed", check) > 100
    assert kept
    for done, folder in kept:  # and the trainer ends each of them as if nothing had been
        again = RunDir(folder)
        again.create()
        again.clear()
        again.finish(learn(again))
        last = again.checkpoints / "step-000006"
        assert [(last / name).read_bytes() for name in names] == wanted[last.name], done
        announced = {note.checkpoint for note in again.notes()[0] if note.checkpoint}
        assert announced == set(wanted), done


# --- a job, from the acknowledgement of its files to the publication of its model ---------------------------------


def test_a_publication(shop: Shop, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(tmp_path, monkeypatch) as tape:
        job_id = shop.create(n_rows=10, n_epochs=1)
        trainer(train(0.5, n_epochs=1), end("succeeded", EPOCH))
        shop.work_on(job_id, Status.SUCCEEDED)
    seen: dict[str, int] = {}

    def check(disk: Path, moment: Moment) -> None:
        store, wanted = open_store(disk)
        assert damage(store.blobs.root, wanted) == [], moment.done
        status = wanted.jobs.get(job_id)
        seen[str(status)] = seen.get(str(status), 0) + 1
        run = RunDir(disk / "runs" / job_id)
        with store.db.read() as tx:
            row = tx.execute(select(tunings).where(tunings.c.job_id == job_id)).first()
        if status in (Status.QUEUED, Status.RUNNING):
            assert run.recipe().job_id == job_id, "what was laid out before the job was queued is whole"
            lines = [json.loads(line) for line in run.train_data.read_bytes().splitlines()]
            assert lines == rows(10)
            assert len(run.lines()) == 10
            assert row.fine_tuned_model is None
        if status == Status.SUCCEEDED:
            assert row.fine_tuned_model is not None
            assert row.result_file in wanted.files
            (folder,) = wanted.adapters
            assert (store.blobs.path(folder) / "adapter_config.json").read_text(
                "utf-8"
            ) == f"adapter_config.json of step {EPOCH}"
        collect(store)
        assert damage(store.blobs.root, wanted) == []
        assert set(store.blobs.keys()) >= set(wanted.files) | wanted.adapters
        store.db.close()

    assert replay(tape.moments, tmp_path.with_name("replayed"), check) > 50
    assert {"None", "validating_files", "queued", "running", "succeeded"} <= set(seen), seen
