"""`pegbox jobs`: create, watch, pause, resume and cancel fine-tuning jobs."""

import shlex
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from pegbox.catalog.table import DEFAULT_BASE
from pegbox.cli import files, receipt, screen
from pegbox.cli.client import Api, path
from pegbox.cli.local import connect
from pegbox.cli.metrics import point
from pegbox.cli.progress import TrainingBar
from pegbox.cli.watch import ENDED, Look, all_events, watch
from pegbox.errors import CommandFailed
from pegbox.jobs.methods import METHODS
from pegbox.jobs.submit import Weights
from pegbox.queue.states import Status
from pegbox.wire.base import Page
from pegbox.wire.fine_tuning import EARLY_STOP_KEY, WEIGHTS_KEY, Checkpoint, Job, JobEvent

app = typer.Typer(
    name="jobs", help="Fine-tuning jobs.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)
_LEARN = "supervised"
JobId = Annotated[str, typer.Argument(help="ftjob-…")]
Follow = Annotated[bool, typer.Option("--follow", help="Stay until the job has ended.")]
Limit = Annotated[int, typer.Option(min=1, help="How many of the newest to show.")]


@app.command("create")
def create(
    ctx: typer.Context,
    train: Annotated[str, typer.Argument(help="Training rows: a local file, or the id of an uploaded one.")],
    valid: Annotated[str | None, typer.Option(help="Validation rows: a local file or an id.")] = None,
    model: Annotated[str, typer.Option(help="A base model, an alias or a tuned model to go on from.")] = DEFAULT_BASE,
    suffix: Annotated[str | None, typer.Option(help="A word for the tuned model's name.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the rows; chosen for you if left out.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step; chosen for you if left out.")] = None,
    lr_multiplier: Annotated[float | None, typer.Option(help="Times the model's usual learning rate.")] = None,
    method: Annotated[str, typer.Option(help="supervised: answers to learn; dpo: pairs, one answer better.")] = _LEARN,
    beta: Annotated[
        float | None, typer.Option(help="Of dpo: how dearly the model pays for leaving the one it began as; up to 2.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same model.")] = None,
    early_stop: Annotated[
        int | None, typer.Option(min=1, max=10, help="End after this many epochs without a better validation loss.")
    ] = None,
    weights: Annotated[
        Weights, typer.Option(help="adapter: a small addition to the frozen base; all: the base's own weights.")
    ] = "adapter",
    follow: Follow = False,
) -> None:
    """Create a job; local files are uploaded first."""
    if method not in METHODS:
        raise CommandFailed(f"jobs are tuned by {' or '.join(METHODS)}, not by {method}.")
    if beta is not None and method != "dpo":
        raise CommandFailed("--beta belongs to preference tuning; add --method dpo.")
    asked = {"n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": lr_multiplier, "beta": beta}
    hyperparameters = {name: value for name, value in asked.items() if value is not None}
    with connect(ctx) as api:
        body: dict[str, object] = {"model": model, "training_file": _file_id(api, train)}
        if valid is not None:
            body["validation_file"] = _file_id(api, valid)
        if suffix is not None:
            body["suffix"] = suffix
        if seed is not None:
            body["seed"] = seed
        wishes = {EARLY_STOP_KEY: str(early_stop) if early_stop else None, WEIGHTS_KEY: weights}
        metadata = {key: wish for key, wish in wishes.items() if wish not in (None, "adapter")}
        if metadata:
            body["metadata"] = metadata
        if hyperparameters or method != _LEARN:
            body["method"] = {"type": method, method: {"hyperparameters": hyperparameters}}
        job = api.post("/fine_tuning/jobs", Job, body)
        screen.say(job.id)
        if follow:
            _follow(api, job.id)
        else:
            screen.note(f"Watch it with `pegbox jobs events {job.id} --follow`.")


@app.command("list")
def list_jobs(ctx: typer.Context, limit: Limit = 20) -> None:
    """List jobs, newest first."""
    with connect(ctx) as api:
        found = list(islice(api.pages("/fine_tuning/jobs", Page[Job]), limit + 1))
    if not found:
        screen.note("There are no jobs. Create one with `pegbox jobs create ROWS.jsonl`.")
        return
    rows = [
        (job.id, job.status, job.model, job.fine_tuned_model or "-", screen.moment(job.created_at))
        for job in found[:limit]
    ]
    screen.table(("job", "status", "model", "tuned model", "created"), rows)
    if len(found) > limit:
        screen.note(f"There are more; --limit {limit * 2} shows more of them.")


@app.command("get")
def get(ctx: typer.Context, job_id: JobId) -> None:
    """Show what is known of a job."""
    with connect(ctx) as api:
        job = api.get(path("fine_tuning", "jobs", job_id), Job)
    chosen = job.hyperparameters
    running = job.status not in ENDED
    screen.facts(
        (
            ("job", job.id),
            ("status", job.status),
            ("place in the queue", job.queue_position),
            ("error", job.error.message if job.error and job.error.message else None),
            ("model", job.model),
            ("tuned model", job.fine_tuned_model),
            ("training file", job.training_file),
            ("validation file", job.validation_file),
            ("method", job.method.type if job.method.type != _LEARN else None),
            ("epochs", chosen.n_epochs),
            ("batch size", chosen.batch_size),
            ("lr multiplier", chosen.learning_rate_multiplier),
            ("beta", chosen.beta),
            ("seed", job.seed),
            ("trained tokens", f"{job.trained_tokens:,}" if job.trained_tokens is not None else None),
            ("result files", ", ".join(job.result_files)),
            ("created", screen.moment(job.created_at)),
            ("ends about", screen.moment(job.estimated_finish) if job.estimated_finish and running else None),
            ("ended", screen.moment(job.finished_at) if job.finished_at is not None else None),
        )
    )


@app.command("cancel")
def cancel(ctx: typer.Context, job_id: JobId) -> None:
    """Cancel a job."""
    with connect(ctx) as api:
        job = api.post(path("fine_tuning", "jobs", job_id, "cancel"), Job)
    screen.say(f"{job.id} is {job.status}.")


@app.command("pause")
def pause(ctx: typer.Context, job_id: JobId) -> None:
    """Pause a job: it saves where it stands and gives its memory back."""
    with connect(ctx) as api:
        job = api.post(path("fine_tuning", "jobs", job_id, "pause"), Job)
    screen.say(f"{job.id} is {job.status}.")
    if job.status == Status.PAUSING:
        screen.note("It finishes the step in hand, saves and is paused then.")
    screen.note(_how_to_resume(job.id))


@app.command("resume")
def resume(ctx: typer.Context, job_id: JobId) -> None:
    """Go on with a paused job where it stopped."""
    with connect(ctx) as api:
        job = api.post(path("fine_tuning", "jobs", job_id, "resume"), Job)
    screen.say(f"{job.id} is {job.status}.")
    screen.note(f"Watch it with `pegbox jobs events {job.id} --follow`.")


@app.command("events")
def events(ctx: typer.Context, job_id: JobId, follow: Follow = False) -> None:
    """Show what a job has said, oldest first."""
    with connect(ctx) as api:
        if follow:
            _follow(api, job_id)
            return
        for event in all_events(api, job_id):
            screen.say(_line(event))


@app.command("checkpoints")
def checkpoints(ctx: typer.Context, job_id: JobId) -> None:
    """List the models that a job saved on its way; each can be asked like a tuned model."""
    with connect(ctx) as api:
        found = list(api.pages(path("fine_tuning", "jobs", job_id, "checkpoints"), Page[Checkpoint]))
    if not found:
        screen.note("There are no checkpoints yet; one is kept at the end of each epoch.")
        return
    rewarded = any(checkpoint.metrics.train_reward_accuracy is not None for checkpoint in found)
    rows = (
        (
            str(checkpoint.step_number),
            checkpoint.fine_tuned_model_checkpoint,
            _figure(checkpoint.metrics.train_loss),
            _figure(checkpoint.metrics.full_valid_loss),
            _figure(
                checkpoint.metrics.full_valid_reward_accuracy
                if rewarded
                else checkpoint.metrics.full_valid_mean_token_accuracy
            ),
        )
        for checkpoint in found
    )
    accuracy = "validation reward accuracy" if rewarded else "validation accuracy"
    screen.table(("step", "model", "training loss", "validation loss", accuracy), rows)


app.command("receipt")(receipt.show)
app.command("rows")(receipt.rows)


def _file_id(api: Api, given: str) -> str:
    """A local file is uploaded; anything that looks like an id is one."""
    if not Path(given).exists() and given.startswith("file-"):
        return given
    return files.send(api, Path(given)).id


def _how_to_resume(job_id: str) -> str:
    return f"Resume it with `pegbox jobs resume {job_id}`."


# --- following -----------------------------------------------------------------------------------------------


def _follow(api: Api, job_id: str) -> None:
    """Until the job has ended. Raises CommandFailed if it did not succeed."""
    try:
        job = _follow_on_bar(api, job_id) if screen.on_terminal() else _follow_in_lines(api, job_id)
    except KeyboardInterrupt:
        screen.note(f"\nThe job goes on. Watch it with `pegbox jobs events {job_id} --follow`.")
        raise
    if job.status == Status.FAILED:
        why = job.error.message if job.error else "the server does not say why"
        raise CommandFailed(f"{job.id} failed: {why}")
    if job.status != Status.SUCCEEDED or job.fine_tuned_model is None:
        raise CommandFailed(f"{job.id} is {job.status}, so there is no tuned model.")
    screen.say(f"{job.id} has succeeded.")
    screen.say(f"Tuned model: {job.fine_tuned_model}")
    screen.say(f"Talk to it:  pegbox chat {shlex.quote(job.fine_tuned_model)}")


def _follow_in_lines(api: Api, job_id: str) -> Job:
    look: Look | None = None
    for look in watch(api, job_id):
        for event in look.news:
            screen.say(_line(event))
        if look.newly_paused:
            screen.note(_waits(job_id))
    assert look is not None, "watching ends with a look"
    return look.job


def _follow_on_bar(api: Api, job_id: str) -> Job:
    look: Look | None = None
    with TrainingBar() as bar:
        for look in watch(api, job_id):
            for event in look.news:
                at = point(event.data) if event.type == "metrics" else None
                if at is None:
                    bar.line(_line(event))
                else:
                    bar.at(at)
            if look.newly_paused:
                bar.line(_waits(job_id))
            bar.status(look.job.status, look.job.estimated_finish)
    assert look is not None, "watching ends with a look"
    return look.job


def _waits(job_id: str) -> str:
    return f"The job is paused, and this command waits for it. {_how_to_resume(job_id)}"


def _line(event: JobEvent) -> str:
    mark = "" if event.level == "info" else f"{event.level.upper()}: "
    return f"{screen.moment(event.created_at)}  {mark}{event.message}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
