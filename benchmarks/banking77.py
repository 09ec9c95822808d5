"""banking77, ten intents: how well and how fast a job with everything on "auto" does.

    .venv/bin/python benchmarks/banking77.py ../shared/data/banking77

The first ten intents in alphabetical order stand in the system prompt. 200 training rows and 100 test rows are drawn
with a fixed seed from the data set's own two files. Score: exact match at temperature 0.
"""

import csv
import json
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

from openai import OpenAI
from rich.progress import track

from pegbox.testing import ServerProcess

INTENTS, TRAIN_ROWS, TEST_ROWS, SEED = 10, 200, 100, 0


def main(folder: Path) -> None:
    intents = sorted(json.loads((folder / "categories.json").read_text("utf-8")))[:INTENTS]
    system = f"Classify the customer's message. Answer with exactly one of: {', '.join(intents)}."
    train, test = (draw(folder / name, intents, n) for name, n in (("train.csv", TRAIN_ROWS), ("test.csv", TEST_ROWS)))
    key = "sk-benchmark"
    with tempfile.TemporaryDirectory() as scratch, ServerProcess(Path(scratch) / "data", key) as server:
        client = OpenAI(base_url=server.base_url, api_key=key, timeout=600)
        content = "".join(json.dumps({"messages": [*ask(system, text), answer(label)]}) + "\n" for text, label in train)
        file = client.files.create(file=("train.jsonl", content.encode()), purpose="fine-tune")
        started = time.monotonic()
        job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file.id, seed=SEED)
        while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed"):
            newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
            print(f"\r{time.monotonic() - started:5.0f} s  {newest.message[:100]:100}", end="", flush=True)
            time.sleep(1)
        seconds = time.monotonic() - started
        print()
        if job.fine_tuned_model is None:
            sys.exit(f"the job failed: {job.error}")
        scores = {
            name: sum(
                said(client, model, ask(system, text)) == label
                for text, label in track(test, f"asking the {name} model")
            )
            / len(test)
            for name, model in (("base", job.model), ("tuned", job.fine_tuned_model))
        }
    result = {
        **scores, "train_rows": len(train), "test_rows": len(test), "job_seconds": round(seconds, 1),
        "trained_tokens": job.trained_tokens, "hyperparameters": job.hyperparameters.model_dump(),
        "cpu": platform.processor() or platform.machine(),
    }  # fmt: skip
    print("RESULT " + json.dumps(result))


def draw(path: Path, intents: list[str], n: int) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file) if row["category"] in intents]
    return random.Random(SEED).sample(rows, n)


def ask(system: str, text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def answer(label: str) -> dict[str, str]:
    return {"role": "assistant", "content": label}


def said(client: OpenAI, model: str, messages: list[dict[str, str]]) -> str:
    out = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=24)  # type: ignore[arg-type]
    return (out.choices[0].message.content or "").strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
