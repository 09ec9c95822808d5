"""The second half of a job: run the trainer, follow it, publish what it made or keep it for later."""

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from sqlalchemy import update

from pegbox.data.estimate import Timing, save_timing
from pegbox.engines.pool import EnginePool
from pegbox.errors import JobFailure, LostRace, Setback
from pegbox.files import RESULTS_PURPOSE
from pegbox.jobs import records, room
from pegbox.jobs.best import choose
from pegbox.jobs.follow import Follower
from pegbox.jobs.foresee import TIMINGS
from pegbox.jobs.made import bring_in, key_of, name_of, publish
from pegbox.jobs.receipt import failure_of, issue, receipt_events
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.lease import Lease
from pegbox.queue.states import QueuedJob, Status, is_final
from pegbox.queue.store import Event
from pegbox.receipt.record import Receipt
from pegbox.runners.local import Limits, LocalRun
from pegbox.settings import Settings
from pegbox.storage.db import UNREACHABLE
from pegbox.storage.scope import Scope
from pegbox.storage.tables import tunings
from pegbox.train.rundir import DISK_REFUSED, NO_ROOM, Result, RunDir, StepMetrics

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_BEAT_SECONDS = 1.0
_STOP_GRACE_SECONDS = 20.0
REWARDS = (
    "train_reward_margin", "train_reward_accuracy", "train_chosen_reward", "train_rejected_reward",
    "valid_reward_margin", "valid_reward_accuracy", "full_valid_reward_margin", "full_valid_reward_accuracy",
)  # fmt: skip


def execute(desk: Desk, settings: Settings, pool: EnginePool, job: QueuedJob, lease: Lease) -> None:
    """The queue's handler for jobs in `queued`, and for those in `running` or `pausing` that a dead server left
    behind.

    Raises JobFailure, Setback, and LostRace when the job was cancelled; the child process is gone by then.
    """
    tuning, run = _take(desk, settings, job)
    job = tuning.job
    follower = Follower(desk, settings, tuning, run)
    if job.status == Status.PAUSING:
        run.repair()
        follower.pull()  # what the trainer said before it died with its server
        _settle(desk, tuning, run, None if run.result() else "the server ended")
        return
    recipe = run.recipe()
    if resolved := desk.catalog.find(recipe.base):
        room.make_sure(settings, recipe, resolved.base)
    run.clear()
    reads = tuple(Path(path) for path in (recipe.base_folder, recipe.adapter_folder) if path)
    child = LocalRun(run, Limits(settings.job_memory_bytes, settings.job_file_bytes, settings.root, reads))
    try:
        with lease.guarded(child.kill):
            _follow(child, follower, lease)
        if exposed := child.exposure():
            log.warning("%s: its process could reach more than it should: %s", job.id, exposed)
        _finish(desk, settings, pool, tuning, run, child.poll(), lease)
    except (Setback, LostRace, *UNREACHABLE):
        _tidy_ended(desk, job, run)
        raise
    except JobFailure:
        run.tidy()
        raise
    finally:
        child.kill()
    _tidy_ended(desk, job, run)


def _take(desk: Desk, settings: Settings, job: QueuedJob) -> tuple[Tuning, RunDir]:
    """The job, running from now on, and where it runs."""
    with desk.db.write() as tx:
        job = store.hold(tx, job)
        if job.status == Status.QUEUED:
            job = store.move(
                tx, job, Status.RUNNING, because=Event("started", "Fine-tuning job started"), keep_lease=True
            )
        tuning = records.find(tx, Scope(job.project_id), job.id)
    assert tuning is not None, "a queued job has its tuning row"
    run = RunDir(settings.root / "runs" / job.id)
    if not run.recipe_path.exists():
        raise JobFailure("server_error", "The job's run directory is gone from the server's data directory.")
    return tuning, run


def _finish(
    desk: Desk, settings: Settings, pool: EnginePool, tuning: Tuning, run: RunDir, exit_status: int | None, lease: Lease
) -> None:
    """What comes after the child. A server that is ending leaves the job as it is; the next start goes on with it."""
    if lease.closing.is_set():
        return
    lease.check()
    result = _concluded(desk, settings, tuning, run, exit_status)
    if result is None:
        return  # paused
    receipt = issue(desk, pool, tuning, run, _final_key(desk, tuning, run))
    if lease.closing.is_set():  # the engine may have been stopped with us: the next start looks anew
        return
    _refuse_failed(desk, tuning, receipt)
    _publish(desk, settings, tuning, run, result.trained_tokens, receipt)
    _learn(desk, settings, run, result)


