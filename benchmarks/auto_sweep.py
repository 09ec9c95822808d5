"""Is "auto" a good choice? Each task is trained with everything on auto and at twelve points around it.

    .venv/bin/python benchmarks/auto_sweep.py --out FOLDER [--tasks banking77-10 style …] [--rows 200] [--points N]

What "auto" means is asked of a real server, by a job that leaves every hyperparameter out; its recipe is then trained
here. The points: learning-rate multiplier 0.3, 1, 3 x batch size 4, 16 x epochs 1, 3 of that recipe. All learn from the
same rows and are judged on the same held-out rows, by stock transformers and PEFT: mean loss of the learnt tokens (of
pairs the mean DPO loss), and where an answer is right or wrong as a whole the share of answers that the model would
give exactly so at temperature 0: each token, the stop included, is its most likely one. Of pairs it is the share whose
preferred answer has the higher reward.

One line a point in FOLDER/sweep.jsonl; points that stand there are not trained again, so the sweep can be stopped at
any time and called again. `--points 2` trains no more than two new ones. Each is a process of its own. The table is
drawn of all that is there.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from openai import OpenAI
from tasks import DATA, TASKS, Task, load
from train_vs_trl import MODEL, base_folder

from pegbox.catalog.models import MANIFEST, BaseModel, load_manifest, save_manifest
from pegbox.data.template import load_template
from pegbox.engines.hosted import child_environment
from pegbox.testing import ServerProcess
from pegbox.train.recipe import Recipe, auto_warmup
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import steps_per_epoch

MULTIPLIERS, BATCHES, EPOCHS = (0.3, 1.0, 3.0), (4, 16), (1, 3)
DEFAULT_TASKS = ("banking77-10", "banking77-77", "gsm8k", "style", "hh")
NEAR = 0.02  # of the best loss
DIVERGED = 1e9
SMALL = {"style": (59, 20)}  # tasks with fewer rows: to train on, held out
LONGEST = {"gsm8k": 160, "hh": 128}  # tokens of a text, so that a point takes a minute or two


@dataclass(frozen=True)
class Point:
    multiplier: float
    batch: int
    epochs: int


@dataclass(frozen=True)
class Judged:
    """A line of sweep.jsonl."""

    model: str
    task: str
    rows: int
    held_out: int
    name: str  # "auto", or the point's figures
    point: Point
    loss: float  # held-out
    accuracy: float | None
    seconds: float

    @property
    def key(self) -> tuple[object, ...]:
        return (self.model, self.task, self.rows, self.held_out, self.name)


def main() -> None:
    asked = _arguments()
    base = base_folder(asked.model)
    template = load_template(base)
    left = asked.points
    for name in asked.tasks:
        rows, held_out = map(min, (asked.rows, asked.held_out), SMALL.get(name, (10**9, 10**9)))
        longest = asked.longest or LONGEST.get(name)
        task = load(name, template, train=rows, held_out=held_out, data=asked.data, longest=longest)
        for label, recipe in points(resolve_auto(task, base, asked.threads)) if left else ():
            key = (base.name, name, rows, held_out, label)
            if key in {one.key for one in judged(asked.out)} or not left:
                continue
            left -= 1
            one = train_and_judge(task, base, label, recipe)
            with (asked.out / "sweep.jsonl").open("a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(one)) + "\n")
            print(f"{name:14}{_row(one)}", flush=True)
    summaries = [summary for name in asked.tasks if (summary := table(judged(asked.out), base.name, name))]
    print(json.dumps({"tasks": summaries, "left_out": asked.points - left == asked.points}))


def points(auto: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Auto first, then the twelve."""
    yield "auto", auto
    n = int(auto.job_id)  # of rows
    for multiplier, batch, epochs in product(MULTIPLIERS, BATCHES, EPOCHS):
        yield (
            f"x{multiplier:g} batch {batch} epochs {epochs}",
            replace(
                auto,
                learning_rate=auto.learning_rate / auto.learning_rate_multiplier * multiplier,
                learning_rate_multiplier=multiplier,
                batch_size=batch,
                n_epochs=epochs,
                warmup_steps=auto_warmup(steps_per_epoch(n, batch) * epochs),
            ),
        )


def resolve_auto(task: Task, base: Path, threads: int) -> Recipe:
    """The recipe of a job with nothing but a file and a seed. The server is killed as soon as it stands."""
    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch) / "models"
        (models / MODEL).mkdir(parents=True)
        save_manifest(models / MODEL / MANIFEST, _manifest(base))
        file = Path(scratch) / "train.jsonl"
        task.write(file)
        server = ServerProcess(Path(scratch) / "data", "sk-sweep", {"PEGBOX_MODELS_DIR": str(models)})
        server.start()
        try:
            client = OpenAI(base_url=server.base_url, api_key=server.key, timeout=120)
            with file.open("rb") as content:
                uploaded = client.files.create(file=content, purpose="fine-tune").id
            method = {"method": {"type": "dpo"}} if task.method == "dpo" else {}
            job = client.fine_tuning.jobs.create(
                model=MODEL, training_file=uploaded, seed=0, metadata={"pegbox.holdout": "off"}, **method
            )
            while job.status == "validating_files":
                time.sleep(0.2)
                job = client.fine_tuning.jobs.retrieve(job.id)
            if job.status == "failed":
                raise SystemExit(f"{task.name}: {job.error}")
            found = RunDir(server.data_dir / "runs" / job.id).recipe()
        finally:
            server.kill()
    return replace(
        found, job_id=str(len(task.train)), base=base.name, base_folder=str(base), threads=threads,
        snapshot_seconds=1e9, patience=None,
    )  # fmt: skip


