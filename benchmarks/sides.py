"""One job, laid out for pegbox and for TRL: the same token ids, in the same order, so many a step, at the same rates.

Torch stays in the children: a child's peak of memory begins at its parent's size.
"""

import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, replace
from pathlib import Path

from tasks import Task

from pegbox.data import trie
from pegbox.data.formats import Preference, Record, parse_row
from pegbox.data.render import Example, examples, truncate
from pegbox.data.template import Template, load_template
from pegbox.engines.hosted import child_environment
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import examples_of
from pegbox.train.samples import WIDTHS

HERE = Path(__file__).parent
TRL = "trl==1.16.0"
TRL_VENV = HERE / ".venv-trl"
RATES = {"supervised": 5e-4, "dpo": 5e-5}
MAX_TOKENS = 4_096


@dataclass(frozen=True)
class Side:
    """How one process did."""

    losses: list[float]  # of the steps
    ends: list[float]  # seconds from where its clock began to the end of each step
    start_seconds: float  # from the end of its imports to its first step: loading, references, first evaluation
    whole_seconds: float  # from the end of its imports to its own
    peak_bytes: int
    extra: dict[str, object]  # all that it said

    def seconds(self, warm_up: int = 1) -> float:
        """Of the steps after the warm-up."""
        return self.ends[-1] - self.ends[warm_up - 1]


@dataclass(frozen=True)
class Job:
    """A run directory and the examples that its rows make: one a row, or two where it is a pair."""

    run: RunDir
    recipe: Recipe
    template: Template
    records: list[Record]
    rows: list[list[Example]]

    @property
    def steps(self) -> int:
        return len(self.rows) // self.recipe.batch_size

    def batch(self, step: int) -> list[int]:
        """The rows of a step, from 1."""
        return examples_of(step, len(self.rows), self.recipe.batch_size, self.recipe.seed)


