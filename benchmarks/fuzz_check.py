"""Coverage-guided fuzzing of the data desk: no bytes may crash it or hang it.

    .venv/bin/pip install atheris
    .venv/bin/python benchmarks/fuzz_check.py --seconds 600

The first byte chooses: raw bytes as a file, a file made of JSON-like pieces, or one good row changed. Every finding of
the fuzzer is a traceback, and leaves the input in ./crash-…. A file that takes over ten seconds counts as hanging.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pegbox.data"]):
    from pegbox.data.check import check
    from pegbox.data.glance import glance
    from pegbox.data.views.as_html import as_html
    from pegbox.data.views.as_json import from_json, json_bytes
    from pegbox.data.views.as_sarif import as_sarif
    from pegbox.data.views.as_text import as_text

GOOD = b'{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]}\n'
PIECES = [
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\",
    b"\n", b"\r", b"null", b"NaN", b"1e999", b'"messages":', b'"role":',
    b'"content":', b'"user"', b'"assistant"', b'"system"', b'"tool"', b'"tool_calls":', b'"weight":', b'"prompt":',
    b'"completion":', b'"input":', b'"preferred_output":', b'"non_preferred_output":', b"\\ud800", b"\xff", b"\x00",
    GOOD, "日本語。".encode(),
    "Ã©".encode(), b"<|im_end|>", b"sk-abcdefghijklmnopqrstuvwxyz012345", b"I'm sorry, I can't.",
]  # fmt: skip
LONGEST = 10.0  # seconds


def made_of(data: bytes) -> bytes:
    how, rest = data[:1], data[1:]
    if how < b"\x40":
        return rest
    if how < b"\xa0":
        return b"".join(PIECES[byte % len(PIECES)] for byte in rest)
    at = rest[0] % len(GOOD) if rest else 0
    return GOOD * 11 + GOOD[:at] + rest[1:] + GOOD[at:]


def one(data: bytes) -> None:
    content = made_of(data)
    path = FOLDER / "train.jsonl"
    path.write_bytes(content)
    began = time.monotonic()
    report = check(path)
    glance(io.BytesIO(content))
    facts = report.training
    assert facts.rows == facts.used + sum(facts.refused.values()), "rows are accounted for"
    stored = json_bytes(report)
    assert json_bytes(from_json(json.loads(stored))) == stored
    as_html(report), as_text(report, 80), as_sarif(report)
    assert time.monotonic() - began < LONGEST, "it hangs"


def main() -> None:
    """Run the fuzzer as a child, because it leaves without a word."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    seconds = str(parser.parse_args().seconds)
    with subprocess.Popen([sys.executable, __file__, "--child", seconds], stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None, "it was asked for"
        figures: dict[str, int] = {}
        for line in child.stderr:
            print(line, end="", flush=True)
            if found := re.match(r"stat::(\w+):\s+(\d+)", line):
                figures[found.group(1)] = int(found.group(2))
    result = {"seconds": int(seconds), "failed": child.returncode != 0, **figures}
    print("RESULT", json.dumps(result), flush=True)
    sys.exit(child.returncode)


if __name__ == "__main__":
    if sys.argv[1:2] != ["--child"]:
        main()
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        options = [f"-max_total_time={sys.argv[2]}", "-timeout=20", "-max_len=512", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()
