"""The run directory: all that trainer and server say to each other.

recipe.json  data/train.jsonl  data/valid.jsonl        written by the server before the start
lines.json                                              the user's row (from 1) of each row of train.jsonl
events.jsonl  metrics.jsonl  rows.jsonl                 appended by the trainer, one object a line, flushed
checkpoints/step-000123/                                committed by rename; whole or not there
control/stop                                            a file is a request, honoured at the next step
evidence.json                                           what a run that succeeded can show for itself
result.json                                             written last, by rename
receipt.json                                            the server's: evidence held against rows and engine
log.txt                                                 what the trainer printed
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pegbox import durable
from pegbox.train.attested import Evidence
from pegbox.train.recipe import Recipe

NO_ROOM, DISK_REFUSED = 75, 74  # exit statuses of a trainer that could not write
JOURNALS = ("events.jsonl", "metrics.jsonl", "rows.jsonl")
MANIFEST = "manifest.json"  # of a checkpoint: name and sha256 of every other file
# What a checkpoint that is a whole model may hold, weights and config first; an adapter's files: adapters.FILES.
WHOLE_FILES = (
    "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
    "chat_template.jinja",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    outcome: str  # "succeeded", "stopped" (by request) or "failed"
    step: int
    trained_tokens: int  # tokens of all examples that went through training, epochs counted
    code: str | None = None  # of a failure
    message: str | None = None
    seconds: float = 0.0  # from the weights being there to the end, in a run of one process
    peak_bytes: int = 0  # of memory it held
    resumed: bool = False  # it went on from an earlier process's work


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One optimizer step. Losses are nats a trained token, accuracies the share of trained tokens whose most
    likely prediction is right. Validation figures are there only at steps that took them."""

    step: int
    total_steps: int
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    train_reward_margin: float | None = None  # of dpo, here and below: means over the step's pairs
    train_reward_accuracy: float | None = None  # share of pairs whose preferred answer has the higher reward
    train_chosen_reward: float | None = None  # beta times the log-ratio to the reference
    train_rejected_reward: float | None = None
    valid_reward_margin: float | None = None
    valid_reward_accuracy: float | None = None
    full_valid_reward_margin: float | None = None
    full_valid_reward_accuracy: float | None = None
    learning_rate: float = 0.0
    trained_tokens: int = 0  # since the run began, epochs counted
    seconds_left: float = 0.0  # estimate at this step


