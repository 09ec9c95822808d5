"""The second half of a job: run the trainer, follow it, publish what it made."""

import logging
import time

from sqlalchemy import update

from pegbox import ids
from pegbox.data.estimate import Timing, save_timing
from pegbox.engines.pool import EnginePool
from pegbox.errors import JobFailure
from pegbox.files import RESULTS_PURPOSE
from pegbox.jobs import records
from pegbox.jobs.follow import Follower
from pegbox.jobs.foresee import TIMINGS
from pegbox.jobs.receipt import failure_of, issue, receipt_events
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.states import QueuedJob, Status, is_final
from pegbox.queue.store import Event
from pegbox.queue.worker import Lease
from pegbox.receipt.record import Receipt
from pegbox.runners.local import LocalRun
from pegbox.settings import Settings
from pegbox.storage.tables import tunings
from pegbox.train.rundir import Result, RunDir, StepMetrics

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_BEAT_SECONDS = 1.0
_STOP_GRACE_SECONDS = 20.0


def execute(desk: Desk, settings: Settings, pool: EnginePool, job: QueuedJob, lease: Lease) -> None:
    """The queue's handler for jobs in `queued`, and for those in `running` that a dead server left behind.

    Raises JobFailure, and LostRace when the job was cancelled; either way the child process is gone by then.
    """
    with desk.db.write() as tx:
        store.hold(tx, job)
        if job.status == Status.QUEUED:
            job = store.move(
                tx, job, Status.RUNNING, because=Event("started", "Fine-tuning job started"), keep_lease=True
            )
        tuning = records.find(tx, job.id)
    assert tuning is not None, "a queued job has its tuning row"
    run = RunDir(settings.root / "runs" / job.id)
    if not run.recipe_path.exists():
        raise JobFailure("server_error", "The job's run directory is gone from the server's data directory.")
    run.clear()
    follower = Follower(desk, settings, tuning, run)
    child = LocalRun(run)
    try:
        _follow(child, follower, lease)
        if lease.closing.is_set():
            return  # the job stays "running" and the next start goes on with it
        result = _concluded(tuning, run, child.poll())
        with lease.kept():
            receipt = issue(desk, pool, tuning, run, _final_key(tuning, run))
        if lease.closing.is_set():  # the engine may have been stopped with us: the next start looks anew
            return
        _refuse_failed(desk, tuning, receipt)
        _publish(desk, settings, tuning, run, result.trained_tokens, receipt)
        _learn(desk, settings, run, result)
    finally:
        child.kill()
        if not lease.closing.is_set():
            run.tidy()  # succeeded, failed or cancelled


def sweep(desk: Desk, settings: Settings) -> None:
    """At the start: tidy the runs of jobs that ended while no worker had them in hand."""
    for path in (settings.root / "runs").glob("*"):
        with desk.db.read() as tx:
            job = store.get(tx, path.name)
        if job is None or is_final(job.status):
            RunDir(path).tidy()


def _follow(child: LocalRun, follower: Follower, lease: Lease) -> None:
    """Until the child ends: its words into the database, and our heartbeat."""
    beaten = 0.0
    while True:
        ended = child.poll() is not None
        follower.pull()
        if ended:
            return
        if lease.closing.is_set():
            child.stop(_STOP_GRACE_SECONDS)
            follower.pull()
            return
        if time.monotonic() - beaten > _BEAT_SECONDS:
            lease.beat()
            beaten = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _concluded(tuning: Tuning, run: RunDir, exit_status: int | None) -> Result:
    """The result of a run that succeeded. Raises JobFailure for any other."""
    result = run.result()
    if result is None:
        log.error("%s: the trainer ended with %s:\n%s", tuning.id, exit_status, run.last_words(40))
        raise JobFailure("server_error", _cause_of_death(exit_status, run))
    if result.outcome != "succeeded":
        message = result.message or "The training process stopped before its end."
        raise JobFailure(result.code or "server_error", message)
    return result


def _final_key(tuning: Tuning, run: RunDir) -> str:
    """Of the adapter that becomes the model: the final epoch's checkpoint."""
    return f"adapters/{tuning.id}/step-{run.curve()[-1].step:06d}"


def _refuse_failed(desk: Desk, tuning: Tuning, receipt: Receipt) -> None:
    """Raises JobFailure if a check failed; its warnings are told all the same."""
    failure = failure_of(receipt)
    if failure is None:
        return
    with desk.db.write() as tx:
        store.hold(tx, tuning.job)
        store.tell(tx, tuning.id, *receipt_events(receipt))
    raise failure


def _learn(desk: Desk, settings: Settings, run: RunDir, result: Result) -> None:
    """Let later estimates know how long it took."""
    recipe, work = run.recipe(), run.expected_work()
    base = desk.catalog.find(recipe.base)
    if base is None or result.resumed or not work:
        return
    timing = Timing(
        recipe.base_fingerprint, base.base.parameters, recipe.threads, work, result.seconds, result.peak_bytes
    )
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
    results = desk.files.put(step_metrics_csv(curve), filename="step_metrics.csv", purpose=RESULTS_PURPOSE)
    name = ids.tuned_name(recipe.base, settings.organization, tuning.request.suffix)
    with desk.db.write() as tx:
        store.hold(tx, tuning.job)
        desk.files.record(tx, results)
        key = _final_key(tuning, run)
        desk.adapters.publish(tx, name=name, base=recipe.base, job_id=tuning.id, format_=recipe.format, key=key)
        values = {"fine_tuned_model": name, "trained_tokens": trained_tokens, "result_file": results.id}
        row = update(tunings).where(tunings.c.job_id == tuning.id)
        tx.execute(row.values(**values, estimated_finish=None))
        store.tell(tx, tuning.id, *receipt_events(receipt))
        store.tell(tx, tuning.id, Event("model", f"New fine-tuned model created: {name}"))
        ended = Event("ended", "The job has successfully completed")
        store.move(tx, tuning.job, Status.SUCCEEDED, because=ended)


def step_metrics_csv(curve: list[StepMetrics]) -> bytes:
    """The result file: numbers or nothing in every cell, LF, the columns that OpenAI documents."""
    lines = ["step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"]
    for m in curve:
        cells = (m.train_loss, m.train_mean_token_accuracy, m.valid_loss, m.valid_mean_token_accuracy)
        lines.append(",".join([str(m.step), *("" if cell is None else f"{cell:.5f}" for cell in cells)]))
    return ("\n".join(lines) + "\n").encode()
