"""Our side of a comparison: train one run directory, and write down when each step ended.

    python benchmarks/pegbox_side.py RUNDIR OUT.json

This is `python -m pegbox.train RUNDIR` but for the clock: the trainer tells its run directory of every step, and the
run directory notes the time. A step's time is that between two such reports, so it holds all that the trainer does:
planning, forward, backward, the optimizer, its metrics, and writing them down.
"""

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pegbox.train.rundir import Note, RowLosses, RunDir, StepMetrics


@dataclass
class Clock:
    """Seconds of the performance counter."""

    began: float = 0.0
    first: float = 0.0  # when the first step began
    ends: list[float] = field(default_factory=list)  # of the steps
    reporting: float = 0.0  # spent in writing metrics and row losses


class TimedRun(RunDir):
    """A run directory that knows when it was told what."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.clock = Clock(time.perf_counter())

    def report(self, metrics: StepMetrics) -> None:
        now = time.perf_counter()
        self.clock.ends.append(now)
        super().report(metrics)
        self.clock.reporting += time.perf_counter() - now

    def report_rows(self, losses: RowLosses) -> None:
        now = time.perf_counter()
        super().report_rows(losses)
        self.clock.reporting += time.perf_counter() - now

    def tell(self, note: Note) -> None:
        super().tell(note)
        if note.key == "step:0":  # told when all is ready
            self.clock.first = time.perf_counter()
        print(f"{time.perf_counter() - self.clock.began:8.2f} s  {note.message or note.key}", flush=True)


def train_timed(run: TimedRun) -> dict[str, object]:
    """Train it to its end. What came of it, as JSON."""
    from pegbox.train.loop import train

    run.clock.began = time.perf_counter()  # after the imports
    result = train(run)
    called = time.perf_counter() - run.clock.began
    if result.outcome != "succeeded":
        raise SystemExit(f"the run {result.outcome}: {result.message}")
    return {
        "losses": [m.train_loss for m in run.curve()],
        "ends": [end - run.clock.began for end in run.clock.ends],
        "reporting": run.clock.reporting,
        "start_seconds": run.clock.first - run.clock.began,
        "whole_seconds": called,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "result": asdict(result),
    }


if __name__ == "__main__":
    out = train_timed(TimedRun(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(out), "utf-8")
