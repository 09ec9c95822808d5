"""Step losses of pegbox and of TRL's trainers on SmolLM2: same token ids, order, first adapter and schedule, fp32.

    .venv/bin/python benchmarks/loss_equality.py --method sft|dpo [--steps 50] [--batch 4] [--trl-python PATH]

sft learns tickets of this project (a system prompt that every row shares), dpo pairs of hh-rlhf; --task takes others.
TRL's DPOTrainer runs twice, with the reference's log-probabilities worked out beforehand and at every step. The
reference is the base: the adapter off. "naive" is a third opinion on pairs, tests/train/oracle_dpo.py: one text at a
time, by transformers and PEFT alone; `--ours naive` compares that with TRL and leaves pegbox out.

Prints the curves and the largest differences; exit status 1 where one is 1e-4 or more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from overlay import draw
from sides import HERE, MAX_TOKENS, lay_out, run_pegbox, run_trl, trl_python
from tasks import DATA, TASKS, load
from train_vs_trl import MODEL, base_folder

from pegbox.data.template import load_template
from pegbox.engines.hosted import child_environment

ALLOWED = 1e-4  # nats
METHODS = {"sft": ("supervised", "tickets"), "dpo": ("dpo", "hh")}
_ORACLE = """
import sys; sys.path.insert(0, sys.argv[1])
import json, torch, oracle_dpo; from pathlib import Path; from pegbox.train.rundir import RunDir
run = RunDir(Path(sys.argv[2])); torch.set_num_threads(run.recipe().threads)
Path(sys.argv[3]).write_text(json.dumps(oracle_dpo.naive_dpo_losses(run, run.recipe())))
"""
_FIRST_ADAPTER = """
import sys, torch; from pathlib import Path
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict; from safetensors.torch import save_file
from transformers import AutoModelForCausalLM; from pegbox.train.recipe import Recipe
recipe = Recipe.load(Path(sys.argv[1])); torch.manual_seed(recipe.seed)
config = LoraConfig(
    task_type="CAUSAL_LM", r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules="all-linear"
)
model = get_peft_model(AutoModelForCausalLM.from_pretrained(recipe.base_folder, dtype=torch.float32), config)
save_file({k: v.contiguous() for k, v in get_peft_model_state_dict(model).items()}, sys.argv[2])
"""


def main() -> int:
    asked = _arguments()
    method, task_name = METHODS[asked.method]
    base = base_folder(asked.model)
    python = trl_python(asked.trl_python)
    rows = asked.steps * asked.batch
    task = load(
        asked.task or task_name, load_template(base), train=rows, held_out=0, data=asked.data, longest=asked.longest
    )
    if task.method != method:
        sys.exit(f"{task.name} is a task for {task.method}")
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        job = lay_out(Path(scratch) / "run", task, base, batch=asked.batch, threads=asked.threads, dtype="float32")
        adapter, naive = Path(scratch) / "first.safetensors", Path(scratch) / "naive.json"
        if asked.ours == "pegbox":
            print("pegbox …", flush=True)
            curves["pegbox"] = run_pegbox(job).losses
        if method == "dpo":
            print("naive …", flush=True)
            _python(_ORACLE, str(HERE.parent / "tests" / "train"), str(job.run.path), str(naive))
            curves["naive"] = json.loads(naive.read_text("utf-8"))
        _python(_FIRST_ADAPTER, str(job.run.recipe_path), str(adapter))
        for name, settings in _settings(method).items():
            print(f"{name} …", flush=True)
            side = run_trl(python, job, adapter=str(adapter), dtype="fp32", **settings)
            curves[name] = side.losses
            same, of = side.extra["same_ids"]  # type: ignore[misc]
            print(f"token ids as transformers' own template gives them: {same} of {of} texts", flush=True)
    return report(asked, curves)


def report(asked: argparse.Namespace, curves: dict[str, list[float]]) -> int:
    first, *others = curves
    print("step  " + "".join(f"{name:>16}" for name in curves))
    for step, losses in enumerate(zip(*curves.values(), strict=True), 1):
        print(f"{step:4}  " + "".join(f"{loss:16.6f}" for loss in losses))
    differences = {name: largest_difference(curves[first], curves[name]) for name in others}
    for name, worst in differences.items():
        print(f"{first} and {name}: largest difference {worst:.1e}")
    if asked.out:
        draw(asked.out / f"equality-{asked.method}.png", f"{asked.method}: step losses", curves)
    result = {
        "method": asked.method, "steps": len(curves[first]), "batch": asked.batch, "differences": differences,
        "largest_difference": max(differences.values()), "first": curves[first][0], "last": curves[first][-1],
    }  # fmt: skip
    print(json.dumps(result))
    return int(max(differences.values()) >= ALLOWED)


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _settings(method: str) -> dict[str, dict[str, object]]:
    if method == "supervised":
        return {"TRL": {}}
    return {"TRL, before": {"precompute": True}, "TRL, each step": {"precompute": False}}


def _python(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, env=child_environment(),
                   stderr=subprocess.DEVNULL)  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=sorted(METHODS), default="sft")
    parser.add_argument("--task", choices=sorted(TASKS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--longest", type=int, default=MAX_TOKENS, help="tokens; rows with longer texts are left out")
    parser.add_argument("--ours", choices=("pegbox", "naive"), default="pegbox")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trl-python", type=Path)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, help="folder for the picture of the losses")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
