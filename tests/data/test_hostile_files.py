"""Every hostile input gets a named error with its line, in bounded time and memory; and no bytes at all break the desk."""

import io
import json
import random
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.check import check
from pegbox.data.glance import glance
from pegbox.data.views.as_html import as_html
from pegbox.data.views.as_json import json_bytes
from pegbox.data.views.as_sarif import as_sarif
from pegbox.data.views.as_text import as_text

GOOD = b'{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]}'


def row(content: str) -> bytes:
    """A row whose JSON text for the question is given as it stands."""
    return GOOD.replace(b'"a?"', content.encode("utf-8", "surrogatepass"))


# what → (the bad line, the kind of Q01, a word of the sentence)
HOSTILE = {
    "nested": (b"[" * 100_000, "too-deep", "levels deep"),
    "nested-object": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "too-deep", "levels deep"),
    "nan": (row("NaN"), "bad-number", "NaN"),
    "infinity": (row("-Infinity"), "bad-number", "Infinity"),
    "1e999": (row("1e999"), "bad-number", "too large"),
    "5000-digits": (row("9" * 5_000), "bad-number", "digits"),
    "duplicate-key": (GOOD.replace(b'"role": "user"', b'"role": "user", "role": "user"'), "duplicate-key", "twice"),
    "duplicate-messages": (GOOD[:-1] + b', "messages": []}', "duplicate-key", "twice"),
    "half-character": (row('"\\ud800"'), "lone-surrogate", "surrogate"),
    "half-character-raw": (row('"\ud800"'), "not-utf-8", "UTF-8"),
    "latin-1": (row('"caf\u00e9"').decode().encode("latin-1"), "not-utf-8", "UTF-8"),
    "bom-inside": (b"\xef\xbb\xbf" + GOOD, "not-json", "not valid JSON"),
    "control": (row('"a\x01b"'), "not-json", "not valid JSON"),
    "cut-off": (GOOD[:40], "not-json", "not valid JSON"),
    "two-objects": (GOOD + GOOD, "not-json", "not valid JSON"),
    "9-mb-line": (row('"' + "x" * 9_000_000 + '"'), "line-too-long", "bytes long"),
    "array": (b"[1, 2]", "not-an-object", "not a JSON object"),
    "many-messages": (
        json.dumps({"messages": [{"role": "user", "content": "a"}] * 5_000}).encode(), "bad-field", "messages",
    ),
    "extra-key": (GOOD[:-1] + b', "weight": 1}', "unknown-key", "extra"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_line_is_named(tmp_path: Path, what: str):
    line, kind, word = HOSTILE[what]
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\n".join([GOOD] * 12 + [line] + [GOOD] * 3) + b"\n")
    began = time.process_time()
    report = check(path)
    assert time.process_time() - began < 10
    bad = [finding for finding in report.findings if finding.code == "Q01"]
    assert [(f.kind, f.lines) for f in bad] == [(kind, (13,))]
    assert word in bad[0].text
    assert (report.training.rows, report.training.used, dict(report.training.refused)) == (16, 15, {"unreadable": 1})
    assert "line 13" in (glance(io.BytesIO(path.read_bytes())) or "")


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"\r\n".join([GOOD] * 12) + b"\r\n", 12),
        (b"\n".join([GOOD] * 12), 12),  # no line end at the end
        (b"\n\n".join([GOOD] * 12) + b"\n\n", 12),
        (b"\xef\xbb\xbf" + b"\n".join([GOOD] * 12), 12),
        (
            b"\n".join([GOOD.replace(b"a?", "a\u2028b\u0085c\v".encode()[:-1])] * 12),
            12,
        ),  # one row, whatever splitlines says
    ],
)
def test_odd_files_that_are_fine(tmp_path: Path, content: bytes, rows: int):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    facts = check(path, quick=True).training
    assert (facts.rows, facts.used) == (rows, rows)


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\x00" * 1_000, b"\xff\xfe" + "{}".encode("utf-16-le"), b"PK\x03\x04" * 50]
)
def test_files_that_hold_no_rows_or_no_text(tmp_path: Path, content: bytes):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    report = check(path)
    assert report.training.used == 0
    assert any(finding.severity == "error" for finding in report.findings)
    assert glance(io.BytesIO(content))


def test_one_endless_line_costs_no_memory(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    with path.open("wb") as out:
        for _ in range(200):
            out.write(b"x" * 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert "200,000,000 bytes long" in report.findings[0].text


def pieces() -> st.SearchStrategy[bytes]:
    text = st.text(max_size=12).map(lambda t: json.dumps(t).encode())
    raw = st.sampled_from(
        [b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\n", b"\r", b"null", b"1", b"-", b"1e9", b"true", b"\xff",
         b"\xed\xa0\x80", b"\x00", b'"messages"', b'"role"', b'"content"', b'"user"', b'"assistant"', b'"system"',
         b'"tool_calls"', b'"function"', b'"weight"', b'"prompt"', b'"completion"', GOOD, b"<|im_end|>"]
    )  # fmt: skip
    return st.lists(st.one_of(raw, text), max_size=30).map(b"".join)


def views(path: Path) -> None:
    """Every view of the report, made; the row accounting sums."""
    report = check(path)
    facts = report.training
    assert facts.rows == facts.used + sum(facts.refused.values())
    assert json.loads(json_bytes(report))["schema"] == 1
    assert as_html(report)
    assert as_text(report, 80)
    assert as_sarif(report)["version"] == "2.1.0"


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(pieces(), st.just(GOOD)), max_size=12))
def test_no_bytes_break_the_desk(tmp_path_factory, lines: list[bytes]):
    path = tmp_path_factory.mktemp("fuzz") / "train.jsonl"
    path.write_bytes(b"\n".join(lines))
    views(path)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool", "developer"]), st.text(max_size=40)),
        min_size=1,
        max_size=6,
    )
)
def test_no_text_breaks_the_desk(tmp_path_factory, turns):
    path = tmp_path_factory.mktemp("fuzz") / "train.jsonl"
    messages = [{"role": role, "content": text} for role, text in turns]
    lines = [json.dumps({"messages": [*messages, {"role": "assistant", "content": f"{i}"}]}) for i in range(12)]
    path.write_text("\n".join(lines), "utf-8")
    views(path)


def test_a_mutated_file_is_accounted_for(tmp_path: Path):
    """Good rows with bytes changed at random: what is read and refused always sums."""
    draw = random.Random(0)
    path = tmp_path / "train.jsonl"
    for _ in range(30):
        content = bytearray(b"\n".join([GOOD] * 20))
        for _ in range(draw.randrange(1, 12)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        views(path)
