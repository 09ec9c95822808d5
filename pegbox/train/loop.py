"""THE loop, read top to bottom."""

import math
import random
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from pegbox.train import checkpoint, evidence, optim
from pegbox.train.batches import Batch, micro_batches
from pegbox.train.checkpoint import State
from pegbox.train.machine import Machine, RefusedError, settle, this_machine
from pegbox.train.methods import METHODS
from pegbox.train.methods import base as scores
from pegbox.train.methods.base import Measured, Method, Score
from pegbox.train.model import attach_adapter, load_base, trainable
from pegbox.train.optim import FlatAdapter, FlatModel, learning_rate, make_optimizer
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import Note, Result, RowLosses, RunDir, StepMetrics
from pegbox.train.sampler import examples_of, steps_per_epoch
from pegbox.train.samples import Sample, read_samples
from pegbox.train.scoring import find_the_way, say
from pegbox.train.whole import as_base, load_whole

_RARELY = 20  # snapshots take at most so small a part of the time


def train(run: RunDir) -> Result:
    """Train as `recipe.json` says, from the newest whole checkpoint or from the start.

    Same recipe, data and machine → the same adapter, byte for byte, however often the run was killed.
    """
    recipe = run.recipe()
    torch.set_num_threads(recipe.threads)
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(recipe.deterministic)
    run.repair()
    machine = this_machine()
    try:
        recipe = settle(recipe, machine)
        recipe.save(run.recipe_path)
        return _train(run, recipe, machine)
    except RefusedError as refused:
        return Result("failed", 0, 0, code=refused.code, message=str(refused))


