"""THE loop, read top to bottom."""

import math
import random
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from pegbox.data.render import Example, examples, truncate
from pegbox.data.rows import read_rows
from pegbox.data.template import load_template
from pegbox.train import checkpoint, evidence, losses, optim
from pegbox.train.batches import micro_batches
from pegbox.train.checkpoint import State
from pegbox.train.lora import use_own_linear
from pegbox.train.losses import NOTHING, Score
from pegbox.train.model import attach_adapter, load_base, trainable
from pegbox.train.optim import FlatAdapter, learning_rate, make_optimizer
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import Note, Result, RunDir, StepMetrics
from pegbox.train.sampler import examples_of, steps_per_epoch


def train(run: RunDir) -> Result:
    """Train as `recipe.json` says, from the newest whole checkpoint or from the start.

    Same recipe, data and machine → the same adapter, byte for byte, however often the run was killed.
    """
    recipe = run.recipe()
    torch.set_num_threads(recipe.threads)
    torch.set_flush_denormal(True)
    run.repair()

    # --- data: the same tokens that a chat request will be made of -----------------------------------------
    learn = read_examples(run, recipe, valid=False)
    held_out = read_examples(run, recipe, valid=True)
    few = random.Random(recipe.seed).sample(held_out, min(recipe.valid_rows, len(held_out)))

    # --- model, and where we stand -------------------------------------------------------------------------
    model = attach_adapter(load_base(recipe.base_folder), recipe)
    use_own_linear(model)
    adapter = FlatAdapter(trainable(model))
    optimizer = make_optimizer(adapter, recipe)
    state = checkpoint.resume(run, adapter, optimizer)
    cut = partial(micro_batches, budget=recipe.micro_batch_tokens)
    first = learn[: recipe.batch_size]
    if not losses.trie_is_exact(model, cut(first), cut(first, together=False)):
        run.tell(Note("plain", 0, "This model can't share common beginnings exactly; every row is computed by itself"))
        cut = partial(cut, together=False)
    full, small = cut(held_out or learn), cut(few)
    epoch_steps = steps_per_epoch(len(learn), recipe.batch_size)
    total = epoch_steps * recipe.n_epochs
    tokens = state.trained_tokens

    began = time.monotonic()

    # --- step 0: what the model can do before it has learnt anything ---------------------------------------
    if state.step == 0:
        run.tell(_first_score(losses.evaluate(model, full), recipe, on="validation" if held_out else "training"))
    else:
        run.tell(Note(f"resumed:{state.step}", state.step, f"Training resumed after step {state.step}"))

    started = snapshot_at = time.monotonic()
    for step in range(state.step + 1, total + 1):
        if run.stop_requested():
            if step - 1 > state.step:  # nothing learnt is lost: whoever resumes goes on from here
                checkpoint.save(run, State(step - 1, tokens, served=False), model, adapter, optimizer)
            return Result("stopped", step - 1, tokens)

        # --- one optimizer step: exactly these examples, however they are cut into micro-batches -----------
        batch = [learn[i] for i in examples_of(step, len(learn), recipe.batch_size, recipe.seed)]
        micro = cut(batch)
        n_trained = sum(len(m.targets) for m in micro)  # known before the first backward: the loss is a mean
        seen = NOTHING  # over the whole step, not a mean of means
        for m in micro:
            nll, correct = losses.supervised(model, m)
            (nll / n_trained).backward()
            seen += Score(nll.item(), int(correct.item()), len(m.targets))
        if not math.isfinite(seen.nll):
            return _diverged(step, tokens)
        rate = learning_rate(step, total, recipe)
        optim.step(optimizer, adapter, rate)
        tokens += sum(len(example.tokens) for example in batch)

        # --- measure ---------------------------------------------------------------------------------------
        ends_epoch = step % epoch_steps == 0
        looks = small and (step % recipe.valid_every == 0 or ends_epoch)
        glance = losses.evaluate(model, small) if looks else None
        whole = losses.evaluate(model, full) if held_out and ends_epoch else None
        metrics = StepMetrics(
            step=step,
            total_steps=total,
            train_loss=seen.loss,
            train_mean_token_accuracy=seen.accuracy,
            valid_loss=glance.loss if glance else None,
            valid_mean_token_accuracy=glance.accuracy if glance else None,
            full_valid_loss=whole.loss if whole else None,
            full_valid_mean_token_accuracy=whole.accuracy if whole else None,
            learning_rate=rate,
            trained_tokens=tokens,
            seconds_left=(time.monotonic() - started) / (step - state.step) * (total - step),
        )
        run.report(metrics)

        # --- save: at each epoch's end for users, now and then for ourselves -------------------------------
        if ends_epoch:
            name = checkpoint.save(run, State(step, tokens, served=True), model, adapter, optimizer)
            data = {
                k: v
                for k, v in asdict(metrics).items()
                if k.startswith(("step", "train_m", "train_l", "valid", "full"))
            }
            run.tell(Note(f"checkpoint:{step}", step, "", data=data, checkpoint=name))
            snapshot_at = time.monotonic()
        elif time.monotonic() - snapshot_at > recipe.snapshot_seconds:
            checkpoint.save(run, State(step, tokens, served=False), model, adapter, optimizer)
            snapshot_at = time.monotonic()

    run.attest(evidence.gather(run, recipe, model, cut, learn, held_out))
    return Result("succeeded", total, tokens, seconds=time.monotonic() - began, resumed=state.step > 0)


def read_examples(run: RunDir, recipe: Recipe, *, valid: bool) -> list[Example]:
    """The rows of the run's data as token examples, cut at the recipe's limit.

    The server has checked these rows; one that fails here means that it did not, so the run stops.
    """
    path = run.valid_data if valid else run.train_data
    if not path.exists():
        return []
    template = load_template(Path(recipe.base_folder))
    out: list[Example] = []
    with path.open("rb") as file:
        for row in read_rows(file):
            if row.record is None:
                raise ValueError(f"{path}: {row.problem}")
            cut = [truncate(example, recipe.max_tokens) for example in examples(row.record, template)]
            out.extend(example for example in cut if example.n_trained)
    return out


def _first_score(score: Score, recipe: Recipe, *, on: str) -> Note:
    who = "the adapter trained on from" if recipe.adapter_folder else "the base model"
    return Note(
        key="step:0",
        step=0,
        message=f"Step 0, {who} before training: full {on} loss={score.loss:.2f}, token accuracy={score.accuracy:.2f}",
        data={
            "step": 0,
            f"full_{'valid' if on == 'validation' else 'train'}_loss": score.loss,
            f"full_{'valid' if on == 'validation' else 'train'}_mean_token_accuracy": score.accuracy,
            "tokens": score.tokens,
        },
    )


def _diverged(step: int, tokens: int) -> Result:
    return Result(
        "failed",
        step,
        tokens,
        code="training_diverged",
        message=f"The training loss was not a finite number at step {step}. "
        "Create the job again with a smaller learning_rate_multiplier (for example half of this one).",
    )