def lay_out(folder: Path, task: Task, base_folder: Path, *, batch: int, threads: int, dtype: str = "auto") -> Job:
    """A job of one epoch in a new run directory. Raises ValueError where the last step would be a smaller one."""
    if len(task.train) % batch:
        raise ValueError(f"{len(task.train)} rows are not a multiple of {batch}: the last step would be smaller")
    run = RunDir(folder)
    run.create()
    task.write(run.train_data)
    recipe = Recipe(
        job_id=f"benchmark-{task.name}", base=base_folder.name, base_folder=str(base_folder), base_fingerprint="",
        method=task.method, seed=0, n_epochs=1, batch_size=batch, learning_rate=RATES[task.method],
        learning_rate_multiplier=1.0, warmup_steps=max(1, len(task.train) // batch // 10), max_tokens=MAX_TOKENS,
        dtype=dtype, snapshot_seconds=1e9, threads=threads,
    )  # fmt: skip
    recipe.save(run.recipe_path)
    template = load_template(base_folder)
    records = [parse_row(row, task.method) for row in task.train]
    rows = [[truncate(one, recipe.max_tokens) for one in examples(record, template)] for record in records]
    return Job(run, recipe, template, records, rows)


# --- what each side computes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Tokens of some steps."""

    unshared: int  # of the rows, each by itself
    computed: int  # laid out by us, what rows begin with in common once
    predicted: int  # trained tokens


def plan(job: Job, steps: range) -> Plan:
    """What the trainer lays out for these steps, by the planner that it uses. Exact once it has run: it may have found
    less memory than the recipe had hoped for."""
    budget = job.run.recipe().micro_batch_tokens
    unshared = computed = predicted = 0
    for step in steps:
        rows = [job.rows[row] for row in job.batch(step)]
        batch = [side for row in rows for side in row]
        unshared += sum(len(side.tokens) for side in batch)
        predicted += sum(side.n_trained for side in batch)
        for group in trie.cut(batch, budget, WIDTHS[job.recipe.method]):
            computed += len(trie.build([side for i in group for side in rows[i]]).tokens)
    return Plan(unshared, computed, predicted)


# --- ours ------------------------------------------------------------------------------------------------------


def run_pegbox(job: Job) -> Side:
    """Train the run directory in a process of its own. It must not have been trained before."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out.json"
        _child([sys.executable, str(HERE / "pegbox_side.py"), str(job.run.path), str(out)], job.run.path / "log.txt")
        return _side(out)


# --- theirs ----------------------------------------------------------------------------------------------------


def run_trl(
    python: Path,
    job: Job,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    plain: bool = False,
    **settings: object,
) -> Side:
    """Train the same with TRL, the first steps or all. `plain`: with the system's allocator. `settings` are fields of
    trl_side.Ask. Raises TimeoutExpired after `seconds`."""
    with tempfile.TemporaryDirectory() as scratch:
        ask, out = Path(scratch) / "ask.json", Path(scratch) / "out.json"
        ask.write_text(json.dumps(ask_trl(job, steps or job.steps) | settings), "utf-8")
        command = [str(python), "-P", str(HERE / "trl_side.py"), str(ask), str(out)]
        _child(command, Path(scratch) / "log", seconds, plain=plain)
        return _side(out)


def ask_trl(job: Job, steps: int) -> dict[str, object]:
    """What trl_side.Ask takes."""
    recipe = job.recipe
    order = [row for step in range(1, steps + 1) for row in job.batch(step)]
    make = _pair if recipe.method == "dpo" else _row
    return {
        "method": recipe.method, "base_folder": recipe.base_folder, "rows": [make(job.rows[i]) for i in order],
        "batch": recipe.batch_size, "rates": rates(recipe, job.steps)[:steps], "seed": recipe.seed,
        "rank": recipe.lora_rank, "alpha": recipe.lora_alpha, "beta": recipe.beta, "threads": recipe.threads,
        "texts": [text for record in job.records for text in _texts(record)],
        "expected": [side.tokens for row in job.rows for side in row],
    }  # fmt: skip


def rates(recipe: Recipe, steps: int) -> list[float]:
    """The recipe's learning rate at each step, worked out here because the trainer's own is beside torch: it rises in
    a line over the warm-up, and falls in a line to zero over the whole run."""
    return [
        recipe.learning_rate * min(1.0, s / recipe.warmup_steps) * (steps - s + 1) / steps for s in range(1, steps + 1)
    ]


def _row(sides: list[Example]) -> dict[str, object]:
    (one,) = sides
    return {"input_ids": one.tokens, "completion_mask": [int(t) for t in one.trained]}


def _pair(sides: list[Example]) -> dict[str, object]:
    chosen, rejected = sides
    at = chosen.trained.index(True)
    assert chosen.tokens[:at] == rejected.tokens[:at], "both answers stand behind the same prompt"
    assert all(chosen.trained[at:] + rejected.trained[at:]), "an answer ends its text"
    return {"prompt_ids": chosen.tokens[:at], "chosen_ids": chosen.tokens[at:], "rejected_ids": rejected.tokens[at:]}


def _texts(record: Record) -> list[list[dict[str, str]]]:
    """The conversations of a row's examples, as chat templates take them."""
    if isinstance(record, Preference):
        before = [_turn(m.role, m.content) for m in record.prompt.messages]
        return [[*before, _turn("assistant", answer.content)] for answer in (record.chosen, record.rejected)]
    return [[_turn(m.role, m.content) for m in record.messages]]  # type: ignore[union-attr]


def _turn(role: str, content: str | None) -> dict[str, str]:
    return {"role": role, "content": content or ""}


def trl_python(asked: Path | None) -> Path:
    """The interpreter of TRL's own environment, which is made here if it is not there yet."""
    if asked:
        return asked
    python = TRL_VENV / "bin" / "python"
    if not (TRL_VENV / "done").exists():
        print(f"setting up {TRL_VENV} ({TRL}; torch is large: a few minutes)", flush=True)
        venv.create(TRL_VENV, with_pip=True, clear=True)
        pins = str(HERE.parent / "constraints.txt")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--constraint", pins, TRL, "peft", "transformers", "torch"],
            check=True,
        )
        (TRL_VENV / "done").touch()
    return python


# --- children --------------------------------------------------------------------------------------------------


def _child(command: list[str], log: Path, seconds: float | None = None, *, plain: bool = False) -> None:
    """Run it to its end, with the environment that our server gives its trainers: TRL gets the same allocator and the
    same threads' patience, unless `plain`. Ends all, with the log, where it fails."""
    env = child_environment()
    if plain:
        env = {key: value for key, value in env.items() if not key.startswith(("MALLOC_", "GOMP_"))}
    with log.open("ab") as out:
        done = subprocess.run(command, stdout=out, stderr=out, env=env, timeout=seconds, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text('utf-8', 'replace')[-3000:]}")


def _side(path: Path) -> Side:
    said = json.loads(path.read_text("utf-8"))
    return Side(
        *(said.pop(key) for key in ("losses", "ends", "start_seconds", "whole_seconds", "peak_bytes")), extra=said
    )


def fresh(job: Job, folder: Path) -> Job:
    """The same job in another run directory, not trained yet."""
    run = RunDir(folder)
    run.create()
    run.train_data.write_bytes(job.run.train_data.read_bytes())
    job.recipe.save(run.recipe_path)
    return replace(job, run=run)
