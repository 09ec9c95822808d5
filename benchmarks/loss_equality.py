"""Step losses of pegbox and of TRL's SFTTrainer on SmolLM2: same rows, order, seed and schedule, fp32.

    .venv/bin/python -m pip install trl==1.16.0 -c constraints.txt
    .venv/bin/python benchmarks/loss_equality.py

Prints both curves and the largest difference over 30 steps.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from trl import SFTConfig, SFTTrainer

from pegbox.catalog.models import Catalog
from pegbox.settings import Settings
from pegbox.train.loop import read_examples, train
from pegbox.train.model import attach_adapter, load_base, trainable
from pegbox.train.optim import learning_rate, make_optimizer
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import examples_of

STEPS, BATCH = 30, 4
TICKETS = Path(__file__).parent.parent / "examples" / "tickets" / "train.jsonl"


class InOrder(SFTTrainer):
    """TRL's trainer, reading the data set from front to back, and keeping each step's exact loss."""

    losses: list[float]

    def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, *args: object, **kwargs: object) -> object:
        out = super().compute_loss(*args, **kwargs)
        loss = out[0] if isinstance(out, tuple) else out
        self.losses.append(loss.item())
        return out


def main() -> None:
    found = Catalog(Settings().models).find("smollm2-135m-instruct")
    if found is None:
        sys.exit("run `make setup` first")
    with tempfile.TemporaryDirectory() as scratch:
        run = RunDir(Path(scratch))
        run.create()
        rows = TICKETS.read_text("utf-8").splitlines()[: STEPS * BATCH]
        run.train_data.write_text("\n".join(rows) + "\n", "utf-8")
        recipe = Recipe(
            job_id="benchmark", base=found.base.name, base_folder=found.base.folder, base_fingerprint="", seed=0,
            n_epochs=1, batch_size=BATCH, learning_rate=5e-4, learning_rate_multiplier=1.0, warmup_steps=3,
            max_tokens=4096, threads=Settings().cpu_threads,
        )  # fmt: skip
        recipe.save(run.recipe_path)
        print("pegbox …", flush=True)
        train(run)
        ours = [m.train_loss for m in run.curve()]
        print("TRL …", flush=True)
        theirs = trl_losses(run, replace(recipe), scratch)
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        print(f"{step:3}  {a:.6f}  {b:.6f}  {abs(a - b):.1e}")
    worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    print(
        "RESULT "
        + json.dumps({"steps": STEPS, "batch": BATCH, "largest_difference": worst, "first": ours[0], "last": ours[-1]})
    )


def trl_losses(run: RunDir, recipe: Recipe, scratch: str) -> list[float]:
    examples = read_examples(run, recipe, valid=False)
    order = [i for step in range(1, STEPS + 1) for i in examples_of(step, len(examples), BATCH, recipe.seed)]
    dataset = Dataset.from_list(
        [{"input_ids": examples[i].tokens, "completion_mask": [int(t) for t in examples[i].trained]} for i in order]
    )
    model = attach_adapter(load_base(recipe.base_folder), recipe)
    optimizer = make_optimizer(trainable(model), recipe)
    schedule = LambdaLR(optimizer, lambda done: learning_rate(done + 1, STEPS, recipe) / recipe.learning_rate)
    arguments = SFTConfig(
        output_dir=scratch, per_device_train_batch_size=BATCH, num_train_epochs=1, max_grad_norm=1.0, seed=recipe.seed,
        bf16=False, gradient_checkpointing=False, max_length=None, report_to="none", save_strategy="no",
        completion_only_loss=True, use_cpu=True, disable_tqdm=False, logging_steps=1,
    )  # fmt: skip
    from transformers import AutoTokenizer

    trainer = InOrder(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(recipe.base_folder),
        optimizers=(optimizer, schedule),
    )
    trainer.losses = []
    trainer.train()
    return trainer.losses


if __name__ == "__main__":
    main()