@dataclass(frozen=True, slots=True)
class RowLosses:
    """What each row of one optimizer step cost: the mean loss (nats) of its trained tokens; of its pair, for dpo."""

    step: int
    epoch: int  # from 0
    rows: list[int]  # indices into train.jsonl, from 0
    losses: list[float]


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell the user, or a checkpoint that is ready. `key` names it within the run, so that a run
    which repeats some steps after a crash says nothing twice."""

    key: str
    step: int
    message: str
    data: Mapping[str, object] | None = None
    checkpoint: str | None = None  # folder name below checkpoints/


class RunDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    def create(self) -> None:
        for name in ("data", "checkpoints", "control"):
            durable.make_folder(self.path / name, mode=0o700)

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.json"

    @property
    def train_data(self) -> Path:
        return self.path / "data" / "train.jsonl"

    @property
    def valid_data(self) -> Path:
        return self.path / "data" / "valid.jsonl"

    @property
    def receipt_path(self) -> Path:
        return self.path / "receipt.json"

    @property
    def lines_path(self) -> Path:
        return self.path / "lines.json"

    def lines(self) -> list[int]:
        """The user's number of each row of train.jsonl, from 1; none where the run was laid out by hand."""
        return json.loads(self.lines_path.read_text("utf-8")) if self.lines_path.exists() else []

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def recipe(self) -> Recipe:
        return Recipe.load(self.recipe_path)

    def tidy(self) -> None:
        """Remove what an ended run needs no more: the user's rows, which live in the file store while their owner
        wants them to (evidence holds some, as tokens), and the checkpoints. Recipe, metrics, events, receipt and log
        stay."""
        for folder in (self.path / "data", self.checkpoints, self.path / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.path / "evidence.json").unlink(missing_ok=True)

    # --- requests ------------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        (self.path / "control" / "stop").touch()

    def stop_requested(self) -> bool:
        return (self.path / "control" / "stop").exists()

    # --- what the trainer says -----------------------------------------------------------------------------

    def repair(self) -> None:
        """Drop what a crash left of lines that were not yet on the disk, so that the next one starts cleanly: a line
        cut short and, after a power cut, blocks of zeros."""
        for name in JOURNALS:
            path = self.path / name
            if path.exists():
                content = path.read_bytes()
                whole = len(_sound(content))
                if whole < len(content):
                    os.truncate(path, whole)

    def report_rows(self, losses: RowLosses) -> None:
        self._append("rows.jsonl", asdict(losses))

    def report(self, metrics: StepMetrics) -> None:
        self._append("metrics.jsonl", asdict(metrics))

    def tell(self, note: Note) -> None:
        self._append("events.jsonl", asdict(note))

    def expect(self, work: float) -> None:
        """Keep how much work the server thinks this run is (see data/estimate.py)."""
        (self.path / "work.json").write_text(json.dumps(work), "utf-8")

    def expected_work(self) -> float:
        path = self.path / "work.json"
        return float(json.loads(path.read_text("utf-8"))) if path.exists() else 0.0

    def attest(self, evidence: Evidence) -> None:
        self._put("evidence.json", asdict(evidence))

    def settle(self) -> None:
        """Bring to the disk what was told so far: before a checkpoint says that all up to its step is done."""
        for name in JOURNALS:
            if (self.path / name).exists():
                durable.sync_file(self.path / name, name.removesuffix(".jsonl"))
        durable.sync_folder(self.path)

    def finish(self, result: Result) -> None:
        self.settle()
        self._put("result.json", asdict(result))

    def _put(self, name: str, value: Mapping[str, object]) -> None:
        """Write a file whole, by rename."""
        durable.put(self.path / name, json.dumps(value).encode(), name.removesuffix(".json"))

    def _append(self, name: str, value: Mapping[str, object]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as out:
            out.write(json.dumps(value, allow_nan=False) + "\n")

    # --- what the server reads -----------------------------------------------------------------------------

    def result(self) -> Result | None:
        path = self.path / "result.json"
        return Result(**json.loads(path.read_text("utf-8"))) if path.exists() else None

    def evidence(self) -> Evidence | None:
        """What the trainer attests; None where it wrote nothing."""
        path = self.path / "evidence.json"
        return Evidence.from_json(json.loads(path.read_text("utf-8"))) if path.exists() else None

    def clear(self) -> None:
        """Before another attempt: an old ending or an old request must not be taken for a new one."""
        for name in ("result.json", "evidence.json", "receipt.json"):
            (self.path / name).unlink(missing_ok=True)
        (self.path / "control" / "stop").unlink(missing_ok=True)

    def metrics(self, offset: int = 0) -> tuple[list[StepMetrics], int]:
        """The whole lines from byte `offset` on, and the offset after them."""
        lines, offset = self._lines("metrics.jsonl", offset)
        return [StepMetrics(**json.loads(line)) for line in lines], offset

    def row_losses(self) -> list[RowLosses]:
        """One entry a step, in order; the last word of a resumed run counts."""
        lines, _ = self._lines("rows.jsonl", 0)
        told = [RowLosses(**json.loads(line)) for line in lines]
        return [losses for _, losses in sorted({one.step: one for one in told}.items())]

    def notes(self, offset: int = 0) -> tuple[list[Note], int]:
        lines, offset = self._lines("events.jsonl", offset)
        return [Note(**json.loads(line)) for line in lines], offset

    def curve(self) -> list[StepMetrics]:
        """One entry a step, in order. A run that was resumed repeats steps; the last word counts."""
        return [metrics for _, metrics in sorted({m.step: m for m in self.metrics()[0]}.items())]

    def best_step(self) -> int | None:
        """The step of the lowest full validation loss, the earliest of equal ones; None where nothing is held out."""
        ends = [(m.full_valid_loss, m.step) for m in self.curve() if m.full_valid_loss is not None]
        return min(ends)[1] if ends else None

    def last_words(self, lines: int = 5) -> str:
        """The end of the trainer's log, for the error of a run that died."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.strip().splitlines()[-lines:])

    def _lines(self, name: str, offset: int) -> tuple[list[bytes], int]:
        path = self.path / name
        if not path.exists():
            return [], offset
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
        sound = _sound(content)
        return list(_nonempty(sound)), offset + len(sound)


def _sound(content: bytes) -> bytes:
    """The whole lines before the first that is none. JSON has no zero byte, and a block that a power cut lost is made
    of them."""
    zero = content.find(b"\0")
    return content[: content.rfind(b"\n", 0, zero if zero >= 0 else None) + 1]


def _nonempty(content: bytes) -> Iterator[bytes]:
    return (line for line in content.split(b"\n") if line)
