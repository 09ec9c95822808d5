"""The whole story in one go, as `make demo` tells it: a server, a tuned model, and what the tuning was good for.

Everything goes through the stock `openai` client, as it would in your own script. The task: read a customer's
message to an instrument shop and say, in one word, which team should answer it. The base model has no idea;
200 examples later it does. Nothing leaves this machine.

    .venv/bin/python examples/demo.py

Everything that is made lies in ./demo-output afterwards: the server's data, its log, the curves and all answers.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import APIError, OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console

from pegbox.cli import compare, curves
from pegbox.cli.metrics import Point, curve, point
from pegbox.cli.progress import TrainingBar, counting
from pegbox.errors import CommandFailed
from pegbox.testing import ServerProcess

EXAMPLES = Path(__file__).resolve().parent / "tickets"
OUTPUT = Path("demo-output")
LOG = OUTPUT / "server.log"
PICTURE = OUTPUT / "curves.png"
REPORT = OUTPUT / "compare.json"
KEY = "sk-demo-key-for-this-machine-only"
ENDED = ("succeeded", "failed", "cancelled")

console = Console(highlight=False)


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)  # each run starts afresh
    OUTPUT.mkdir()

    with server() as base_url:
        client = OpenAI(base_url=base_url, api_key=KEY, timeout=600)

        # --- 1. upload the examples ------------------------------------------------------------------------
        with (EXAMPLES / "train.jsonl").open("rb") as rows:
            training_file = client.files.create(file=rows, purpose="fine-tune")
        stage(f"Uploaded {training_file.filename} ({training_file.bytes:,} bytes) as {training_file.id}.")

        # --- 2. create the job: every hyperparameter is chosen by the server -------------------------------
        job = client.fine_tuning.jobs.create(
            model="gpt-4o-mini",  # an alias: old scripts run as they are, on a model that is here
            training_file=training_file.id,
            suffix="tickets",
            seed=7,
        )
        stage(f"Created job {job.id}, which tunes {job.model}.")

        # --- 3. watch it train -----------------------------------------------------------------------------
        stage("Training; this takes a few minutes.")
        training_started = time.monotonic()
        job, points = watch(client, job.id)
        train_seconds = time.monotonic() - training_started
        if job.status != "succeeded" or job.fine_tuned_model is None:
            raise RuntimeError(
                f"the job ended as {job.status}: {job.error.message if job.error else 'no reason given'}"
            )
        base, tuned = job.model, job.fine_tuned_model
        stage(f"Trained {points[-1].step} steps in {train_seconds:.0f} s; the model is called {tuned}.")

        # --- 4. ask both models what neither has ever seen -------------------------------------------------
        test_rows = compare.read_rows(EXAMPLES / "test.jsonl")
        stage(f"Asking base and tuned model about {len(test_rows)} messages that were not in the training file.")

        def ask(model: str, messages: list[compare.Message]) -> str:
            said = client.chat.completions.create(
                model=model,
                messages=messages,
                temperature=0,
                max_tokens=8,
            )
            return said.choices[0].message.content or ""

        with counting("asking", 2 * len(test_rows)) as one_more:
            answers = compare.ask_both(test_rows, base, tuned, ask, one_more)
    stage("Stopped the server.")

    # --- 5. what came of it --------------------------------------------------------------------------------
    score = compare.score(answers)
    compare.save(REPORT, base, tuned, answers, file=str(EXAMPLES / "test.jsonl"), max_tokens=8, job=job.id)
    curves.draw(PICTURE, tuned, points)
    console.print()
    compare.show(answers[:: max(1, len(answers) // 8)])  # a few of them, from all over the file
    console.print()
    console.print(f"Right answers, word for word, of {score.rows}:")
    console.print(f"  base   {score.base_right:3}  ({score.base:.0%})")
    console.print(f"  tuned  {score.tuned_right:3}  ({score.tuned:.0%})")
    console.print()
    for what, path in (("curves", PICTURE), ("answers", REPORT), ("server log", LOG), ("server data", OUTPUT / "data")):
        console.print(f"{what + ':':12} {path}")
    console.print()
    result = {
        "base": round(score.base, 4),
        "tuned": round(score.tuned, 4),
        "rows": score.rows,
        "train_seconds": round(train_seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
        "model": tuned,
        "steps": points[-1].step,
        "final_train_loss": points[-1].train_loss,
        "picture": str(PICTURE),
    }
    print("RESULT " + json.dumps(result), flush=True)


def watch(client: OpenAI, job_id: str) -> tuple[FineTuningJob, list[Point]]:
    """Follow the job's events, newest first as the API gives them, until it has ended."""
    told: set[str] = set()
    with TrainingBar() as bar:
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)  # before the events, so that none is missed at the end
            news = []
            for event in client.fine_tuning.jobs.list_events(job_id, limit=50):  # the client turns the pages
                if event.id in told:
                    break
                news.append(event)
            for event in reversed(news):
                told.add(event.id)
                at = point(event.data) if event.type == "metrics" else None
                if at is not None:
                    bar.at(at)
                else:
                    bar.line(f"    {event.message}")
            bar.status(job.status, job.estimated_finish)
            if job.status in ENDED:
                break
            time.sleep(0.5)
    everything = client.fine_tuning.jobs.list_events(job_id, limit=100)
    return job, curve(event.data for event in everything)


@contextmanager
def server() -> Iterator[str]:
    """`pegbox serve` as a process of its own, with its data in the output folder; gone at the end, whatever happens."""
    stage("Starting the server.")
    with ServerProcess(OUTPUT / "data", KEY) as running:
        stage(f"The server listens on {running.base_url}.")
        yield running.base_url


def stage(text: str) -> None:
    console.print(f"[bold cyan]>[/] {text}", soft_wrap=True)


def explain(error: Exception) -> None:
    """What went wrong, and the end of the server's log, which often says why."""
    console.print(f"\n[bold red]The demo failed:[/] {error}", soft_wrap=True, markup=True)
    if LOG.exists():
        console.print(f"The end of {LOG}:")
        for line in LOG.read_text("utf-8", "replace").splitlines()[-30:]:
            console.print(f"    {line}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except (APIError, OSError, RuntimeError, CommandFailed) as failure:
        explain(failure)
        sys.exit(1)
