"""How fast answers come: one after another, and eight at a time; with and without what former prompts left in memory.

    .venv/bin/python benchmarks/answers.py [--answers 24] [--tokens 24] [--together 8] [--data ../shared/data]

The engine in this process, on messages of banking77 under one system prompt that names the intents. Temperature 0 and
no stop token, so that every answer has the same number of tokens. The three ways take turns; answers a second of each,
medians of three rounds, and whether they wrote the same.
"""

import argparse
import json
import operator
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tasks import DATA, load
from train_vs_trl import MODEL, base_folder

from pegbox.data.template import load_template
from pegbox.engines.base import Delta, Generation, Sampling
from pegbox.engines.front import chat_request
from pegbox.engines.torch import TorchEngine

ROUNDS = 3


def main() -> None:
    asked = _arguments()
    base = base_folder(MODEL)
    template = load_template(base)
    task = load("banking77", template, train=asked.answers, held_out=0, data=asked.data)
    prompts = [chat_request(row["messages"][:-1], None, None, template)[1] for row in task.train]
    wanted = [
        Generation(prompt=p, max_tokens=asked.tokens, stop_ids=frozenset(), sampling=Sampling(temperature=0))
        for p in prompts
    ]
    engine = TorchEngine(base, threads=asked.threads, loaded_adapters=1)
    ways = {
        "alone": lambda: one_by_one(engine, wanted, forgetful=True),
        "known": lambda: one_by_one(engine, wanted),
        "together": lambda: at_a_time(engine, wanted, asked.together),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    written = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            engine.forget_prompts()
            began = time.perf_counter()
            written[name] = way()
            rates[name].append(len(wanted) / (time.perf_counter() - began))
            print(f"{name:9} {rates[name][-1]:.2f} answers/s", flush=True)
    middle = {name: round(statistics.median(each), 2) for name, each in rates.items()}
    same = {name: sum(map(operator.eq, written["alone"], written[name])) for name in ways}
    print("RESULT", json.dumps({
        "answers": len(wanted), "tokens": asked.tokens, "prompt_tokens": statistics.mean(map(len, prompts)),
        "answers_per_second": middle, "same_as_alone": same,
        "ratio": round(middle["together"] / middle["alone"], 2),
    }))  # fmt: skip


def one_by_one(engine: TorchEngine, wanted: Sequence[Generation], *, forgetful: bool = False) -> list[list[int]]:
    """The tokens of each answer."""
    made = []
    for one in wanted:
        if forgetful:
            engine.forget_prompts()
        made.append([delta.token for delta in engine.stream(one) if delta.token is not None])
    return made


def at_a_time(engine: TorchEngine, wanted: Sequence[Generation], most: int) -> list[list[int]]:
    """The same, with so many in the making."""
    made: list[list[int]] = [[] for _ in wanted]
    going = engine.together()
    waiting = deque(enumerate(wanted))
    running = 0
    while waiting or going:
        for _ in range(min(most - running, len(waiting))):
            i, one = waiting.popleft()
            going.add(str(i), one)
            running += 1
        for key, told in going.step():
            assert isinstance(told, Delta), told
            if told.token is not None:
                made[int(key)].append(told.token)
            running -= told.finish is not None
    return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=24, help="of each answer")
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    return parser.parse_args()


if __name__ == "__main__":
    main()
