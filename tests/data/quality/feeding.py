"""Rows as checks get them, without the pass that reads a file: the tests' own, small and slow."""

import csv
import gzip
import io
import json
import random
import time
from pathlib import Path

import pytest

from pegbox.data.quality.base import Check, Context
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding
from pegbox.data.quality.items import item
from pegbox.data.quality.text import digest, normalise
from pegbox.data.rows import read_rows
from pegbox.data.template import Template

DATA = Path(__file__).parents[4] / "shared" / "data"


def corpus_of(rows: list[dict[str, object]], method: str = "supervised", context: Context | None = None) -> Corpus:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    corpus = Corpus(io.BytesIO(content), method, "training", context or Context())
    for row in read_rows(io.BytesIO(content), method):
        assert row.record is not None, row.problem
        seen = item(row.example, row.line, row.record)
        corpus.read += 1
        corpus.examples.append(row.example)
        corpus.lines.append(row.line)
        corpus.offsets.append(row.offset)
        corpus.tokens.append(0)
        corpus.systems.append(digest(seen.system))
        corpus.prompts.append(digest(normalise(seen.prompt)))
        corpus.answers.append(digest(normalise(seen.answer)))
        corpus.rows.append(digest(normalise(seen.prompt + seen.answer)))
    return corpus


def feed(kind: type[Check], rows: list[dict[str, object]], method: str = "supervised",
         template: Template | None = None) -> dict[str, Finding]:  # fmt: skip
    """What a check finds, by kind. Prints the microseconds a row that its `see` took."""
    context = Context(template=template)
    corpus = corpus_of(rows, method, context)
    items = [corpus.item(i) for i in range(len(corpus))]
    check = kind(context)
    start = time.perf_counter()
    for seen in items:
        check.see(seen)
    middle = time.perf_counter()
    found = list(check.found(corpus))
    end = time.perf_counter()
    print(f"{kind.__name__}: see {(middle - start) / len(items) * 1e6:.1f} us a row, found {end - middle:.3f} s")
    by_kind = {one.kind: one for one in found}
    assert len(by_kind) == len(found), "two findings of one kind"
    for one in found:
        assert one.code in kind.codes or one.code in check.codes
        assert 0 <= one.share <= 1
        assert list(one.lines) == sorted(set(one.lines))
        assert len(one.samples) <= 5
        json.dumps(dict(one.data))
    return by_kind


def chat(user: str, answer: str, system: str | None = None) -> dict[str, object]:
    told = [{"role": "system", "content": system}] if system is not None else []
    return {"messages": [*told, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def talk(*turns: str) -> dict[str, object]:
    """`"u: hello"`, `"a: hi"`, `"s: …"`: a row of turns."""
    names = {"u": "user", "a": "assistant", "s": "system", "d": "developer", "t": "tool"}
    return {"messages": [{"role": names[turn[0]], "content": turn[3:]} for turn in turns]}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, object]:
    return {
        "input": {"messages": [{"role": "user", "content": prompt}]},
        "preferred_output": [{"role": "assistant", "content": chosen}],
        "non_preferred_output": [{"role": "assistant", "content": rejected}],
    }


def _needs(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is absent: shared/data does not lie beside the repository")
    return path


def gsm8k() -> list[tuple[str, str]]:
    lines = _needs(DATA / "gsm8k" / "train.jsonl").read_text("utf-8").splitlines()
    return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


def banking77() -> list[tuple[str, str]]:
    with _needs(DATA / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def hh_pairs() -> list[tuple[list[dict[str, str]], str, str]]:
    """(prompt's messages, chosen, rejected) of the dialogues that differ in their last turn alone."""
    out = []
    with gzip.open(_needs(DATA / "hh-rlhf" / "harmless-base-test.jsonl.gz"), "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            prompt, _, chosen = row["chosen"].rpartition("\n\nAssistant:")
            other, _, rejected = row["rejected"].rpartition("\n\nAssistant:")
            if prompt == other and chosen.strip() and rejected.strip() and "\n\nHuman:" not in chosen + rejected:
                out.append((_turns(prompt), chosen.strip(), rejected.strip()))
    return out


def _turns(dialogue: str) -> list[dict[str, str]]:
    turns = []
    for piece in dialogue.split("\n\nHuman:")[1:]:
        asked, *answers = piece.split("\n\nAssistant:")
        turns.append({"role": "user", "content": asked.strip()})
        turns.extend({"role": "assistant", "content": answer.strip() or "…"} for answer in answers)
    return turns


def score(found: set[int], true: set[int]) -> tuple[float, float]:
    """Precision and recall; of nothing found, precision is 1."""
    hit = len(found & true)
    return hit / len(found) if found else 1.0, hit / len(true)


def some(n: int, of: int, seed: int = 0) -> list[int]:
    return sorted(random.Random(seed).sample(range(of), n))
