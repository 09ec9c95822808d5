"""Read a run directory into the job's events, checkpoints and progress, while the trainer writes it.

Every line is taken once: what a restarted server or a resumed run says again carries the same key and is passed over.
"""

import time
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select, update

from pegbox import ids
from pegbox import metrics as counters
from pegbox.jobs import records
from pegbox.jobs.best import best
from pegbox.jobs.made import WHOLE_KEPT, bring_in, name_of, publish
from pegbox.jobs.records import Checkpoint, Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue import store
from pegbox.queue.store import Event
from pegbox.settings import Settings
from pegbox.storage.tables import checkpoints, tunings
from pegbox.train.rundir import Note, RunDir, StepMetrics

_NOT_IN_EVENTS = {"learning_rate", "trained_tokens", "seconds_left"}


@dataclass(frozen=True, slots=True)
class _Counted:
    """How far the server's own figures have come."""

    step: int
    tokens: int
    at: float  # time.monotonic()


class Follower:
    """One run's reader. Starts at the beginning of the run's files, whoever read them before."""

    def __init__(self, desk: Desk, settings: Settings, tuning: Tuning, run: RunDir) -> None:
        self._desk = desk
        self._settings = settings
        self._tuning = tuning
        self._run = run
        self._recipe = run.recipe()
        before, _ = run.metrics(0)
        last = before[-1] if before else None
        self._counted = _Counted(last.step if last else 0, last.trained_tokens if last else 0, time.monotonic())
        self._notes_read = 0
        self._metrics_read = 0
        self._missed: set[int] = set()  # steps whose checkpoints were dropped before they could be brought in

    def pull(self) -> None:
        """Take in what was written since the last time. Raises LostRace if the job is no longer ours."""
        # Notes first: the metrics of every step that a note speaks of are then on disk already.
        notes, notes_read = self._run.notes(self._notes_read)
        metrics, metrics_read = self._run.metrics(self._metrics_read)
        if not notes and not metrics:
            return
        self._count(metrics)
        saved = [note for note in notes if note.checkpoint and not self._was_told(note)]
        for note in saved:
            self._bring_in(note)
        with self._desk.db.write() as tx:
            store.hold(tx, self._tuning.job)
            told: list[StepMetrics | Note] = [*metrics, *notes]
            new = 0
            for item in sorted(told, key=lambda item: (item.step, isinstance(item, Note))):
                new += self._tell(tx, item)
            if new:
                store.progress(tx, self._tuning.job)
            if metrics:
                finish = int(time.time() + metrics[-1].seconds_left)
                row = update(tunings).where(tunings.c.job_id == self._tuning.id)
                tx.execute(row.values(estimated_finish=finish))
            dropped = self._superfluous(tx) if saved else []
            tx.execute(self._tuning.scope.delete(checkpoints).where(checkpoints.c.id.in_([c.id for c in dropped])))
        for old in dropped:
            if adapter := self._desk.adapters.find(self._tuning.scope, old.model):
                self._desk.adapters.delete(self._tuning.scope, adapter)
        self._notes_read, self._metrics_read = notes_read, metrics_read

    def _count(self, new: list[StepMetrics]) -> None:
        """Lines that an earlier process wrote are not counted again."""
        steps = sum(m.step > self._counted.step for m in new)
        if not steps:
            return
        for _ in range(steps):
            counters.STEP_SECONDS.observe((time.monotonic() - self._counted.at) / steps)
        counters.TRAIN_TOKENS.inc(max(0, new[-1].trained_tokens - self._counted.tokens))
        self._counted = _Counted(new[-1].step, new[-1].trained_tokens, time.monotonic())

    def _was_told(self, note: Note) -> bool:
        """A run that goes on is read from its beginning: what was dropped or deleted since must not come back."""
        with self._desk.db.read() as tx:
            return store.was_told(tx, self._tuning.id, note.key)

    def _bring_in(self, note: Note) -> None:
        try:
            bring_in(self._desk, self._run, self._recipe, note.step)
        except FileNotFoundError:  # of whole models the trainer keeps few, and we were not there in time
            if self._recipe.weights != "all":
                raise
            self._missed.add(note.step)

    def _tell(self, tx: Connection, item: StepMetrics | Note) -> int:
        """Returns 1 for a step that no earlier attempt came to."""
        if isinstance(item, StepMetrics):
            return store.tell(tx, self._tuning.id, step_event(item))
        if item.checkpoint:
            self._record_checkpoint(tx, item)
        else:
            store.tell(tx, self._tuning.id, Event(item.key, item.message, data=item.data))
        return 0

    def _record_checkpoint(self, tx: Connection, note: Note) -> None:
        """Name a checkpoint, so that users can talk to it from now on."""
        same = (checkpoints.c.job_id == self._tuning.id) & (checkpoints.c.step == note.step)
        told = store.was_told(tx, self._tuning.id, note.key)
        if told or tx.execute(select(checkpoints.c.id).where(same)).first():
            return
        if note.step in self._missed:
            store.tell(tx, self._tuning.id, Event(note.key, f"The checkpoint of step {note.step} was not kept"))
            return
        name = name_of(self._tuning, self._recipe, self._settings, step=note.step)
        publish(self._desk, tx, self._tuning.scope, self._recipe, name=name, step=note.step)
        values = {
            "id": ids.mint("checkpoint"), "job_id": self._tuning.id, "created_at": int(time.time()),
            "step": note.step, "model": name, "metrics": dict(note.data or {}),
        }  # fmt: skip
        tx.execute(self._tuning.scope.insert(checkpoints).values(values))
        message = f"Checkpoint created at step {note.step} with Snapshot ID: {name}"
        store.tell(tx, self._tuning.id, Event(note.key, message))

    def _superfluous(self, tx: Connection) -> list[Checkpoint]:
        """All but the newest few and the best by full validation loss; of whole models all but the newest, the best,
        and one that another job goes on from."""
        known = records.saved_checkpoints(tx, self._tuning.scope, self._tuning.id)
        whole = self._recipe.weights == "all"
        kept = {c.id for c in known[-(WHOLE_KEPT if whole else self._settings.keep_checkpoints) :]}
        if found := best(known):
            kept.add(found.id)
        return [
            c
            for c in known
            if c.id not in kept and not (whole and records.trained_on_by(tx, self._tuning.scope, c.model))
        ]


def step_event(m: StepMetrics) -> Event:
    """The line that scripts parse: `Step 3/9: training loss=0.15, validation loss=0.27`. What only dpo jobs have comes
    after that."""
    parts = [f"training loss={m.train_loss:.2f}"]
    if m.valid_loss is not None:
        parts.append(f"validation loss={m.valid_loss:.2f}")
    if m.full_valid_loss is not None:
        parts.append(f"full validation loss={m.full_valid_loss:.2f}")
    rewards = (
        ("training reward accuracy", m.train_reward_accuracy),
        ("training reward margin", m.train_reward_margin),
        ("validation reward accuracy", m.valid_reward_accuracy),
        ("full validation reward accuracy", m.full_valid_reward_accuracy),
    )
    parts += [f"{name}={value:.2f}" for name, value in rewards if value is not None]
    data = {k: v for k, v in asdict(m).items() if k not in _NOT_IN_EVENTS and v is not None}
    message = f"Step {m.step}/{m.total_steps}: {', '.join(parts)}"
    return Event(f"step:{m.step}", message, type="metrics", data=data)