def _manifest(base: Path) -> BaseModel:
    """The model's own, or one for a folder without."""
    if (base / MANIFEST).exists():
        return load_manifest(base / MANIFEST)
    config = json.loads((base / "config.json").read_text("utf-8"))
    return BaseModel(
        name=MODEL, folder=str(base), created_at=1, source="benchmark", formats=("chat", "completion"),
        context=config["max_position_embeddings"], hidden_size=config["hidden_size"], parameters=1,
        license="Apache-2.0", fingerprint=base.name,
    )  # fmt: skip


def train_and_judge(task: Task, base: Path, label: str, recipe: Recipe) -> Judged:
    """In processes of their own. A point that diverges is as bad as can be, and part of the sweep."""
    point = Point(recipe.learning_rate_multiplier, recipe.batch_size, recipe.n_epochs)
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDir(Path(scratch) / "run")
        run.create()
        # The trainer never sees the held-out rows. One row that it learns from stands in for them, because without any
        # it would score all training rows before it begins.
        replace(task, held_out=task.train[:1]).write(run.train_data, run.valid_data)
        replace(task, train=task.held_out).write(Path(scratch) / "held_out.jsonl")
        recipe.save(run.recipe_path)
        with run.log.open("ab") as log:
            command = [sys.executable, "-m", "pegbox.train", str(run.path)]
            subprocess.run(command, stdout=log, stderr=log, env=child_environment(), check=False)
        result = run.result()
        if result is None:
            raise SystemExit(f"{task.name} {label} died:\n{run.last_words(20)}")
        if result.outcome != "succeeded":
            return Judged(base.name, task.name, len(task.train), len(task.held_out), label, point, DIVERGED, None, 0.0)
        adapter = max(run.checkpoints.glob("step-*"))
        judge = [sys.executable, str(Path(__file__).with_name("judge.py")), str(run.recipe_path), str(adapter)]
        said = subprocess.run([*judge, str(Path(scratch) / "held_out.jsonl")], check=True, stdout=subprocess.PIPE,
                              text=True, env=child_environment()).stdout  # fmt: skip
    loss, accuracy = json.loads(said.splitlines()[-1])
    has_accuracy = task.exact or task.method == "dpo"
    return Judged(
        base.name, task.name, len(task.train), len(task.held_out), label, point, loss,
        accuracy if has_accuracy else None, result.seconds,
    )  # fmt: skip


def judged(folder: Path) -> list[Judged]:
    """What is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [Judged(**{**values, "point": Point(**values["point"])}) for values in map(json.loads, lines)]


def table(done: list[Judged], model: str, task: str) -> dict[str, object] | None:
    """Print a task's points, best first, and say how auto stands among them; None where there is nothing to say."""
    here = sorted((one for one in done if one.model == model and one.task == task), key=lambda one: one.loss)
    if not here:
        return None
    print(f"\n{task}, {here[0].rows} rows, held-out loss of {here[0].held_out}")
    for one in here:
        print("  " + _row(one))
    return verdict(here)


def verdict(here: list[Judged]) -> dict[str, object]:
    """How auto stands among the points of one task."""
    mine = next((one for one in here if one.name == "auto"), None)
    others = [one.loss for one in here if one.name != "auto"]
    found: dict[str, object] = {"task": here[0].task, "points": len(others), "auto": mine.loss if mine else None}
    if not mine or not others:
        return found
    best, median = min(others), statistics.median(others)
    found |= {
        "median": median, "best": best, "beats_median": mine.loss < median,
        "within_2_percent_of_best": mine.loss <= best * (1 + NEAR), "behind_best": mine.loss / best - 1,
        "auto_accuracy": mine.accuracy,
        "best_accuracy": max((one.accuracy for one in here if one.accuracy is not None), default=None),
    }  # fmt: skip
    print(f"  auto {mine.loss:.4f}  median {median:.4f}  best {best:.4f}: auto "
          f"{'beats' if mine.loss < median else 'does not beat'} the median, "
          f"{found['behind_best']:+.1%} from the best of {len(others)}")  # fmt: skip
    return found


def _row(one: Judged) -> str:
    right = "" if one.accuracy is None else f"  accuracy {one.accuracy:.3f}"
    shown = "diverged" if one.loss >= DIVERGED else f"{one.loss:.4f}"
    p = one.point
    return (
        f"{one.name:26} x{p.multiplier:<4g} batch {p.batch:<3} epochs {p.epochs:<3} {shown}{right}  {one.seconds:.0f} s"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of sweep.jsonl")
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(DEFAULT_TASKS))
    parser.add_argument("--rows", type=int, default=200, help="to train on")
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--longest", type=int, help="tokens of a text; rows with longer ones are not drawn")
    parser.add_argument("--points", type=int, default=10**9, help="train at most so many new ones")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    return parser.parse_args()


if __name__ == "__main__":
    main()
