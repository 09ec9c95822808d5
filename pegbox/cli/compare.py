"""`pegbox compare`: what did tuning change? Both models answer the same rows, and the curves are drawn.

The functions between rows and report know no server: `Ask` is whatever asks a model.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import curves, progress, screen
from pegbox.cli.client import Api, path
from pegbox.cli.local import connect, existing_file
from pegbox.cli.metrics import curve
from pegbox.cli.screen import Cell
from pegbox.cli.watch import all_events
from pegbox.data.strict_json import JSONError, loads
from pegbox.errors import CommandFailed
from pegbox.wire.base import Page
from pegbox.wire.chat import Chat
from pegbox.wire.fine_tuning import Checkpoint, Job

Message = dict[str, object]
Ask = Callable[[str, list[Message]], str]  # (model, messages) → its answer
_SHOWN_ROWS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and the answer that is right, where the row has one."""

    messages: list[Message]
    expected: str | None

    @property
    def question(self) -> str:
        """What was said last before the answer."""
        return str(self.messages[-1].get("content", ""))


@dataclass(frozen=True, slots=True)
class Answered:
    """A row and what both models made of it."""

    row: Row
    base: str
    tuned: str

    def right(self, answer: str) -> bool:
        return self.row.expected is not None and answer.strip() == self.row.expected.strip()


@dataclass(frozen=True, slots=True)
class Score:
    """Exact matches among the rows that have an answer; white space around an answer does not count."""

    rows: int
    base_right: int
    tuned_right: int

    @property
    def base(self) -> float:
        return self.base_right / self.rows if self.rows else 0.0

    @property
    def tuned(self) -> float:
        return self.tuned_right / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Origin:
    """The job that a tuned model comes from, and the step if the model is one of the job's checkpoints."""

    job: Job
    step: int | None


# --- rows, answers, score ------------------------------------------------------------------------------------


def read_rows(file: Path, limit: int | None = None) -> list[Row]:
    """The first rows of a file of chat rows. Raises CommandFailed naming the line that is none."""
    rows: list[Row] = []
    with existing_file(file).open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip() and (limit is None or len(rows) < limit):
                rows.append(_row(line, f"{file}, line {number}"))
    if not rows:
        raise CommandFailed(f"{file} holds no rows; write one chat row, {{'messages': [...]}}, a line.")
    return rows


def ask_both(rows: Sequence[Row], base: str, tuned: str, ask: Ask, one_more: Callable[[], None]) -> list[Answered]:
    """All rows to the one model, then all to the other: a server that holds one adapter switches once."""
    said: dict[str, list[str]] = {base: [], tuned: []}
    for model, answers in said.items():
        for row in rows:
            answers.append(ask(model, row.messages))
            one_more()
    return [Answered(*all_three) for all_three in zip(rows, said[base], said[tuned], strict=True)]


def score(answers: Sequence[Answered]) -> Score:
    known = [a for a in answers if a.row.expected is not None]
    return Score(len(known), sum(a.right(a.base) for a in known), sum(a.right(a.tuned) for a in known))


def show(answers: Sequence[Answered]) -> None:
    """Side by side; right answers are green, wrong ones red."""
    rows = [(_short(a.row.question), a.row.expected or "-", _judged(a, a.base), _judged(a, a.tuned)) for a in answers]
    screen.table(("question", "expected", "base", "tuned"), rows)


def save(report: Path, base: str, tuned: str, answers: Sequence[Answered], **more: object) -> None:
    """Everything asked and answered, as JSON."""
    result = score(answers)
    rows = [
        {**asdict(a), "base_right": a.right(a.base), "tuned_right": a.right(a.tuned)}
        if a.row.expected is not None
        else asdict(a)
        for a in answers
    ]
    whole = {
        "base": base,
        "tuned": tuned,
        **more,
        "score": {**asdict(result), "base": result.base, "tuned": result.tuned} if result.rows else None,
        "answers": rows,
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(whole, indent=1) + "\n", "utf-8")


