"""Clean rows for benchmarks/faults.py: public data as chat rows."""

import csv
import json
import random
from pathlib import Path

Row = dict[str, list[dict[str, str]]]

_TUTOR = "Solve the problem step by step. Write the final number behind ####."


def chat(system: str, question: str, answer: str) -> Row:
    said = (("system", system), ("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def gsm8k(folder: Path, n: int) -> list[Row]:
    with (folder / "gsm8k" / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [chat(_TUTOR, row["question"], row["answer"]) for row in random.Random(0).sample(rows, n)]


def banking(folder: Path, n: int) -> list[Row]:
    with (folder / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    intents = sorted({label for _, label in rows})
    system = f"Classify the customer's message. Answer with exactly one of: {', '.join(intents)}."
    return [chat(system, text, label) for text, label in random.Random(0).sample(rows, n)]


def question(row: Row) -> str:
    return row["messages"][1]["content"]


def answer(row: Row) -> str:
    return row["messages"][2]["content"]


def system(row: Row) -> str:
    return row["messages"][0]["content"]


def is_japanese(text: str) -> bool:
    return any("぀" <= c <= "ヿ" for c in text)
