"""pegbox and TRL's trainers on one job, in turn: examples a second, memory, losses.

    .venv/bin/python benchmarks/train_vs_trl.py --task banking77|gsm8k|hh [--runs 3] [--batch 16] [--examples 96]

Both sides get the same token ids in the same order, the same number of rows in an optimizer step, LoRA rank 16 on
every linear layer from the same seed, AdamW at the same rates, the same length limit, the same cores.
Nothing is packed: packing would change what a step learns from. TRL runs in an environment of its own
(benchmarks/.venv-trl, made at the first run; --trl-python names another) at the fastest of its settings, which are
tried first: fp32, bf16 weights, bf16 autocast; padded or padding-free; the step's rows in one forward, or in two or
four; the allocator's settings that our server gives its trainers, or the system's. Always with activation checkpointing
off, loss on the answer alone, no logging, and for pairs the reference's log-probabilities worked out beforehand. pegbox
runs as its recipe's "auto" says.

What is timed: the optimizer steps after the first, from the end of one to the end of the next, with all that lies
between (planning or collating, forward, backward, optimizer, each side's own metrics). Not imports, loading, the first
step, our evaluation before it, TRL's tokenization, or saving. "Start" is all that comes between the imports and the
first step, "whole" all behind the imports: loading, the reference's log-probabilities of both sides, our evaluation at
step 0 (every row is scored once: TRL does nothing like it), our probe of the machine, and the saved adapter.
Peaks of memory are those of whole processes; our allocator's settings keep what is freed, which is faster and higher.
The machine's matrix product is measured after every pair of runs, and the best of these counts.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ledger import FORMULA, operations, operations_of_trl, shapes_of
from overlay import draw
from sides import HERE, Job, Plan, Side, fresh, lay_out, plan, run_pegbox, run_trl, trl_python
from tasks import DATA, TASKS, load
from versus import WARM_UP, Versus, figures, lines, rounded

from pegbox.catalog.models import Catalog
from pegbox.data.template import load_template
from pegbox.settings import Settings

MODEL = "smollm2-135m-instruct"
_FAR = 0.05  # nats between the first losses of two settings that compute the same


@dataclass(frozen=True)
class Setting:
    """How TRL is run."""

    dtype: str = "fp32"
    padding_free: bool = False
    micro: int = 0  # rows of a forward; 0: the whole step's
    plain: bool = False  # without our allocator's settings

    @property
    def kind(self) -> str:
        """What its matrix products are in."""
        return "fp32" if self.dtype == "fp32" else "bf16"

    def __str__(self) -> str:
        rows = f"{self.micro} rows a forward" if self.micro else "a step in one forward"
        memory = ", the system's allocator" if self.plain else ""
        return f"{self.dtype}, {'padding-free' if self.padding_free else 'padded'}, {rows}{memory}"


@dataclass
class Runs:
    """What is measured, run by run."""

    work: Plan  # of the timed steps
    rows: int  # of them
    ours: list[Side]
    theirs: list[Side]
    setting: Setting
    top: dict[str, float]  # operations a second of plain matrix products, by dtype
    dtype: str = "fp32"  # of ours


def main() -> None:
    asked = _arguments()
    base = base_folder(asked.model)
    template = load_template(base)
    task = load(asked.task, template, train=asked.examples, held_out=0, data=asked.data)
    python = trl_python(asked.trl_python)
    with tempfile.TemporaryDirectory() as scratch:
        job = lay_out(Path(scratch) / "job", task, base, batch=asked.batch, threads=asked.threads, dtype=asked.dtype)
        timed = range(WARM_UP + 1, job.steps + 1)
        if not timed:
            sys.exit("one step is warm-up: ask for more examples or a smaller batch")
        work = plan(job, timed)
        rows = len(timed) * asked.batch
        print(
            f"{task.name}: {rows} rows timed, {asked.batch} a step, {work.unshared / rows:.0f} tokens a row; laid out "
            f"by us {work.computed / rows:.0f}, trained {work.predicted / rows:.0f}",
            flush=True,
        )
        setting = asked.trl_setting or fastest(python, job, asked.probe_steps)
        print(f"TRL at its best: {setting}", flush=True)
        runs = Runs(work, rows, [], [], setting, {})
        ours, theirs = runs.ours, runs.theirs
        for i in range(asked.runs):
            mine = fresh(job, Path(scratch) / f"run-{i}")
            ours.append(run_pegbox(mine))
            runs.work = plan(mine, timed)
            theirs.append(run_trl(python, job, **asdict(setting)))
            print(
                f"run {i + 1}: pegbox {_cell(ours[-1], rows)}   TRL {_cell(theirs[-1], rows)}   "
                f"x {theirs[-1].seconds(WARM_UP) / ours[-1].seconds(WARM_UP):.2f}",
                flush=True,
            )
            runs.dtype = _dtype_of_ours(Path(scratch) / f"run-{i}", ours[-1])
            for dtype in {runs.dtype, setting.kind}:
                speed = _ceiling(job, dtype, min(2_048, work.computed // len(timed)))
                runs.top[dtype] = max(speed, runs.top.get(dtype, 0.0))
        report(asked, job, runs)


def base_folder(name: str) -> Path:
    """Of a model in the catalogue, or a folder as it is."""
    if Path(name).is_dir():
        return Path(name)
    found = Catalog(Settings().models).find(name)
    if found is None:
        sys.exit(f"{name} is neither a folder nor in the catalogue: run `make setup` first")
    return Path(found.base.folder)


# --- TRL at its best -------------------------------------------------------------------------------------------


def fastest(python: Path, job: Job, steps: int) -> Setting:
    """Try TRL's settings on the first steps, one choice after the other. One whose first loss is another's computes
    something else and does not count; one that takes four times as long is given up."""
    first: float | None = None
    tried: dict[Setting, float] = {}

    def tries(setting: Setting) -> None:
        nonlocal first
        patience = 60 + 4 * min(tried.values()) * steps if tried else None
        try:
            side = run_trl(python, job, steps=steps, seconds=patience, **asdict(setting))
        except subprocess.TimeoutExpired:
            print(f"  TRL {setting}: given up after {patience:.0f} s", flush=True)
            return
        first = side.losses[0] if first is None else first
        seconds = side.seconds(WARM_UP) / (steps - WARM_UP)
        right = abs(side.losses[0] - first) < _FAR
        same = " of ".join(map(str, side.extra["same_ids"]))  # type: ignore[call-overload]
        ids = "" if tried else f"; token ids as transformers' own template gives them: {same} texts"
        said = "" if right else f"  (another loss, {side.losses[0]:.4f} for {first:.4f}: does not count)"
        print(f"  TRL {setting}: {job.recipe.batch_size / seconds:.3f} examples/s{said}{ids}", flush=True)
        if right:
            tried[setting] = seconds

    for dtype in ("fp32", "bf16", "autocast"):
        tries(Setting(dtype))
    dtype = min(tried, key=tried.__getitem__).dtype
    if job.recipe.method == "supervised":
        tries(Setting(dtype, padding_free=True))
    for parts in (2, 4):
        if not job.recipe.batch_size % parts:
            tries(Setting(dtype, micro=job.recipe.batch_size // parts))
    tries(replace(min(tried, key=tried.__getitem__), plain=True))
    return min(tried, key=tried.__getitem__)


# --- what is told ----------------------------------------------------------------------------------------------


def report(asked: argparse.Namespace, job: Job, runs: Runs) -> None:
    work, positions = runs.work, sum(runs.theirs[0].extra["positions"][WARM_UP:])  # type: ignore[index]
    shapes, rank = shapes_of(Path(job.recipe.base_folder)), job.recipe.lora_rank
    done = operations(shapes, rank, computed=work.computed, predicted=work.predicted)
    done_by_trl = operations_of_trl(shapes, rank, positions=positions)
    ours = figures(runs.ours, work, runs.rows, done, work.computed, runs.dtype, runs.top)
    theirs = figures(runs.theirs, work, runs.rows, done_by_trl, positions, runs.setting.kind, runs.top)
    said = Versus(
        task=asked.task, ours=ours, theirs=theirs, setting=str(runs.setting),
        ratios=[b.seconds(WARM_UP) / a.seconds(WARM_UP) for a, b in zip(runs.ours, runs.theirs, strict=True)],
        precompute_seconds=statistics.median(float(run.extra["precompute_seconds"]) for run in runs.theirs),  # type: ignore[arg-type]
        largest_loss_difference=max(
            abs(a - b) for a, b in zip(runs.ours[0].losses, runs.theirs[0].losses, strict=True)
        ),
        ceiling_gflops={dtype: speed / 1e9 for dtype, speed in runs.top.items()},
        losses={"pegbox": runs.ours[0].losses, "TRL": runs.theirs[0].losses},
        rows_timed=runs.rows, batch=asked.batch, cores=asked.threads, model=job.recipe.base,
        unshared_tokens=work.unshared, trained_tokens=work.predicted, versions=runs.theirs[0].extra["versions"],
        machine=platform.processor() or platform.machine(),
    )  # fmt: skip
    print(f"\nmedians of {len(runs.ours)} runs; operations: {FORMULA}")
    print("\n".join(lines(said)))
    if asked.out:
        picture = asked.out / f"{asked.task}-losses.png"
        draw(picture, f"{asked.task}: step losses", said.losses)
        print(f"losses overlaid: {picture}")
    print(f"ratio: {said.ratio:.2f}")
    print(json.dumps(rounded({"ratio": said.ratio, **asdict(said)})))


def _dtype_of_ours(folder: Path, side: Side) -> str:
    """What "auto" became, where the trainer says so; fp32 otherwise."""
    for values in (side.extra.get("result", {}), json.loads((folder / "recipe.json").read_text("utf-8"))):
        if str(values.get("dtype", "auto")) == "bfloat16":  # type: ignore[attr-defined]
            return "bf16"
    return "fp32"


def _ceiling(job: Job, dtype: str, tokens: int) -> float:
    command = [
        sys.executable,
        str(HERE / "ledger.py"),
        job.recipe.base_folder,
        dtype,
        str(tokens),
        str(job.recipe.threads),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1e9


def _cell(side: Side, rows: int) -> str:
    return f"{rows / side.seconds(WARM_UP):.3f} examples/s, {side.peak_bytes / 2**20:,.0f} MB"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="banking77")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="rows of an optimizer step")
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--model", default=MODEL, help="name in the catalogue, or a folder")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of ours")
    parser.add_argument("--trl-python", type=Path, help="an interpreter that has TRL")
    parser.add_argument(
        "--trl-setting", type=_setting, help="skip the trials: fp32 or bf16,padding_free or fp32,micro=4,plain"
    )
    parser.add_argument("--probe-steps", type=int, default=3, help="steps of a trial, the first not timed")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, help="folder for the picture of the losses")
    return parser.parse_args()


def _setting(text: str) -> Setting:
    dtype, *more = text.split(",")
    micro = next((int(word.removeprefix("micro=")) for word in more if word.startswith("micro=")), 0)
    flags = {word for word in more if not word.startswith("micro=")}
    if dtype not in ("fp32", "bf16", "autocast") or flags - {"padding_free", "plain"}:
        raise argparse.ArgumentTypeError(f"not a setting: {text}")
    return Setting(dtype, "padding_free" in flags, micro, "plain" in flags)


if __name__ == "__main__":
    main()
