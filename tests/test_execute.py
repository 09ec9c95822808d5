"""The second half of a job against hand-made run directories: all is real but the trainer, which does as it is told."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pytest
from conftest import chat_row, rows
from following import jsonl, wait_for
from sqlalchemy import select, update

from pegbox.adapters import Adapters
from pegbox.catalog.models import Catalog
from pegbox.data.estimate import load_timings
from pegbox.engines.pool import EnginePool, PoolSettings
from pegbox.errors import LostRace
from pegbox.files import Files
from pegbox.jobs import control, execute, records, reports, submit
from pegbox.jobs.foresee import TIMINGS
from pegbox.jobs.prepare import prepare
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.lease import Lease
from pegbox.queue.states import Status
from pegbox.queue.worker import Worker
from pegbox.receipt.record import Receipt
from pegbox.settings import Settings
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database, now
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import events, jobs
from pegbox.train.attested import Counts, Evidence, Stop
from pegbox.train.rundir import Note, Result, RunDir, StepMetrics
from pegbox.wire.fine_tuning import CreateJob

Act = Callable[[RunDir], int | None]  # what the trainer does until the server looks again; its exit status, if it ends
EPOCH = 2  # steps


@dataclass(frozen=True)
class Shop:
    """A server's parts without its HTTP."""

    desk: Desk
    settings: Settings

    def create(self, n_rows: int = 10, n_epochs: int = 5, metadata: dict[str, str] | None = None) -> str:
        """A job whose files are checked, with four validation rows."""
        file_ids = []
        for content in (rows(n_rows), [chat_row(f"Say {i}", "0123") for i in range(4)]):
            file = self.desk.files.put(jsonl(content), filename="rows.jsonl", purpose="fine-tune")
            with self.desk.db.write() as tx:
                self.desk.files.record(tx, DEFAULT, file)
            file_ids.append(file.id)
        request = CreateJob.model_validate({
            "model": "tiny", "training_file": file_ids[0], "validation_file": file_ids[1], "metadata": metadata,
            "hyperparameters": {"n_epochs": n_epochs, "batch_size": n_rows // EPOCH},
        })  # fmt: skip
        job_id = submit.create(self.desk, DEFAULT, request).id
        job = store.claim(self.desk.db, [Status.VALIDATING])
        assert job is not None
        prepare(self.desk, self.settings, job, Lease(self.desk.db, job, threading.Event()))
        return job_id

    def work_on(self, job_id: str, until: Status) -> Tuning:
        """Let a worker have the queue until the job has that status."""
        pool = EnginePool(PoolSettings(1, 1, 1, 1, self.settings.root))
        handle = partial(execute.execute, self.desk, self.settings, pool)
        worker = Worker(self.desk.db, [Status.QUEUED, Status.RUNNING, Status.PAUSING], handle, name="run")
        worker.start()
        try:
            wait_for(lambda: submit.get(self.desk, DEFAULT, job_id).job.status == until, f"{job_id} to be {until}", 20)
        finally:
            worker.close()
        return submit.get(self.desk, DEFAULT, job_id)

    def told(self, job_id: str) -> list[tuple[str, str]]:
        """Levels and messages, oldest first."""
        with self.desk.db.read() as tx:
            found = tx.execute(select(events).where(events.c.job_id == job_id).order_by(events.c.seq))
            return [(row.level, row.message) for row in found]

    def checkpoint_names(self, job_id: str) -> dict[int, str]:
        with self.desk.db.read() as tx:
            return {c.step: c.model for c in records.saved_checkpoints(tx, DEFAULT, job_id)}

    def run(self, job_id: str) -> RunDir:
        return RunDir(self.settings.root / "runs" / job_id)


@pytest.fixture
def shop(tiny_catalog: Path, tmp_path: Path) -> Iterator[Shop]:
    settings = Settings(data_dir=tmp_path, models_dir=tiny_catalog, threads=1)
    db, blobs = Database(tmp_path / "pegbox.db"), Blobs(tmp_path / "blobs")
    yield Shop(Desk(db, Files(db, blobs), Adapters(db, blobs), Catalog(tiny_catalog)), settings)
    db.close()


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`trainer(act, …)`: the next run does these, one between two looks of the server."""

    def script(*acts: Act) -> None:
        left = list(acts)

        class Scripted:
            def __init__(self, run: RunDir, _: object) -> None:
                self._run = run
                self._ended: int | None = None

            def poll(self) -> int | None:
                if self._ended is None:
                    self._ended = left.pop(0)(self._run)
                return self._ended

            def exposure(self) -> None:
                return None

            def ask_to_stop(self) -> None:
                self._run.request_stop()

            def kill(self) -> None:
                assert self._ended is not None, "it came to its end"

        monkeypatch.setattr(execute, "LocalRun", Scripted)
        monkeypatch.setattr(execute, "issue", lambda desk, pool, tuning, *_: blank_receipt(tuning))

    return script


def blank_receipt(tuning: Tuning) -> Receipt:
    """What was made is not looked at here: the bytes of these adapters are words."""
    return Receipt(tuning.id, 0, "tiny", "", None, "supervised", 0, 0, 1, "float32", 0.0, {}, {}, ())


def train(*losses: float, since: int = 0, n_epochs: int = 5) -> Act:
    """Train an epoch for each of these full validation losses."""

    def act(run: RunDir) -> None:
        for step in range(since * EPOCH + 1, (since + len(losses)) * EPOCH + 1):
            epoch, ends = step // EPOCH, step % EPOCH == 0
            loss = losses[epoch - since - 1] if ends else None
            metrics = StepMetrics(step, EPOCH * n_epochs, 1.0, 0.5, full_valid_loss=loss, trained_tokens=step)
            run.report(metrics)
            if ends:
                folder = run.checkpoints / f"step-{step:06d}"
                folder.mkdir()
                for name in ("adapter_model.safetensors", "adapter_config.json"):
                    (folder / name).write_text(f"{name} of step {step}", "utf-8")
                data = {k: v for k, v in asdict(metrics).items() if k in ("step", "train_loss", "full_valid_loss")}
                run.tell(Note(f"checkpoint:{step}", step, "", data=data, checkpoint=folder.name))

    return act


def end(outcome: str, step: int, note: Note | None = None, *, best: int | None = None, **why: str) -> Act:
    """`best`: the step that the trainer attests, where it isn't the last."""

    def act(run: RunDir) -> int:
        if outcome == "succeeded":
            at = best or step
            name = f"step-{at:06d}"
            figures = ("validation", None, None, "supervised", "float32", 1, 0, 0.0)
            run.attest(Evidence(at, name, Counts(), Counts(), Stop(), [], *figures))
        if note is not None:
            run.tell(note)
        run.finish(Result(outcome, step, trained_tokens=step, seconds=1.0, **why))
        return 0

    return act


def until_asked_to_stop(run: RunDir) -> int | None:
    if not run.stop_requested():
        return None
    steps = [int(folder.name.removeprefix("step-")) for folder in run.checkpoints.iterdir()]
    run.finish(Result("stopped", max(steps), trained_tokens=0))
    return 0


def asked(shop: Shop, job_id: str) -> Act:
    """Somebody asks for a pause, which the trainer sees or does not."""

    def act(_: RunDir) -> None:
        assert control.pause(shop.desk, DEFAULT, job_id).job.status == Status.PAUSING

    return act


Trainer = Callable[..., None]


# --- pause ---------------------------------------------------------------------------------------------------


def test_a_pause_in_the_last_step_has_no_effect_and_is_told_so(shop: Shop, trainer: Trainer) -> None:
    job_id = shop.create(n_epochs=1)
    trainer(asked(shop, job_id), train(0.5, n_epochs=1), end("succeeded", EPOCH))
    tuning = shop.work_on(job_id, Status.SUCCEEDED)
    assert tuning.fine_tuned_model is not None
    told = [message for _, message in shop.told(job_id)]
    assert "The pause had no effect: the training was already at its end" in told
    assert not any(text.startswith("Job paused") for text in told)
    assert told[-1] == "The job has successfully completed"


def test_a_training_that_fails_while_pausing_fails_the_job(shop: Shop, trainer: Trainer) -> None:
    job_id = shop.create()
    trainer(asked(shop, job_id), end("failed", 1, code="training_diverged", message="Not finite."))
    tuning = shop.work_on(job_id, Status.FAILED)
    assert tuning.job.failure is not None
    assert tuning.job.failure.code == "training_diverged"
    assert not shop.run(job_id).checkpoints.exists(), "an ended run is tidied"


def test_a_killed_trainer_pauses_at_its_last_checkpoint_and_what_killed_it_fails_the_resumed_job(
    shop: Shop, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = shop.create()
    trainer(train(0.9), asked(shop, job_id), lambda _: -9)
    shop.work_on(job_id, Status.PAUSED)
    level, text = shop.told(job_id)[-1]
    assert level == "warn"
    assert text == "Job paused at step 2, its last checkpoint: the training process died before a newer one was saved"
    assert (shop.run(job_id).checkpoints / "step-000002").exists()

    monkeypatch.setattr(store, "BACK_OFF", (0,))
    control.resume(shop.desk, DEFAULT, job_id)
    trainer(*[lambda _: -9] * 5)
    tuning = shop.work_on(job_id, Status.FAILED)
    assert tuning.job.failure is not None
    assert "memory" in tuning.job.failure.message
    setbacks = [text for _, text in shop.told(job_id) if "signal" in text]
    again = "The training process was ended by signal 9. The job goes on at once from where it was last saved."
    assert setbacks == [again] * 4, "the fifth is the last"
    assert not shop.run(job_id).checkpoints.exists(), "an ended run is tidied"


def test_a_trainer_that_is_killed_again_and_again_but_gets_further_each_time_comes_to_its_end(
    shop: Shop, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BACK_OFF", (0,))
    job_id = shop.create(n_epochs=8)
    lives = [train(0.5, since=epoch, n_epochs=8) for epoch in range(8)]
    trainer(*[act for life in lives[:-1] for act in (life, lambda _: -9)], lives[-1], end("succeeded", 16))
    tuning = shop.work_on(job_id, Status.SUCCEEDED)
    assert (tuning.job.attempt, tuning.job.setbacks) == (1 + 8, 0), "one claim checked the files"
    assert sum("signal" in text for _, text in shop.told(job_id)) == 7


def test_a_trainer_that_fails_by_itself_is_not_tried_again(shop: Shop, trainer: Trainer) -> None:
    job_id = shop.create()
    trainer(lambda _: 1)
    tuning = shop.work_on(job_id, Status.FAILED)
    assert tuning.job.setbacks == 0
    assert "exit status 1" in tuning.job.failure.message


def test_a_resumed_job_brings_nothing_back_that_was_dropped(shop: Shop, trainer: Trainer) -> None:
    """Five epochs, of which the newest three and the best stay; a sixth after the pause."""
    job_id = shop.create(n_epochs=6)
    trainer(train(0.9, 0.5, 0.6, 0.7, 0.8, n_epochs=6), asked(shop, job_id), *[until_asked_to_stop] * 20)
    tuning = shop.work_on(job_id, Status.PAUSED)
    assert (tuning.job.started_at is not None, tuning.job.finished_at) == (True, None)
    folder = shop.settings.root / "blobs" / "adapters" / job_id
    assert sorted(shop.checkpoint_names(job_id)) == [4, 6, 8, 10]
    deleted = shop.desk.adapters.get(DEFAULT, shop.checkpoint_names(job_id)[8])
    shop.desk.adapters.delete(DEFAULT, deleted)

    assert control.resume(shop.desk, DEFAULT, job_id).estimated_finish is None
    trainer(train(0.85, since=5, n_epochs=6), end("succeeded", 12))
    resumed = shop.work_on(job_id, Status.SUCCEEDED)
    assert resumed.job.started_at == tuning.job.started_at
    assert sorted(path.name for path in folder.iterdir()) == ["step-000004", "step-000010", "step-000012"]


# --- the best checkpoint, and early stopping -----------------------------------------------------------------


def best_event(shop: Shop, job_id: str) -> tuple[str, str]:
    (found,) = [told for told in shop.told(job_id) if told[1].startswith("Best checkpoint")]
    return found


def weights(shop: Shop, model: str | None) -> str:
    assert model is not None
    adapter = shop.desk.adapters.get(DEFAULT, model)
    return (shop.desk.adapters.path(adapter) / "adapter_model.safetensors").read_text("utf-8")


REMEDY = 'Use the checkpoint, or train again with fewer epochs or with metadata {{"pegbox.early_stop": "2"}}'


@pytest.mark.parametrize(
    ("losses", "level", "ending"),
    [
        ((0.9, 0.5, 0.4), "info", "step 6, {n[6]} (0.400); it is the final model"),
        ((0.9, 0.400, 0.407), "info", "step 4, {n[4]} (0.400); the final model is of step 6 (0.407)"),
        ((0.4, 0.400, 0.409), "warn", "step 2, {n[2]} (0.400); the final model is of step 6 (0.409). " + REMEDY),
    ],
)
def test_the_best_checkpoint_is_named_and_the_final_one_published(
    shop: Shop, trainer: Trainer, losses: tuple[float, ...], level: str, ending: str
) -> None:
    job_id = shop.create(n_epochs=3)
    trainer(train(*losses, n_epochs=3), end("succeeded", 6))
    tuning = shop.work_on(job_id, Status.SUCCEEDED)
    names = shop.checkpoint_names(job_id)
    text = "Best checkpoint by full validation loss: " + ending.format(n=names)
    assert best_event(shop, job_id) == (level, text)
    assert weights(shop, tuning.fine_tuned_model) == "adapter_model.safetensors of step 6"


def test_early_stopping_publishes_the_best_checkpoint(shop: Shop, trainer: Trainer) -> None:
    job_id = shop.create(metadata={"pegbox.early_stop": "2"})
    assert shop.run(job_id).recipe().patience == 2
    note = Note("early_stop:6", 6, "Stopped early")
    trainer(train(0.5, 0.7, 0.6), end("succeeded", 6, note, best=2))
    tuning = shop.work_on(job_id, Status.SUCCEEDED)
    best = shop.checkpoint_names(job_id)[2]
    text = f"Best checkpoint by full validation loss: step 2, {best} (0.500)"
    text += "; it becomes the model, as early stopping wants it, and not step 6 (0.600)"
    assert best_event(shop, job_id) == ("info", text)
    assert weights(shop, tuning.fine_tuned_model) == "adapter_model.safetensors of step 2"
    told = [message for _, message in shop.told(job_id)]
    assert "Stopped early" in told
    assert any(text.startswith("Early stopping is on: 2 epochs without") for text in told)
    assert (tuning.hyperparameters.n_epochs, tuning.trained_tokens) == (5, 6)
    assert load_timings(shop.settings.root / TIMINGS) == (), "half a run teaches nothing about a whole one"


def test_a_best_checkpoint_that_its_owner_deleted_is_the_model_all_the_same(shop: Shop, trainer: Trainer) -> None:
    job_id = shop.create(metadata={"pegbox.early_stop": "2"})

    def delete_the_best(_: RunDir) -> None:
        shop.desk.adapters.delete(DEFAULT, shop.desk.adapters.get(DEFAULT, shop.checkpoint_names(job_id)[2]))

    trainer(train(0.5, 0.7, 0.6), delete_the_best, end("succeeded", 6, best=2))
    tuning = shop.work_on(job_id, Status.SUCCEEDED)
    assert weights(shop, tuning.fine_tuned_model) == "adapter_model.safetensors of step 2"


def test_a_whole_run_teaches_how_long_it_takes(shop: Shop, trainer: Trainer) -> None:
    job_id = shop.create(n_epochs=2)
    trainer(train(0.5, 0.4, n_epochs=2), end("succeeded", 4))
    shop.work_on(job_id, Status.SUCCEEDED)
    assert len(load_timings(shop.settings.root / TIMINGS)) == 1


def test_a_worker_that_slept_while_it_checked_leaves_the_run_of_another_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes up when the next one has checked the same job, laid out its run, and trained a while."""
    keep = reports.keep
    seen: list[dict[str, bytes]] = []

    def contents(run: RunDir) -> dict[str, bytes]:
        return {str(path.relative_to(run.path)): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}

    def sleep_here(*args: object) -> None:
        keep(*args)
        if seen:
            return
        seen.append({})
        with shop.desk.db.write() as tx:
            tx.execute(update(jobs).values(lease_until=now() - 1))
        job = store.claim(shop.desk.db, [Status.VALIDATING])
        prepare(shop.desk, shop.settings, job, Lease(shop.desk.db, job, threading.Event()))
        run = shop.run(job.id)
        (run.checkpoints / "step-000001").mkdir()
        (run.checkpoints / "step-000001" / "adapter").write_bytes(b"learnt")
        seen.append(contents(run))

    monkeypatch.setattr(reports, "keep", sleep_here)
    with pytest.raises(LostRace):
        shop.create()
    (run,) = (shop.settings.root / "runs").iterdir()
    assert contents(RunDir(run)) == seen[1]
