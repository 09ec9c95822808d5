"""`pegbox check` beside the guide's script on the same file: seconds, memory, and how both grow with the rows.

    .venv/bin/python benchmarks/check_vs_guide.py ../shared/data/banking77 [--rows 100000] [--no-full]

The file: chat rows of banking77, the intents named in the system prompt, about 150 tokens a row. A user's message is
one of these intents and two other messages of the data set behind it, so that no two rows are the same, and few nearly
so. Each program is a process of its own, started as a user would start it, the two in turn. The script counts with
cl100k_base, pegbox with the base model's tokenizer and template. "full" is the check without --quick: every code.
"""

import argparse
import csv
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from guide_script import ranks

INTENTS, RUNS = 16, 3
MODEL = "smollm2-135m-instruct"
CURVE = (12_500, 25_000, 50_000, 100_000, 200_000, 400_000)
SCRIPT = [sys.executable, str(Path(__file__).with_name("guide_script.py"))]
CHECK = [sys.executable, "-m", "pegbox.cli.main", "check", "--model", MODEL]


@dataclass(frozen=True)
class Run:
    """One process, from its start to its end."""

    seconds: float
    cpu: float  # seconds of processor time, which a busy machine disturbs less
    peak_mb: float  # resident set

    @property
    def cell(self) -> str:
        return f"{self.seconds:7.2f} s {self.cpu:7.2f} s cpu {self.peak_mb:5.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/banking77"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=RUNS, help="of each program on --rows rows")
    parser.add_argument("--no-full", action="store_true", help="leave out the check without --quick")
    asked = parser.parse_args()
    os.environ["TIKTOKEN_CACHE_DIR"] = str(ranks())
    with tempfile.TemporaryDirectory() as scratch:
        file = write(Path(scratch), asked.folder, asked.rows)
        script, quick = [], []
        for i in range(asked.runs):
            script.append(run([*SCRIPT, str(file)]))
            quick.append(run([*CHECK, "--quick", str(file)]))
            print(f"run {i + 1}: script {script[-1].cell}   check --quick {quick[-1].cell}", flush=True)
        full = None if asked.no_full else run([*CHECK, str(file)])
        if full:
            print(f"check, every code {full.cell}", flush=True)
        file.unlink()
        curve = {}
        print(f"{'rows':>8}  check --quick{'' if asked.no_full else ' ' * 21 + 'every code'}")
        for rows in CURVE:
            file = write(Path(scratch), asked.folder, rows)
            curve[rows] = [run([*CHECK, "--quick", str(file)])]
            if not asked.no_full:
                curve[rows].append(run([*CHECK, str(file)]))
            print(f"{rows:8,}  " + "   ".join(one.cell for one in curve[rows]), flush=True)
            file.unlink()
    theirs, ours = (statistics.median(r.seconds for r in runs) for runs in (script, quick))
    most = max(CURVE)
    result = {
        "rows": asked.rows, "ratio": round(theirs / ours, 2),
        "ratios": [round(a.seconds / b.seconds, 2) for a, b in zip(script, quick, strict=True)],
        "cpu_ratio": round(statistics.median(a.cpu / b.cpu for a, b in zip(script, quick, strict=True)), 2),
        "script_seconds": round(theirs, 2), "quick_seconds": round(ours, 2),
        "script_peak_mb": round(max(r.peak_mb for r in script)), "quick_peak_mb": round(max(r.peak_mb for r in quick)),
        f"quick_peak_mb_{most}": round(curve[most][0].peak_mb),
        "quick_curve": {rows: round(runs[0].cpu, 2) for rows, runs in curve.items()},
        **({} if full is None else {
            "full_seconds": round(full.seconds, 1), "full_cpu": round(full.cpu, 1), "full_peak_mb": round(full.peak_mb),
            f"full_peak_mb_{most}": round(curve[most][1].peak_mb),
            "full_curve": {rows: round(runs[1].cpu, 1) for rows, runs in curve.items()},
        }),
        "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
    }  # fmt: skip
    print("RESULT " + json.dumps(result))


def write(folder: Path, source: Path, rows: int) -> Path:
    """A file of that many rows, no two the same. Little is held: a child's peak begins at its parent's."""
    with (source / "train.csv").open(encoding="utf-8", newline="") as file:
        everything = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    random.Random(0).shuffle(everything)
    intents = sorted({label for _, label in everything})[:INTENTS]
    firsts = [(text, label) for text, label in everything if label in intents]
    system = f"Classify the customer's message. Answer with exactly one of: {', '.join(intents)}."
    path = folder / f"{rows}.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for i in range(rows):
            text, label = firsts[i % len(firsts)]
            turn = i // len(firsts)
            second, third = (everything[(turn * a + i * b) % len(everything)][0] for a, b in ((61, 7), (4_801, 13)))
            messages = [
                {"role": "system", "content": system},
                {"role": "user", "content": f"{text} {second} {third}"},
                {"role": "assistant", "content": label},
            ]
            out.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def run(command: list[str]) -> Run:
    """Run it to its end. Exit status 1 of the check says that it found something; any other failure ends all."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1) or (process.returncode and command[: len(CHECK)] != CHECK):
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read().decode('utf-8', 'replace')[-2000:]}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