def _tidy_ended(desk: Desk, job: QueuedJob, run: RunDir) -> None:
    """If the job has ended; a job that goes on later, here or elsewhere, needs its data and checkpoints."""
    with suppress(*UNREACHABLE):
        with desk.db.read() as tx:
            current = store.get(tx, job.id)
        if current is None or is_final(current.status):
            run.tidy()


def sweep(desk: Desk, settings: Settings) -> None:
    """At the start: tidy the runs of jobs that ended while no worker had them in hand."""
    for path in (settings.root / "runs").glob("*"):
        with desk.db.read() as tx:
            job = store.get(tx, path.name.partition(".")[0])  # or where a worker lays it out
        if job is None or is_final(job.status):
            RunDir(path).tidy()


def _follow(child: LocalRun, follower: Follower, lease: Lease) -> None:
    """Until the child ends: its words into the database, our heartbeat, and a pause handed on to it."""
    beaten = 0.0
    while True:
        lease.check()
        ended = child.poll() is not None
        follower.pull()
        if ended:
            return
        if lease.closing.is_set():
            child.stop(_STOP_GRACE_SECONDS)
            follower.pull()
            return
        if time.monotonic() - beaten > _BEAT_SECONDS:
            if lease.beat().status == Status.PAUSING:
                child.ask_to_stop()
            beaten = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _concluded(desk: Desk, settings: Settings, tuning: Tuning, run: RunDir, exit_status: int | None) -> Result | None:
    """The result of a run that succeeded; None of one that is paused now. Raises JobFailure for any other, and Setback
    for one that somebody killed, while it has attempts left."""
    result = run.result()
    if result is None or result.outcome == "stopped":
        died = None if result else "the training process died"
        if _settle(desk, tuning, run, died):
            return None
    if result is None:
        log.error("%s: the trainer ended with %s:\n%s", tuning.id, exit_status, run.last_words(40))
        if exit_status in (NO_ROOM, DISK_REFUSED):
            raise room.ran_out(settings) if exit_status == NO_ROOM else room.broke(settings)
        if exit_status is not None and exit_status < 0 and _may_try_again(desk, settings, tuning):
            raise Setback(f"The training process was ended by signal {-exit_status}.")
        raise JobFailure("server_error", _cause_of_death(exit_status, run))
    if result.outcome != "succeeded":
        message = result.message or "The training process stopped before its end."
        raise JobFailure(result.code or "server_error", message)
    return result


def _may_try_again(desk: Desk, settings: Settings, tuning: Tuning) -> bool:
    with desk.db.write() as tx:
        return store.hold(tx, tuning.job).setbacks + 1 < settings.job_attempts


def _final_key(desk: Desk, tuning: Tuning, run: RunDir) -> str:
    """Of what becomes the model: the one that the trainer attests, its last or, stopped early, its best.

    Its bytes are there, even if somebody has deleted the checkpoint by that name meanwhile.
    """
    step = _final_step(run)
    key = key_of(tuning.id, step)
    if not desk.adapters.folder(key).exists():
        bring_in(desk, run, run.recipe(), step)
    return key


def _final_step(run: RunDir) -> int:
    evidence = run.evidence()
    return evidence.step if evidence else run.curve()[-1].step


def _refuse_failed(desk: Desk, tuning: Tuning, receipt: Receipt) -> None:
    """Raises JobFailure if a check failed; its warnings are told all the same."""
    failure = failure_of(receipt)
    if failure is None:
        return
    with desk.db.write() as tx:
        store.hold(tx, tuning.job)
        store.tell(tx, tuning.id, *receipt_events(receipt))
    raise failure


