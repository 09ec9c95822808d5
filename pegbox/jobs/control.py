"""What may be done to a job that exists: cancel, pause, resume. Each is a move in one transaction, so the answer is
true when it is given; a worker with the job in hand notices at its next heartbeat."""

from sqlalchemy import update

from pegbox.errors import InvalidRequest
from pegbox.jobs import records
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.states import Status, is_final
from pegbox.queue.store import Event
from pegbox.storage.scope import Scope
from pegbox.storage.tables import tunings


def cancel(desk: Desk, scope: Scope, job_id: str) -> Tuning:
    """Cancel at once, whatever the job is doing; its worker notices that it lost the job and stops the run.

    Raises NotFound, and InvalidRequest where the job has already ended.
    """
    with desk.db.write() as tx:
        tuning = _going(records.get(tx, scope, job_id), "cancelled")
        because = Event("ended", "Fine tuning process stopping due to job cancellation", level="warn")
        store.move(tx, tuning.job, Status.CANCELLED, because=because)
        return records.get(tx, scope, job_id)


def pause(desk: Desk, scope: Scope, job_id: str) -> Tuning:
    """A running job is `pausing` until its trainer has saved and is gone; any other is `paused` at once.

    Changes nothing where the job is paused already. Raises NotFound, and InvalidRequest where it has ended.
    """
    with desk.db.write() as tx:
        job = _going(records.get(tx, scope, job_id), "paused").job
        number = store.times_told(tx, job_id, "paused") + 1
        if job.status == Status.RUNNING:
            text = "Job is pausing: the step in hand is finished and saved first"
            store.move(tx, job, Status.PAUSING, because=Event(f"pausing:{number}", text), keep_lease=True)
        elif job.status == Status.QUEUED:
            because = Event(f"paused:{number}", "Job paused while it waited in the queue")
            store.move(tx, job, Status.PAUSED, because=because)
        elif job.status == Status.VALIDATING:
            because = Event(f"paused:{number}", "Job paused while its files were checked; resuming checks them anew")
            store.move(tx, job, Status.PAUSED, because=because)
        return records.get(tx, scope, job_id)


def resume(desk: Desk, scope: Scope, job_id: str) -> Tuning:
    """Back into the queue, at the place that the job's age gives it; files that were not checked yet are checked first.

    Changes nothing where the job was not paused. Raises NotFound, and InvalidRequest where it has ended or is
    still pausing.
    """
    with desk.db.write() as tx:
        job = _going(records.get(tx, scope, job_id), "resumed").job
        if job.status == Status.PAUSING:
            raise InvalidRequest(
                f"Job {job_id} is still pausing. Resume it once its status is paused.", code="invalid_job_state"
            )
        if job.status == Status.PAUSED:
            to = Status.QUEUED if store.was_told(tx, job_id, "validated") else Status.VALIDATING
            number = store.times_told(tx, job_id, "paused")
            store.move(tx, job, to, because=Event(f"resume:{number}", f"Job resumed, moving job to {to} state"))
            tx.execute(update(tunings).where(tunings.c.job_id == job_id).values(estimated_finish=None))
        return records.get(tx, scope, job_id)


def _going(tuning: Tuning, what: str) -> Tuning:
    """Raises InvalidRequest for a job that has ended."""
    if is_final(tuning.job.status):
        raise InvalidRequest(
            f"Job has already completed: {tuning.id} is {tuning.job.status} and can't be {what}.",
            code="invalid_job_state",
        )
    return tuning