def _row(line: str, where: str) -> Row:
    try:
        value = loads(line)
    except JSONError as error:
        raise CommandFailed(f"{where}: {error}. Each line is one JSON object.") from None
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise CommandFailed(f"{where} is no chat row; write it as {{'messages': [...]}}.")
    # A weight says what to learn from a row, which a question has no use for.
    said: list[Message] = [{k: v for k, v in message.items() if k != "weight"} for message in messages]
    answered = bool(said) and said[-1].get("role") == "assistant"
    prompt = said[:-1] if answered else said
    if not prompt:
        raise CommandFailed(f"{where} asks nothing; a row needs a message before the answer.")
    content = said[-1].get("content") if answered else None
    return Row(prompt, content if isinstance(content, str) else None)


def _short(text: str, most: int = 200) -> str:
    line = screen.one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def _judged(answered: Answered, text: str) -> str | Cell:
    if answered.row.expected is None:
        return _short(text)
    return Cell(_short(text), "green" if answered.right(text) else "red")


# --- the job behind a model ----------------------------------------------------------------------------------


def find_origin(api: Api, tuned: str) -> Origin | None:
    """The job that made a tuned model or a checkpoint; None where the server has none."""
    is_checkpoint = ":ckpt-step-" in tuned
    for job in api.pages("/fine_tuning/jobs", Page[Job]):
        if job.fine_tuned_model == tuned:
            return Origin(job, None)
        if is_checkpoint:
            checkpoints = api.pages(path("fine_tuning", "jobs", job.id, "checkpoints"), Page[Checkpoint])
            for checkpoint in checkpoints:
                if checkpoint.fine_tuned_model_checkpoint == tuned:
                    return Origin(job, checkpoint.step_number)
    return None


# --- the command ---------------------------------------------------------------------------------------------


def compare(
    ctx: typer.Context,
    base: Annotated[str, typer.Argument(help="The model before tuning.")],
    tuned: Annotated[str, typer.Argument(help="The tuned model, or a checkpoint.")],
    file: Annotated[Path, typer.Option(help="Chat rows; the last answer of each is the right one.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only the first rows.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    output: Annotated[Path, typer.Option(help="Folder for the picture and the report.")] = Path("pegbox-compare"),
) -> None:
    """Ask two models the same questions, score their answers, and draw how the tuning went."""
    rows = read_rows(file, limit)
    with connect(ctx) as api:

        def ask(model: str, messages: list[Message]) -> str:
            body: dict[str, object] = {
                "model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens
            }  # fmt: skip
            return api.post("/chat/completions", Chat, body).choices[0].message.content or ""

        with progress.counting("asking both models", 2 * len(rows)) as one_more:
            answers = ask_both(rows, base, tuned, ask, one_more)
        origin = find_origin(api, tuned)
        points = curve(event.data for event in all_events(api, origin.job.id)) if origin else []
    show(answers[:_SHOWN_ROWS])
    if len(answers) > _SHOWN_ROWS:
        screen.note(f"and {len(answers) - _SHOWN_ROWS} more rows, which are in the report")
    _say_score(score(answers))
    report = output / "compare.json"
    save(report, base, tuned, answers, file=str(file), max_tokens=max_tokens, job=origin.job.id if origin else None)
    if origin and points:
        picture = output / "curves.png"
        curves.draw(picture, tuned, points, model_step=origin.step)
        screen.say(f"curves: {picture}")
    else:
        screen.note(f"No curves: the server has no job with metrics that made {tuned}.")
    screen.say(f"report: {report}")


def _say_score(result: Score) -> None:
    if result.rows:
        screen.say(
            f"exact matches of {result.rows} rows: base {result.base_right} ({result.base:.0%}), "
            f"tuned {result.tuned_right} ({result.tuned:.0%})"
        )
    else:
        screen.note("No row has an answer to compare with, so there is no score.")