def _train(run: RunDir, recipe: Recipe, machine: Machine) -> Result:
    # --- data: the same tokens that a chat request will be made of -----------------------------------------
    method = METHODS[recipe.method](recipe)
    samples = {"train": read_samples(run, recipe, valid=False), "valid": read_samples(run, recipe, valid=True)}

    # --- model, and where we stand -------------------------------------------------------------------------
    model, adapter, untuned = _learner(recipe, machine)
    optimizer = make_optimizer(adapter, recipe)
    cut = partial(micro_batches, budget=recipe.micro_batch_tokens, device=machine.device)
    first = samples["train"][: recipe.batch_size]
    why = find_the_way(model, adapter, cut(first), cut(first, together=False))
    if why is not None:
        text = f"This model can't share common beginnings, because {why}; every row is computed by itself"
        run.tell(Note("plain", 0, text))
        cut = partial(cut, together=False)
    samples = method.begin(run, model, samples, cut)  # before the checkpoint: a reference is the model at step 0
    state = checkpoint.resume(run, adapter, optimizer)

    learn, held_out = samples["train"], samples["valid"]
    few = random.Random(recipe.seed).sample(held_out, min(recipe.valid_rows, len(held_out)))
    epoch_steps = steps_per_epoch(len(learn), recipe.batch_size)
    total = epoch_steps * recipe.n_epochs
    tokens = state.trained_tokens
    evaluate = partial(_evaluate, method, model, cut)

    # --- step 0: what the model can do before it has learnt anything ---------------------------------------
    began = time.monotonic()
    if state.served:  # a crash may have fallen between its commit and the line that announces it
        run.tell(_saved(next(m for m in run.curve() if m.step == state.step)))
    if state.step:
        run.tell(Note(f"resumed:{state.step}", state.step, f"Training resumed after step {state.step}"))
    else:
        run.tell(_first_score(evaluate(held_out or learn), recipe, on="validation" if held_out else "training"))

    snapshot = partial(_snapshot, run)
    started = snapshot_at = time.monotonic()
    saving = 0.0  # seconds that the last snapshot took: a whole model's takes many
    step = state.step
    ended = state.served and _learns_no_more(run, recipe, epoch_steps)  # it was killed after an early end
    ahead = range(0) if ended else range(step + 1, total + 1)
    for step in ahead:
        if run.stop_requested():
            if step - 1 > state.step:  # nothing learnt is lost: whoever resumes goes on from here
                snapshot(State(step - 1, tokens, served=False), model, adapter, optimizer)
            return Result("stopped", step - 1, tokens)

        # --- one optimizer step: exactly these samples, however they are cut into micro-batches ------------
        chosen = [learn[i] for i in examples_of(step, len(learn), recipe.batch_size, recipe.seed)]
        weight = method.weight(chosen)  # known before the first backward: the loss is a mean over the whole step
        micro = cut(chosen)
        measured = []
        for batch in micro:
            one = method.measure(say(model, batch), batch, chosen)
            (one.losses.sum() / weight).backward()
            measured.append(replace(one, losses=one.losses.detach()))
        seen = scores.total(measured)
        if not math.isfinite(seen.loss):
            return _diverged(step, tokens)
        rate = learning_rate(step, total, recipe)
        optim.step(optimizer, adapter, rate)
        tokens += sum(sample.n_tokens for sample in chosen)

        # --- measure ---------------------------------------------------------------------------------------
        ends_epoch = step % epoch_steps == 0
        glance = evaluate(few) if few and (step % recipe.valid_every == 0 or ends_epoch) else None
        whole = evaluate(held_out) if held_out and ends_epoch else None
        left = (time.monotonic() - started) / (step - state.step) * (total - step)
        metrics = _metrics(step, total, seen, glance, whole, rate=rate, tokens=tokens, seconds_left=left)
        epoch = (step - 1) // epoch_steps
        run.report_rows(_row_losses(step, epoch, method, chosen, micro, measured))
        run.report(metrics)

        # --- save: at each epoch's end for users, now and then for ourselves -------------------------------
        if ends_epoch:
            checkpoint.save(run, State(step, tokens, served=True), model, adapter, optimizer)
            run.tell(_saved(metrics))
            snapshot_at = time.monotonic()
            if _learns_no_more(run, recipe, epoch_steps):
                text = f"Stopped early: {recipe.patience} epochs brought no better validation loss"
                run.tell(Note(f"early_stop:{step}", step, text))
                break
        elif (waited := time.monotonic() - snapshot_at) > max(recipe.snapshot_seconds, _RARELY * saving):
            snapshot(State(step, tokens, served=False), model, adapter, optimizer)
            saving = time.monotonic() - snapshot_at - waited
            snapshot_at = time.monotonic()

    # --- what there is to show for it, said of the bytes that were saved -----------------------------------
    final = (run.best_step() if recipe.patience else None) or step
    optimizer.state.clear()  # its memory is for looking now
    checkpoint.restore(run, final, adapter)
    run.attest(evidence.gather(run, recipe, model, cut, samples, step=final, untuned=untuned))
    return Result("succeeded", step, tokens, seconds=time.monotonic() - began, resumed=state.step > 0)


def _learner(recipe: Recipe, machine: Machine) -> tuple[torch.nn.Module, FlatAdapter, evidence.Untuned]:
    """The model, what of it learns, and a way to ask what it said untuned."""
    dtype = getattr(torch, recipe.dtype)
    if recipe.weights == "all":
        whole = load_whole(recipe.base_folder, machine.device)
        flat = FlatModel(trainable(whole), dtype)
        return whole, flat, partial(as_base, flat, recipe.base_folder)
    model = attach_adapter(load_base(recipe.base_folder, recipe.dtype, machine.device), recipe)
    return model, FlatAdapter(trainable(model), dtype), model.disable_adapter


def _snapshot(run: RunDir, state: State, *parts: Any) -> None:
    """A checkpoint for ourselves. Where the disk has no room, the run goes on without and says so."""
    try:
        checkpoint.save(run, state, *parts)
    except RefusedError as refused:
        run.tell(Note("no_snapshot", state.step, f"Step {state.step} could not be saved to go on from: {refused}"))


