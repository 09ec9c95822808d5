"""The tasks that the trainer is measured on: rows to train on and rows to judge by, in the API's own format.

Drawn with a fixed seed from public data sets (see the README of the data folder), or from this project's examples. No
row of the first part is in the second.
"""

import csv
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pegbox.data.formats import parse_row
from pegbox.data.render import examples
from pegbox.data.template import Template

Row = dict[str, object]
Turn = dict[str, str]
DATA = Path("../shared/data")
EXAMPLES = Path(__file__).parent.parent / "examples"
SEED = 0
LONGEST = 512  # tokens of one side of a pair
_SPEAKERS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}


@dataclass(frozen=True)
class Task:
    """Rows of one method."""

    name: str
    method: str  # "supervised" or "dpo"
    train: tuple[Row, ...]
    held_out: tuple[Row, ...]
    exact: bool = False  # an answer is right or wrong as a whole, so there is an accuracy besides the loss

    def write(self, train: Path, held_out: Path | None = None) -> None:
        train.write_text(_lines(self.train), "utf-8")
        if held_out:
            held_out.write_text(_lines(self.held_out), "utf-8")


def load(
    name: str, template: Template, *, train: int, held_out: int, data: Path = DATA, longest: int | None = None
) -> Task:
    """That many rows of each kind, with no text of more than `longest` tokens. Raises ValueError where the data set has
    fewer, OSError where it is not there."""
    read, method, exact = TASKS[name]
    learn, judge = read(data, template)
    one_part = judge is learn
    if longest:
        learn, judge = ([row for row in part if _longest(row, method, template) <= longest] for part in (learn, judge))
    if one_part:
        learn, judge = learn[held_out:], learn[:held_out]
    if len(learn) < train or len(judge) < held_out:
        raise ValueError(f"{name} has {len(learn)} + {len(judge)} such rows, fewer than {train} + {held_out}")
    return Task(name, method, tuple(learn[:train]), tuple(judge[:held_out]), exact)


def _longest(row: Row, method: str, template: Template) -> int:
    return max(len(one.tokens) for one in examples(parse_row(row, method), template))


Read = Callable[[Path, Template], tuple[list[Row], list[Row]]]


def _banking77(intents: int) -> Read:
    """So many intents, all named in the system prompt: 14 of them make about 120 tokens that every row shares."""

    def read(data: Path, template: Template) -> tuple[list[Row], list[Row]]:
        del template
        folder = data / "banking77"
        names = sorted(json.loads((folder / "categories.json").read_text("utf-8")))[:intents]
        system = f"Classify the customer's message. Answer with exactly one of: {', '.join(names)}."
        parts = []
        for part in ("train.csv", "test.csv"):
            with (folder / part).open(encoding="utf-8", newline="") as file:
                found = [(row["text"], row["category"]) for row in csv.DictReader(file) if row["category"] in names]
            parts.append([_chat(system, text, label) for text, label in _shuffled(found)])
        return parts[0], parts[1]

    return read


def _gsm8k(data: Path, template: Template) -> tuple[list[Row], list[Row]]:
    """Sums in words with worked answers; the final number stands behind ####. Nothing is shared but the template's
    own system message."""
    del template
    parts = []
    for part in ("train.jsonl", "test.jsonl"):
        lines = (data / "gsm8k" / part).read_text("utf-8").splitlines()
        found = [(row["question"], row["answer"]) for row in map(json.loads, lines)]
        parts.append([_chat(None, question, answer) for question, answer in _shuffled(found)])
    return parts[0], parts[1]


def _hh(data: Path, template: Template) -> tuple[list[Row], list[Row]]:
    """Pairs of answers to one dialogue, neither side longer than LONGEST tokens."""
    rows = []
    with gzip.open(data / "hh-rlhf" / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as file:
        for pair in _shuffled([json.loads(line) for line in file]):
            row = preference(pair["chosen"], pair["rejected"])
            if row and _longest(row, "dpo", template) <= LONGEST:
                rows.append(row)
    return rows, rows


def preference(chosen: str, rejected: str) -> Row | None:
    """A row of two dialogues that differ in nothing but the last answer; None of others, or of an empty answer."""
    liked, other = turns(chosen), turns(rejected)
    if not liked or liked[:-1] != other[:-1] or len(liked) < 2 or liked[-1] == other[-1]:
        return None
    if {liked[-1]["role"], other[-1]["role"]} != {"assistant"} or not (liked[-1]["content"] and other[-1]["content"]):
        return None
    return {
        "input": {"messages": liked[:-1]},
        "preferred_output": [liked[-1]],
        "non_preferred_output": [other[-1]],
    }


def turns(dialogue: str) -> list[Turn]:
    """What was said, turn by turn; consecutive words of one speaker are one turn."""
    for mark, role in _SPEAKERS.items():
        dialogue = dialogue.replace(mark, f"\0{role}\0")
    pieces = dialogue.split("\0")[1:]
    found: list[Turn] = []
    for role, text in zip(pieces[::2], pieces[1::2], strict=True):
        if found and found[-1]["role"] == role:
            found[-1]["content"] += "\n\n" + text.strip()
        else:
            found.append({"role": role, "content": text.strip()})
    return found


def _tickets(data: Path, template: Template) -> tuple[list[Row], list[Row]]:
    del data, template
    parts = [(EXAMPLES / "tickets" / part).read_text("utf-8").splitlines() for part in ("train.jsonl", "test.jsonl")]
    learn, judge = ([json.loads(line) for line in part] for part in parts)
    return _shuffled(learn), judge


def _style(data: Path, template: Template) -> tuple[list[Row], list[Row]]:
    """Marv, the sarcastic chatbot: a manner of speaking, which is judged by its loss."""
    del data, template
    rows = _shuffled([json.loads(line) for line in (EXAMPLES / "marv/train_en.jsonl").read_text("utf-8").splitlines()])
    return rows, rows


TASKS: dict[str, tuple[Read, str, bool]] = {
    "banking77": (_banking77(14), "supervised", True),
    "banking77-10": (_banking77(10), "supervised", True),
    "banking77-77": (_banking77(77), "supervised", True),
    "gsm8k": (_gsm8k, "supervised", False),
    "hh": (_hh, "dpo", False),
    "tickets": (_tickets, "supervised", True),
    "style": (_style, "supervised", False),
}


def _chat(system: str | None, user: str, answer: str) -> Row:
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def _shuffled(values: list[Any]) -> list[Any]:
    return random.Random(SEED).sample(values, len(values))


def _lines(rows: tuple[Row, ...]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