def _settle(desk: Desk, tuning: Tuning, run: RunDir, died: str | None) -> bool:
    """Where a pause was asked for, finish it: the process is gone. Returns whether it was asked for.

    `died` says what happened where the trainer could not save. That cost the steps since its last checkpoint and
    nothing else, so the job is paused all the same. What killed it, if it is still there, fails the job when it is
    resumed.
    """
    saved = run.checkpoints.glob("step-*")
    step = max((int(folder.name.removeprefix("step-")) for folder in saved), default=0)
    text = f"Job paused at step {step}"
    level: Literal["info", "warn"] = "info"
    if died:
        level = "warn"
        text += f", its last checkpoint: {died} before a newer one was saved"
    with desk.db.write() as tx:
        job = store.hold(tx, tuning.job)
        if job.status != Status.PAUSING:
            return False
        number = store.times_told(tx, job.id, "paused") + 1
        because = Event(f"paused:{number}", text, level=level, data={"step": step})
        store.move(tx, job, Status.PAUSED, because=because)
    if died:
        log.warning("%s: %s while pausing:\n%s", tuning.id, died, run.last_words(40))
    return True


def _learn(desk: Desk, settings: Settings, run: RunDir, result: Result) -> None:
    """Let later estimates know how long it took."""
    recipe, work = run.recipe(), run.expected_work()
    base = desk.catalog.find(recipe.base)
    early = result.step < run.curve()[-1].total_steps  # the work was foreseen for all epochs
    if base is None or result.resumed or early or not work:
        return
    timing = Timing(
        recipe.base_fingerprint, base.base.parameters, recipe.threads, work, result.seconds, result.peak_bytes,
        recipe.weights,
    )  # fmt: skip
    save_timing(settings.root / TIMINGS, timing)


def _cause_of_death(exit_status: int | None, run: RunDir) -> str:
    if exit_status == -9:
        return (
            "The job failed due to an internal error: the training process was killed, most likely because memory "
            "ran out. Use shorter examples, a smaller base model or a larger machine."
        )
    last = run.last_words(1) or f"exit status {exit_status}"
    return f"The job failed due to an internal error in the training process: {last[:300]}"


def _publish(
    desk: Desk, settings: Settings, tuning: Tuning, run: RunDir, trained_tokens: int, receipt: Receipt
) -> None:
    """Name the model and end the job, in one transaction: the model answers as soon as the job says so."""
    recipe = run.recipe()
    curve = run.curve()
    name = name_of(tuning, recipe, settings)
    with ExitStack() as held:
        held.enter_context(desk.files.naming())
        results = desk.files.put(step_metrics_csv(curve), filename="step_metrics.csv", purpose=RESULTS_PURPOSE)
        tx = held.enter_context(desk.db.write())
        job = store.hold(tx, tuning.job)
        desk.files.record(tx, tuning.scope, results)
        choice = choose(
            records.saved_checkpoints(tx, tuning.scope, job.id), curve[-1], early_stop=recipe.patience is not None
        )
        _final_key(desk, tuning, run)
        publish(desk, tx, tuning.scope, recipe, name=name, step=_final_step(run))
        values = {"fine_tuned_model": name, "trained_tokens": trained_tokens, "result_file": results.id}
        row = update(tunings).where(tunings.c.job_id == tuning.id)
        tx.execute(row.values(**values, estimated_finish=None))
        if job.status == Status.PAUSING:
            store.tell(tx, job.id, Event("pause:late", "The pause had no effect: the training was already at its end"))
        store.tell(tx, job.id, *receipt_events(receipt), *choice.told)
        store.tell(tx, job.id, Event("model", f"New fine-tuned model created: {name}"))
        ended = Event("ended", "The job has successfully completed")
        store.move(tx, job, Status.SUCCEEDED, because=ended)


def step_metrics_csv(curve: list[StepMetrics]) -> bytes:
    """The result file: numbers or nothing in every cell, LF, the columns that OpenAI documents; then, of a dpo job, the
    rewards."""
    rewards = REWARDS if any(m.train_reward_margin is not None for m in curve) else ()
    lines = [",".join(["step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy", *rewards])]
    for m in curve:
        known = asdict(m)
        cells = [m.train_loss, m.train_mean_token_accuracy, m.valid_loss, m.valid_mean_token_accuracy]
        cells += [known[name] for name in rewards]
        lines.append(",".join([str(m.step), *("" if cell is None else f"{cell:.5f}" for cell in cells)]))
    return ("\n".join(lines) + "\n").encode()
