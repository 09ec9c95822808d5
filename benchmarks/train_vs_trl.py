"""pegbox and TRL's trainers on one job, in turn: examples a second, memory, losses.

    .venv/bin/python benchmarks/train_vs_trl.py --task banking77|gsm8k|hh [--runs 3] [--batch 16] [--examples 96]

Both sides get the same token ids in the same order, the same number of rows in an optimizer step, LoRA rank 16 on every
linear layer from the same seed, AdamW at the same rates, the same length limit, the same cores and allocator. Nothing is
packed: packing would change what a step learns from. TRL runs in an environment of its own (benchmarks/.venv-trl, made
at the first run; --trl-python names another) at the fastest of its settings, which are tried first: fp32, bf16 weights,
bf16 autocast; padded or padding-free; the step's rows in one forward, or in two or four; always with activation
checkpointing off, loss on the answer alone, no logging, and for pairs the reference's log-probabilities worked out
beforehand. pegbox runs as its recipe's "auto" says.

What is timed: the optimizer steps after the first, from the end of one to the end of the next, with all that lies
between (planning or collating, forward, backward, optimizer, each side's own metrics). Not imports, loading, the first
step, our evaluation before it, TRL's tokenization, or saving. "Whole" is from the loaded weights to the end, so it has
our evaluation at step 0 (every row is scored once: TRL does nothing like it) and TRL's reference log-probabilities.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ledger import FORMULA, operations, operations_of_trl, shapes_of
from overlay import draw
from sides import HERE, Job, Side, fresh, lay_out, plan, run_pegbox, run_trl, trl_python
from tasks import DATA, TASKS, load

from pegbox.catalog.models import Catalog
from pegbox.data.template import load_template
from pegbox.settings import Settings

MODEL = "smollm2-135m-instruct"
WARM_UP = 1  # steps
_FAR = 0.05  # nats between the first losses of two settings that compute the same


@dataclass(frozen=True)
class Setting:
    """How TRL is run."""

    dtype: str = "fp32"
    padding_free: bool = False
    micro: int = 0  # rows of a forward; 0: the whole step's

    def __str__(self) -> str:
        rows = f"{self.micro} rows a forward" if self.micro else "a step in one forward"
        return f"{self.dtype}, {'padding-free' if self.padding_free else 'padded'}, {rows}"


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
        ours, theirs = [], []
        for i in range(asked.runs):
            ours.append(run_pegbox(fresh(job, Path(scratch) / f"run-{i}")))
            theirs.append(run_trl(python, job, **asdict(setting)))
            print(
                f"run {i + 1}: pegbox {_cell(ours[-1], rows)}   TRL {_cell(theirs[-1], rows)}   "
                f"x {theirs[-1].seconds(WARM_UP) / ours[-1].seconds(WARM_UP):.2f}",
                flush=True,
            )
        dtype = _dtype_of_ours(Path(scratch) / "run-0", ours[0])
        report(job, work, rows, (ours, dtype), (theirs, setting), asked)


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
        same = " and ".join(map(str, side.extra["same_ids"]))  # type: ignore[call-overload]
        ids = f"; token ids by transformers' template: same, of: {same}" if not tried else ""
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
    return min(tried, key=tried.__getitem__)


# --- what is told ----------------------------------------------------------------------------------------------


def report(
    job: Job, work, rows: int, mine: tuple[list[Side], str], other: tuple[list[Side], Setting], asked
) -> None:
    (ours, dtype), (theirs, setting) = mine, other
    shapes = shapes_of(Path(job.recipe.base_folder))
    rank = job.recipe.lora_rank
    steps = job.steps - WARM_UP
    positions = sum(theirs[0].extra["positions"][WARM_UP:])
    done = {
        "pegbox": operations(shapes, rank, computed=work.computed, predicted=work.predicted),
        "trl": operations_of_trl(shapes, rank, positions=positions),
    }
    kinds = {"pegbox": dtype, "trl": "fp32" if setting.dtype == "fp32" else "bf16"}
    size = {"pegbox": work.computed // steps, "trl": positions // steps}
    top = {kind: _ceiling(job, kind, min(2_048, size["pegbox"])) for kind in sorted(set(kinds.values()))}
    figures = {}
    for name, runs, computed in (("pegbox", ours, work.computed), ("trl", theirs, positions)):
        seconds = statistics.median(run.seconds(WARM_UP) for run in runs)
        figures[name] = {
            "examples_per_second": rows / seconds,
            "tokens_per_second_as_if_unshared": work.unshared / seconds,
            "trained_tokens_per_second": work.predicted / seconds,
            "tokens_computed": computed,
            "gflops": done[name] / seconds / 1e9,
            "share_of_ceiling": done[name] / seconds / top[kinds[name]],
            "dtype": kinds[name],
            "peak_mb": max(run.peak_bytes for run in runs) / 2**20,
            "whole_seconds": statistics.median(run.whole_seconds for run in runs),
            "last_loss": runs[0].losses[-1],
        }
    figures["trl"]["precompute_seconds"] = statistics.median(run.extra["precompute_seconds"] for run in theirs)
    figures["trl"]["setting"] = str(setting)
    ratios = [b.seconds(WARM_UP) / a.seconds(WARM_UP) for a, b in zip(ours, theirs, strict=True)]
    ratio = figures["pegbox"]["examples_per_second"] / figures["trl"]["examples_per_second"]
    worst = max(abs(a - b) for a, b in zip(ours[0].losses, theirs[0].losses, strict=True))
    print(f"\nmedians of {len(ours)} runs; operations: {FORMULA}")
    for name, kind in top.items():
        print(f"plain matrix products at the model's shapes, {name}: {kind / 1e9:.0f} GFLOP/s")
    for key in figures["pegbox"]:
        print(f"{key.replace('_', ' '):34}{_said(figures['pegbox'][key]):>14} {_said(figures['trl'][key]):>14}")
    if job.recipe.method == "dpo":
        print(f"TRL's reference log-probabilities, before its steps: {figures['trl']['precompute_seconds']:.1f} s")
    note = "" if kinds == {"pegbox": "fp32", "trl": "fp32"} else " (not both in fp32: bf16 rounds to 3 digits)"
    print(f"largest difference of a step's loss: {worst:.1e} nats{note}")
    for sentence in losing(figures):
        print(f"where we lose: {sentence}")
    picture = asked.out / f"{asked.task}-losses.png" if asked.out else None
    if picture:
        draw(picture, f"{asked.task}: step losses", {"pegbox": ours[0].losses, "TRL": theirs[0].losses})
        print(f"losses overlaid: {picture}")
    print(f"ratio: {ratio:.2f}")
    result = {
        "task": asked.task, "ratio": ratio, "ratios": ratios, **figures, "largest_loss_difference": worst,
        "rows_timed": rows, "batch": asked.batch, "runs": len(ours), "ceiling_gflops": {k: v / 1e9 for k, v in top.items()},
        "unshared_tokens": work.unshared, "trained_tokens": work.predicted, "model": job.recipe.base,
        "losses": {"pegbox": ours[0].losses, "trl": theirs[0].losses}, "versions": theirs[0].extra["versions"],
        "cores": asked.threads, "machine": platform.processor() or platform.machine(),
    }  # fmt: skip
    print(json.dumps(_rounded(result)))


def losing(figures: dict[str, dict[str, object]]) -> list[str]:
    """Every figure in which TRL does better, in words."""
    ours, theirs = figures["pegbox"], figures["trl"]
    found = []
    for key, words in (("examples_per_second", "examples a second"), ("share_of_ceiling", "share of the machine's matrix product")):
        if ours[key] < theirs[key]:  # type: ignore[operator]
            found.append(f"{words}: {_said(ours[key])}, TRL {_said(theirs[key])}")
    for key, words in (("peak_mb", "peak memory in MB"), ("whole_seconds", "seconds from the weights to the end")):
        if ours[key] > theirs[key]:  # type: ignore[operator]
            found.append(f"{words}: {_said(ours[key])}, TRL {_said(theirs[key])}")
    return found or ["in none of these figures"]


def _dtype_of_ours(folder: Path, side: Side) -> str:
    """What "auto" became, where the trainer says so; fp32 otherwise."""
    for values in (side.extra.get("result", {}), json.loads((folder / "recipe.json").read_text("utf-8"))):
        if str(values.get("dtype", "auto")) in ("bf16", "bfloat16"):  # type: ignore[attr-defined]
            return "bf16"
    return "fp32"


def _ceiling(job: Job, dtype: str, tokens: int) -> float:
    command = [sys.executable, str(HERE / "ledger.py"), job.recipe.base_folder, dtype, str(tokens), str(job.recipe.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1e9


def _cell(side: Side, rows: int) -> str:
    return f"{rows / side.seconds(WARM_UP):.3f} examples/s, {side.peak_bytes / 2**20:,.0f} MB"


def _said(value: object) -> str:
    return f"{value:,.3f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="banking77")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="rows of an optimizer step")
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--model", default=MODEL, help="name in the catalogue, or a folder")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--dtype", default="auto", help="of ours")
    parser.add_argument("--trl-python", type=Path, help="an interpreter that has TRL")
    parser.add_argument("--trl-setting", type=_setting, help='skip the trials: "fp32", "bf16,padding_free", "fp32,micro=4"')
    parser.add_argument("--probe-steps", type=int, default=2, help="steps of a trial, the first not timed")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, help="folder for the picture of the losses")
    return parser.parse_args()


def _setting(text: str) -> Setting:
    dtype, *more = text.split(",")
    micro = next((int(word.removeprefix("micro=")) for word in more if word.startswith("micro=")), 0)
    if dtype not in ("fp32", "bf16", "autocast") or any(w != "padding_free" and not w.startswith("micro=") for w in more):
        raise argparse.ArgumentTypeError(f"not a setting: {text}")
    return Setting(dtype, "padding_free" in more, micro)


if __name__ == "__main__":
    main()
