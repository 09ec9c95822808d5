"""Does a run's cost grow in a straight line, and what do planning and book-keeping take of a step?

    .venv/bin/python benchmarks/train_cost.py [--rows 1000 2000 5000 10000 20000] [--no-share]

1. Short rows (some 70 bytes a row, one system prompt) are truly trained for one epoch with a random model of two
   layers, a process for each number of rows. Tokens computed are counted by the planner itself; seconds are those of
   the whole call of the trainer: reading, planning, first evaluation (16 rows), steps, metrics, saving. A straight line
   is fitted through the points; R² says how straight. One far from it means that something grows faster than the work:
   with so small a model a step is all overhead, so it shows here first.
2. At 135M: seconds a step of a real run on banking77, the seconds in it that writing metrics and row losses takes, and
   the seconds that the planner's public functions (sampler.examples_of, batches.micro_batches: cut, build, layout) take
   for the very same steps, timed by themselves. Their share of a step has to stay below 3 %.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sides import Job, fresh, lay_out, plan, run_pegbox
from tasks import DATA, Row, Task, load
from tiny_model import in_process
from train_vs_trl import MODEL, base_folder

from pegbox.data.template import load_template
from pegbox.engines.hosted import child_environment

ROWS = (1_000, 2_000, 5_000, 10_000, 20_000)
BATCH, HELD_OUT = 16, 16
_LARGEST_SHARE = 0.03
_PLANNER = """
import json, sys, time
from pathlib import Path
from pegbox.train.batches import micro_batches
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import examples_of
from pegbox.train.samples import read_samples
run = RunDir(Path(sys.argv[1])); recipe = run.recipe()
learn = read_samples(run, recipe, valid=False)
spent = {"examples_of": 0.0, "micro_batches": 0.0}
for step in json.loads(sys.argv[2]):
    began = time.perf_counter()
    chosen = examples_of(step, len(learn), recipe.batch_size, recipe.seed)
    spent["examples_of"] += time.perf_counter() - began
    batch = [learn[i] for i in chosen]
    began = time.perf_counter()
    micro_batches(batch, recipe.micro_batch_tokens)
    spent["micro_batches"] += time.perf_counter() - began
print(json.dumps(spent))
"""


@dataclass(frozen=True)
class Point:
    rows: int
    tokens: int  # computed
    seconds: float  # of the whole run
    steps: float  # seconds of its steps alone


@dataclass(frozen=True)
class Line:
    """y = slope x + start"""

    slope: float
    start: float
    r_squared: float


def main() -> int:
    asked = _arguments()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tiny = base_folder(asked.small) if asked.small else in_process(Path(scratch) / "model")
        points = [cost(n, tiny, Path(scratch) / f"rows-{n}") for n in asked.rows]
        line = fit([p.tokens for p in points], [p.seconds for p in points])
        print(
            f"seconds = {line.slope * 1e6:.2f} a million tokens x tokens + {line.start:.2f}; R² = {line.r_squared:.5f}"
        )
        result |= {
            "points": [[p.rows, p.tokens, round(p.seconds, 2), round(p.steps, 2)] for p in points],
            "seconds_per_million_tokens": line.slope * 1e6, "r_squared": line.r_squared,
        }  # fmt: skip
        if not asked.no_share:
            shares = share(asked, Path(scratch))
            print("share of a step: " + ", ".join(f"{k} {v:.2%}" for k, v in shares.items()))
            result |= {"share": shares, "share_sum": sum(shares.values())}
    print(json.dumps(result))
    return int(sum(result.get("share", {}).values()) >= _LARGEST_SHARE)  # type: ignore[attr-defined]


def cost(rows: int, base: Path, folder: Path) -> Point:
    """Train so many rows once."""
    task = Task("short", "supervised", tuple(short_rows(rows)), tuple(short_rows(rows + HELD_OUT)[rows:]))
    job = lay_out(folder, task, base, batch=_divisor(rows), threads=1, dtype="float32")
    task.write(job.run.train_data, job.run.valid_data)
    replace(job.recipe, valid_every=10**9).save(job.run.recipe_path)
    began = time.perf_counter()
    side = run_pegbox(job)
    point = Point(rows, plan(job, range(1, job.steps + 1)).computed, side.whole_seconds, side.seconds())
    print(
        f"{rows:7,} rows  {point.tokens:10,} tokens computed  {point.seconds:7.2f} s, steps {point.steps:7.2f} s  "
        f"(process {time.perf_counter() - began:.1f} s)",
        flush=True,
    )
    return point


def short_rows(n: int) -> list[Row]:
    """Rows that no two are the same of, in the API's format."""
    words = ("red", "green", "blue", "white", "black")
    return [
        {
            "messages": [
                {"role": "system", "content": "Answer in one word."},
                {"role": "user", "content": f"Thing {i * 7_919 % 1_000_003}?"},
                {"role": "assistant", "content": words[i % 5]},
            ]
        }
        for i in range(n)
    ]


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least-squares line. R² is 1 - (what it leaves) / (the spread of y)."""
    slope, start = np.polyfit(x, y, 1)
    left = np.square(np.asarray(y) - (slope * np.asarray(x) + start)).sum()
    spread = np.square(np.asarray(y) - np.mean(y)).sum()
    return Line(float(slope), float(start), float(1 - left / spread) if spread else 1.0)


def share(asked: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """Of a step's seconds: each part of planning, and the writing of metrics."""
    base = base_folder(asked.model)
    task = load(asked.task, load_template(base), train=asked.share_rows, held_out=0, data=asked.data)
    job = lay_out(scratch / "share", task, base, batch=asked.batch, threads=asked.threads)
    job = fresh(job, scratch / "share-run")
    side = run_pegbox(job)
    step = side.seconds() / (job.steps - 1)
    told = float(side.extra["reporting"]) / job.steps  # type: ignore[arg-type]
    parts = {name: seconds / (job.steps - 1) for name, seconds in planning(job, range(2, job.steps + 1)).items()}
    print(f"{job.recipe.base}, {asked.task}, {asked.batch} rows a step: {step:.2f} s a step, {job.steps - 1} timed")
    return {name: seconds / step for name, seconds in (parts | {"metrics": told}).items()}


def planning(job: Job, steps: range) -> dict[str, float]:
    """Seconds that the planner's public functions take for these steps, in a process of their own."""
    command = [sys.executable, "-c", _PLANNER, str(job.run.path), json.dumps(list(steps))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=child_environment())
    return {name: float(seconds) for name, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


def _divisor(rows: int) -> int:
    """The largest batch size up to BATCH that divides it."""
    return max(n for n in range(1, BATCH + 1) if not rows % n)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--small", help="model of part 1; a random one of two layers where none is given")
    parser.add_argument("--no-share", action="store_true", help="leave out part 2")
    parser.add_argument("--model", default=MODEL, help="of part 2")
    parser.add_argument("--task", default="banking77")
    parser.add_argument("--share-rows", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