@torch.inference_mode()
def _evaluate(method: Method, model: torch.nn.Module, cut: partial[list[Batch]], samples: list[Sample]) -> Score:
    """The score of a model as it is."""
    return scores.total([method.measure(say(model, batch), batch, samples) for batch in cut(samples)])


def _learns_no_more(run: RunDir, recipe: Recipe, epoch_steps: int) -> bool:
    """Whether the last `patience` epochs were no better than the best one before them. Read from the run's own
    metrics, so a resumed run decides alike."""
    if recipe.patience is None:
        return False
    ends = [loss for _, loss in _epoch_losses(run, epoch_steps)]
    return len(ends) > recipe.patience and min(ends[-recipe.patience :]) >= min(ends[: -recipe.patience])


def _epoch_losses(run: RunDir, epoch_steps: int) -> list[tuple[int, float]]:
    ends = [m for m in run.curve() if m.step % epoch_steps == 0]
    return [(m.step, m.full_valid_loss) for m in ends if m.full_valid_loss is not None]


def _row_losses(
    step: int, epoch: int, method: Method, chosen: list[Sample], micro: list[Batch], measured: list[Measured]
) -> RowLosses:
    """What each of the step's samples cost, in the step's order."""
    costs = {
        i: method.row_loss(cost, chosen[i])
        for batch, one in zip(micro, measured, strict=True)
        for i, cost in zip(batch.samples, one.losses.tolist(), strict=True)
    }
    return RowLosses(step, epoch, [chosen[i].row for i in sorted(costs)], [costs[i] for i in sorted(costs)])


# --- in words ------------------------------------------------------------------------------------------------


def _metrics(
    step: int, total: int, seen: Score, glance: Score | None, whole: Score | None, **others: float
) -> StepMetrics:
    figures: dict[str, float | None] = {}
    for prefix, score in (("train", seen), ("valid", glance), ("full_valid", whole)):
        if score is not None:
            figures[f"{prefix}_loss"] = score.mean_loss
            figures[f"{prefix}_mean_token_accuracy"] = score.accuracy
            figures[f"{prefix}_reward_margin"] = score.margin
            figures[f"{prefix}_reward_accuracy"] = score.reward_accuracy
    if seen.pairs:
        figures["train_chosen_reward"] = seen.chosen / seen.pairs
        figures["train_rejected_reward"] = seen.rejected / seen.pairs
    names = {"tokens": "trained_tokens", "rate": "learning_rate"}
    figures |= {names.get(name, name): value for name, value in others.items()}
    return StepMetrics(step=step, total_steps=total, **figures)  # type: ignore[arg-type]


def _saved(metrics: StepMetrics) -> Note:
    """A checkpoint that is ready for users."""
    step = metrics.step
    return Note(f"checkpoint:{step}", step, "", data=_shown(metrics), checkpoint=checkpoint.folder_name(step))


def _shown(metrics: StepMetrics) -> dict[str, object]:
    """What a checkpoint says of itself."""
    beginnings = (
        "step",
        "train_loss",
        "train_mean",
        "train_reward",
        "train_chosen",
        "train_rejected",
        "valid",
        "full_valid",
    )
    return {k: v for k, v in asdict(metrics).items() if k.startswith(beginnings)}


def _first_score(score: Score, recipe: Recipe, *, on: str) -> Note:
    who = "the adapter trained on from" if recipe.adapter_folder else "the base model"
    who = "the model trained on from" if recipe.base_key and not recipe.adapter_folder else who
    which = "valid" if on == "validation" else "train"
    loss, accuracy = score.mean_loss, score.accuracy
    return Note(
        key="step:0",
        step=0,
        message=f"Step 0, {who} before training: full {on} loss={loss:.2f}, token accuracy={accuracy:.2f}",
        data={
            "step": 0,
            f"full_{which}_loss": loss,
            f"full_{which}_mean_token_accuracy": accuracy,
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
