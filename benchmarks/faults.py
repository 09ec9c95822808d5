"""How many faults `pegbox check` finds, and how often it is wrong: known faults put into clean data, a code at a time.

    .venv/bin/python benchmarks/faults.py ../shared/data [--rows 1500] [--faults 40] [--only Q07]

Clean data: gsm8k and banking77 as chat rows (all 77 intents in the system prompt), and Japanese rows put together from
parts. A fault is one row, or a pair of which one was in the file before. It counts as found where the code names one
of its lines. Recall: faults found of all. Precision: of the lines that the code names, those of a fault; lines that the
code names in the clean data too are left out, and shown as "clean": some are true (banking77 has double rows).
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import faults_ja
from fault_kinds import (
    another_intent,
    break_encoding,
    insert_invisible,
    insert_mark,
    insert_secret,
    near,
    no_edit,
    other_language,
    refuse,
    truncated,
    wrong_number,
)
from fault_rows import Row, banking, gsm8k

from pegbox.data.check import check
from pegbox.data.report import Report

Edit = Callable[[Row, random.Random], Row | None]  # None: this row can't have the fault


@dataclass(frozen=True)
class Case:
    """One kind of fault in one set of rows."""

    code: str
    name: str
    data: str  # gsm8k, banking77 or japanese
    edit: Edit
    pair: bool = False  # the row stays, and its edited copy is put in beside it, anywhere
    leak: bool = False  # the edited copy is put into the validation file


CASES = (
    Case("Q06", "copies", "gsm8k", no_edit, pair=True),
    Case("Q06", "copies", "japanese", no_edit, pair=True),
    *(Case("Q07", f"{n} words edited", "gsm8k", near(n), pair=True) for n in (1, 3, 5)),
    *(Case("Q07", f"{n} letters edited", "japanese", near(n), pair=True) for n in (1, 3)),
    Case("Q09", "other intent", "banking77", another_intent(0), pair=True),
    Case("Q09", "other number", "gsm8k", wrong_number(0), pair=True),
    Case("Q09", "other number", "japanese", wrong_number(0), pair=True),
    Case("Q10", "other intent", "banking77", another_intent(1), pair=True),
    Case("Q10", "other number", "gsm8k", wrong_number(2), pair=True),
    Case("Q10", "other number", "japanese", wrong_number(1), pair=True),
    Case("Q11", "refusals", "gsm8k", refuse("en")),
    Case("Q11", "refusals", "japanese", refuse("ja")),
    Case("Q12", "leaked as is", "gsm8k", no_edit, leak=True),
    Case("Q12", "leaked, 3 words edited", "gsm8k", near(3), leak=True),
    Case("Q12", "leaked as is", "banking77", no_edit, leak=True),
    Case("Q12", "leaked as is", "japanese", no_edit, leak=True),
    Case("Q12", "leaked, 2 letters edited", "japanese", near(2), leak=True),
    Case("Q13", "secrets", "gsm8k", insert_secret),
    Case("Q13", "secrets", "banking77", insert_secret),
    Case("Q13", "secrets", "japanese", insert_secret),
    Case("Q14", "answer in another language", "gsm8k", other_language),
    Case("Q14", "answer in another language", "japanese", other_language),
    Case("Q19", "marks", "gsm8k", insert_mark),
    Case("Q19", "marks", "japanese", insert_mark),
    Case("Q20", "mojibake", "gsm8k", break_encoding),
    Case("Q20", "mojibake", "japanese", break_encoding),
    Case("Q20", "invisible", "banking77", insert_invisible),
    Case("Q15", "answer broken off", "gsm8k", truncated),
)


@dataclass(frozen=True)
class Score:
    faults: int
    found: int
    named: int  # lines, without those of the clean data
    right: int  # of these, lines of a fault
    clean: int  # lines that the code names in the clean data

    @property
    def recall(self) -> float:
        return self.found / self.faults if self.faults else 0.0

    @property
    def precision(self) -> float:
        return self.right / self.named if self.named else 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=1_500)
    parser.add_argument("--faults", type=int, default=60, help="of each kind; enough to pass the thresholds")
    parser.add_argument("--only", help="a code")
    asked = parser.parse_args()
    sets = {
        "gsm8k": gsm8k(asked.folder, asked.rows), "banking77": banking(asked.folder, asked.rows),
        "japanese": faults_ja.rows(min(asked.rows, 500)),
    }  # fmt: skip
    clean: dict[tuple[str, bool], Report] = {}
    scores = []
    print(f"{'code':5}{'fault':27}{'rows':11}{'recall':>8}{'precision':>11}{'found':>10}{'named':>7}{'clean':>7}")
    for case in CASES:
        if asked.only and case.code != asked.only:
            continue
        score = measure(case, sets[case.data], asked.faults, clean)
        scores.append((case, score))
        print(
            f"{case.code:5}{case.name:27}{case.data:11}{score.recall:8.2f}{score.precision:11.2f}"
            f"{score.found:6}/{score.faults:<3}{score.named:7}{score.clean:7}",
            flush=True,
        )
    cells = [
        {"code": c.code, "fault": c.name, "data": c.data, "faults": s.faults, "clean": s.clean,
         "recall": round(s.recall, 3), "precision": round(s.precision, 3)}
        for c, s in scores
    ]  # fmt: skip
    print("RESULT " + json.dumps({"rows": {name: len(rows) for name, rows in sets.items()}, "codes": cells}))


def measure(case: Case, rows: list[Row], n: int, clean: dict[tuple[str, bool], Report]) -> Score:
    """Put the faults in, check, and compare."""
    training, valid = (rows[: len(rows) * 3 // 4], rows[len(rows) * 3 // 4 :]) if case.leak else (rows, None)
    before = clean.get((case.data, case.leak)) or run(training, valid)
    clean[case.data, case.leak] = before
    draw = random.Random(f"{case.code} {case.name} {case.data}")
    kept, faults = inject(case, training, valid, n, draw)
    after = run(training, kept) if case.leak else run(kept, None)
    which = "validation" if case.leak else "training"
    old = {id((valid or training)[line - 1]) for line in named(before, case.code, which)}
    lines = {id(row): line for line, row in enumerate(kept, 1)}
    wrong = [{lines[id(row)] for row in fault if id(row) in lines} for fault in faults]
    all_wrong = set().union(*wrong)
    told = named(after, case.code, which)
    new = {line for line in told if id(kept[line - 1]) not in old or line in all_wrong}
    found = sum(bool(told & fault) for fault in wrong)
    return Score(len(faults), found, len(new), len(new & all_wrong), len(old))


def inject(
    case: Case, training: list[Row], valid: list[Row] | None, n: int, draw: random.Random
) -> tuple[list[Row], list[tuple[Row, ...]]]:
    """The file with the faults (the validation file, where rows leak), and the rows of each fault."""
    kept = list(valid if valid is not None else training)
    faults: list[tuple[Row, ...]] = []
    for row in draw.sample(training, len(training)):
        edited = case.edit(row, draw) if len(faults) < n else None
        if edited is None:
            continue
        if case.pair or case.leak:
            kept.insert(draw.randrange(len(kept) + 1), edited)
            faults.append((row, edited) if case.pair else (edited,))
        else:
            kept[next(i for i, other in enumerate(kept) if other is row)] = edited
            faults.append((edited,))
    return kept, faults


def named(report: Report, code: str, which: str) -> set[int]:
    return {line for one in report.findings if one.code == code and one.file == which for line in one.lines}


def run(training: list[Row], valid: list[Row] | None) -> Report:
    with tempfile.TemporaryDirectory() as scratch:
        paths = [write(Path(scratch) / "train.jsonl", training)]
        if valid is not None:
            paths.append(write(Path(scratch) / "valid.jsonl", valid))
        return check(*paths, expected_refusals=0.0)  # or few refusals would be passed over


def write(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
