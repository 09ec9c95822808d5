"""Kill a training run at a random moment, resume it, and compare what it ends with: byte for byte, fifty times.

    .venv/bin/python benchmarks/resume_exact.py --kills 50 [--model FOLDER_OR_NAME] [--method supervised|dpo]

One run of 60 steps goes undisturbed, as `python -m pegbox.train RUNDIR`. Each attempt is the same run in a new
directory: it is killed with SIGKILL at a moment drawn evenly over a run's life (loading, first evaluation, steps,
snapshots, validation, the last save), some resumed runs are killed once more, and then it is left to end. Its adapter
must have the same bytes, and every line of its metrics, those of repeated steps too, the same figures.

Importing torch would be most of so short a life, so attempts are forked from a process that has imported it and done
nothing else. What runs after the fork is the trainer's own program.
"""

import argparse
import collections
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tasks import DATA, load
from tiny_model import in_process

from pegbox.catalog.models import Catalog
from pegbox.data.template import load_template
from pegbox.engines.hosted import child_environment
from pegbox.settings import Settings
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir

STEPS_AN_EPOCH, EPOCHS, BATCH, HELD_OUT = 20, 3, 4, 8
SECOND_KILL = 0.4  # chance that a resumed run is killed once more
_PATIENCE = 600  # seconds for a run to end
_ENDING = ("adapter_model.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class Ended:
    """What a run leaves, as far as it must be the same however often it was killed."""

    adapter: tuple[bytes, ...]
    metrics: dict[int, dict[str, object]]  # by step
    trained_tokens: int
    settled: tuple[object, ...] = ()  # what the trainer found out about the machine, if it was killed before it kept it


@dataclass(frozen=True)
class Kill:
    after: float  # seconds of life
    where: str  # what the run was doing, as its directory shows


def main() -> None:
    asked = _arguments()
    # A killed process leaves a lock behind (tqdm's), which Python's tracker cleans up and would tell of each time.
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        base = _base(asked.model, root / "model")
        template = load_template(base)
        task = load("hh" if asked.method == "dpo" else "tickets", template, train=STEPS_AN_EPOCH * BATCH,
                    held_out=HELD_OUT, data=asked.data)  # fmt: skip

        def new_run(name: str) -> RunDir:
            run = RunDir(root / name)
            run.create()
            task.write(run.train_data, run.valid_data)
            _recipe(base, task.method, asked.snapshot_seconds).save(run.recipe_path)
            return run

        undisturbed = new_run("undisturbed")
        _spawn(undisturbed)
        wanted = ending(undisturbed)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pegbox.train.loop", "resume_exact"])
        lives = []
        for i in range(3):  # the first of them waits for the fork server's imports
            began = time.monotonic()
            once = new_run(f"forked-{i}")
            _finish(_start(context, once), once)
            lives.append(time.monotonic() - began)
            assert difference(ending(once), wanted) is None, "a forked run equals one of its own process"
        life = statistics.median(lives[1:])
        print(f"a run of {len(wanted.metrics)} steps lives {life:.2f} s after its imports", flush=True)

        draw = random.Random(asked.seed)
        kills: list[Kill] = []
        resumed_at: list[int] = []
        unequal: list[str] = []
        for i in range(asked.kills):
            run = new_run(f"attempt-{i}")
            here = _disturb(context, run, draw, life)
            resumed = [note.step for note in run.notes()[0] if note.key.startswith("resumed:")]
            problem = difference(ending(run), wanted)
            if problem:
                unequal.append(f"attempt {i}: {problem}")
            kills += here
            resumed_at += resumed
            told = ", ".join(f"{kill.after:.2f} s ({kill.where})" for kill in here)
            print(f"{i + 1:3}  killed after {told}; resumed at {resumed or 'the start'}; "
                  f"{problem or 'identical'}", flush=True)  # fmt: skip
    middle = sum(step % STEPS_AN_EPOCH != 0 for step in resumed_at)
    where = dict(collections.Counter(kill.where for kill in kills))
    print(f"kills: {asked.kills}\nidentical: {asked.kills - len(unequal)}")
    result = {
        "kills": asked.kills, "identical": asked.kills - len(unequal), "all_kills": len(kills), "where": where,
        "resumed": len(resumed_at), "resumed_mid_epoch": middle, "unequal": unequal, "seed": asked.seed,
        "steps": len(wanted.metrics), "model": asked.model or "random, two layers", "method": asked.method,
    }  # fmt: skip
    print(json.dumps(result))
    sys.exit(bool(unequal))


def _disturb(
    context: multiprocessing.context.ForkServerContext, run: RunDir, draw: random.Random, life: float
) -> list[Kill]:
    """Run it to its end, killed once or twice on the way."""
    kills: list[Kill] = []
    while len(kills) < 1 or (len(kills) < 2 and draw.random() < SECOND_KILL):
        before = said(run)
        process = _start(context, run)
        after = draw.uniform(0, life)
        process.join(after)
        if process.is_alive():
            process.kill()
            process.join()
            kills.append(Kill(after, where(run, before)))
        elif kills:  # a resumed run has less to do and may be faster than the moment drawn
            assert process.exitcode == 0, run.last_words()
            return kills
        else:  # it ended before its time: nothing was disturbed, so begin again
            _empty(run)
    _finish(_start(context, run), run)
    return kills


def said(run: RunDir) -> tuple[int, int]:
    """Events and steps that the run has told of."""
    return len(run.notes()[0]), len(run.metrics()[0])


def where(run: RunDir, before: tuple[int, int]) -> str:
    """What a killed run was at, by what it left and what it had said `before` this life."""
    if run.result():
        return "ended"
    if list(run.checkpoints.glob("incoming-*")):
        return "saving"
    events, steps = said(run)
    if steps > before[1]:
        last = run.curve()[-1]
        return "after the last step" if last.step == last.total_steps else "training"
    return "before its first step" if events > before[0] else "loading"


def ending(run: RunDir) -> Ended:
    result = run.result()
    if result is None or result.outcome != "succeeded":
        raise SystemExit(f"{run.path.name} did not succeed: {result}\n{run.last_words()}")
    newest = max(run.checkpoints.glob("step-*"))
    metrics: dict[int, dict[str, object]] = {}
    for told in run.metrics()[0]:
        figures = {key: value for key, value in asdict(told).items() if key != "seconds_left"}
        if metrics.setdefault(told.step, figures) != figures:
            figures["repeated"] = metrics[told.step]  # a step that was repeated came out otherwise
            metrics[told.step] = figures
    recipe = run.recipe()
    adapter = tuple((newest / name).read_bytes() for name in _ENDING)
    return Ended(adapter, metrics, result.trained_tokens, (recipe.dtype, recipe.micro_batch_tokens))


def difference(one: Ended, other: Ended) -> str | None:
    """How two endings differ, in words; None where they are the same."""
    if one.settled != other.settled:
        return f"the machine was found to be another: {one.settled} and not {other.settled}"
    for step in sorted(one.metrics.keys() | other.metrics.keys()):
        if one.metrics.get(step) != other.metrics.get(step):
            return f"step {step}: {one.metrics.get(step)} and not {other.metrics.get(step)}"
    if one.trained_tokens != other.trained_tokens:
        return f"{one.trained_tokens} trained tokens and not {other.trained_tokens}"
    return None if one.adapter == other.adapter else "other bytes in the adapter"


# --- processes -------------------------------------------------------------------------------------------------


def work(path: str, log: str) -> None:
    """The trainer's program, in a forked process."""
    from pegbox.train.__main__ import main as train

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["pegbox.train", path]
    sys.exit(train())


def _start(context: multiprocessing.context.ForkServerContext, run: RunDir) -> BaseProcess:
    run.clear()
    process = context.Process(target=work, args=(str(run.path), str(run.log)))
    process.start()
    return process


def _finish(process: BaseProcess, run: RunDir) -> None:
    process.join(_PATIENCE)
    if process.exitcode != 0:
        process.kill()
        raise SystemExit(f"{run.path.name} ended with {process.exitcode}:\n{run.last_words(20)}")


def _spawn(run: RunDir) -> None:
    with run.log.open("ab") as log:
        subprocess.run([sys.executable, "-m", "pegbox.train", str(run.path)], check=True, stdout=log, stderr=log,
                       env=child_environment())  # fmt: skip


def _empty(run: RunDir) -> None:
    for name in ("events.jsonl", "metrics.jsonl", "rows.jsonl", "result.json"):
        (run.path / name).unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints)
    run.create()


# --- the run ---------------------------------------------------------------------------------------------------


def _recipe(base: Path, method: str, snapshot_seconds: float) -> Recipe:
    return Recipe(
        job_id="benchmark", base=base.name, base_folder=str(base), base_fingerprint="", method=method, seed=7,
        n_epochs=EPOCHS, batch_size=BATCH, learning_rate=2e-3, learning_rate_multiplier=1.0, warmup_steps=3,
        max_tokens=1_024, valid_every=5, valid_rows=4, snapshot_seconds=snapshot_seconds, threads=1,
    )  # fmt: skip


def _base(model: str | None, folder: Path) -> Path:
    if model is None:
        return in_process(folder)
    if Path(model).is_dir():
        return Path(model)
    found = Catalog(Settings().models).find(model)
    if found is None:
        sys.exit(f"{model} is neither a folder nor in the catalogue")
    return Path(found.base.folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", help="a model's folder or name; a random one of two layers where none is given")
    parser.add_argument("--method", choices=("supervised", "dpo"), default="supervised")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshot-seconds", type=float, default=0.1)
    parser.add_argument("--data", type=Path, default=DATA, help="for pairs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
