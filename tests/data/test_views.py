"""The report in text, JSON and SARIF, and the sentences that all views share."""

import json
import math
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from sample_report import FACTS, FINDINGS, HOSTILE, VALIDATION, empty_report, sample_report

from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.findings import MAX_LINES, Finding, Place, Sample, finding
from pegbox.data.report import SCHEMA, Distribution, Estimate, Piece, Report, Shown
from pegbox.data.views import drawing, words
from pegbox.data.views.as_json import as_json, from_json, json_bytes
from pegbox.data.views.as_sarif import MAX_RESULTS, as_sarif
from pegbox.data.views.as_text import as_text, histogram
from pegbox.data.views.marks import differences, units

ROOT = Path(__file__).parent.parent.parent
SGR = re.compile(r"\x1b\[[0-9;]*m")
quick = settings(deadline=None, max_examples=60)
anything = st.text(st.characters(), max_size=60)  # half characters, controls and all


def ordinary() -> Report:
    """No validation file, two unreadable rows, six findings."""
    facts = replace(FACTS, problems=FACTS.problems[:2], refused={"unreadable": 2}, used=998)
    unreadable = replace(FINDINGS[0], lines=(14, 89))
    rest = [f for f in FINDINGS[1:] if f.file == "training"]
    return replace(sample_report(), training=facts, validation=None, findings=(unreadable, *rest))


def with_text(text: str) -> Report:
    """A report in which that text stands wherever a row's or a file's text can."""
    place = Place(3, text, text)
    odd = finding(
        "Q09", "odd", text, count=1, rows=2, lines=[3], samples=[Sample((place, place), text), Sample((place,))]
    )
    facts = replace(FACTS, name=text or "x", problems=tuple(replace(p, text=text) for p in FACTS.problems))
    return replace(sample_report(), training=facts, findings=(odd, FINDINGS[0]), not_run={"Q08": text})


# --- words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "1 second"), (40.4, "40 seconds"), (89, "89 seconds"), (95, "2 minutes"), (840, "14 minutes"),
        (7_800, "2 hours 10 minutes"), (7_200, "2 hours"), (3 * 86_400 + 4 * 3_600, "3 days 4 hours"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0%"), (0.0004, "less than 0.1%"), (0.042, "4.2%"), (0.1349, "13%"), (0.9996, "more than 99.9%"), (1, "100%")],
)
def test_shares(share: float, said: str) -> None:
    assert words.percent(share) == said


@pytest.mark.parametrize(
    ("n", "said"), [(1, "1"), (1_234_567, "1,234,567"), (178.6, "179"), (3.4, "3.4"), (0.125, "0.125")]
)
def test_figures(n: float, said: str) -> None:
    assert words.figure(n) == said


def test_verdicts() -> None:
    report = sample_report()
    by = {severity: [f for f in FINDINGS if f.severity == severity] for severity in Severity}
    of = lambda *findings: words.verdict(replace(report, findings=findings, not_run={}))  # noqa: E731
    assert of(*FINDINGS) == "2 things to mend before you train, 3 worth mending, 2 good to know."
    assert of(by[Severity.ERROR][0]) == "1 thing to mend before you train."
    assert of(by[Severity.INFO][0]) == "Nothing that must be mended before you train, 1 good to know."
    assert of() == "Nothing found."
    assert words.verdict(replace(report, findings=())) == "Nothing found in what was looked at."
    assert words.verdict(empty_report()).startswith("No row of this file can be trained on")


def test_row_accounting_sums() -> None:
    assert FACTS.rows == FACTS.used + sum(FACTS.refused.values())
    assert words.rows(FACTS) == (
        "1,000 rows read: 985 used, 15 refused (3 unreadable, 12 nothing left to learn). 1 blank line passed over."
    )
    assert words.rows(VALIDATION) == "100 rows read, all used."
    assert words.rows(empty_report().training) == "The file has no rows."


def test_where_names_lines_or_pairs() -> None:
    def lines(*which: int, file: str = "training") -> str:
        return words.where(finding("Q05", "k", "t", count=1, rows=10, lines=which, file=file))

    assert lines() == ""
    assert lines(7) == "Line 7."
    assert lines(9, 7) == "Lines 7 and 9."
    assert lines(*range(1, 10)) == "Lines 1, 2, 3, 4, 5, 6 and 3 more."
    assert lines(*range(1, 3_000)) == f"Lines 1, 2, 3, 4, 5, 6 and at least {MAX_LINES - 6} more."
    assert lines(7, file="validation") == "Line 7 of the validation file."
    by = {f.code: f for f in FINDINGS}
    assert words.where(by["Q09"]) == "For example lines 3 and 88, lines 402 and 617 and lines 618 and 702."
    assert words.where(by["Q12"]) == "For example line 31 of the training file with line 5 of the validation file."


def test_an_interval_of_one_unit_names_it_once() -> None:
    base = Estimate(1, 1, 812.0, 560.0, 1_180.0, 2**31, 3, "b")
    assert words.estimate(base) == "About 14 minutes on this machine (9 to 20 minutes), 2.0 GiB of memory."
    assert "(40 seconds to 20 minutes)" in words.estimate(replace(base, seconds_low=40))
    same = replace(base, seconds=60, seconds_low=60, seconds_high=60)
    assert words.estimate(same) == "About 60 seconds on this machine, 2.0 GiB of memory."


@quick
@given(anything)
def test_visible_text_hides_nothing(text: str) -> None:
    shown = words.visible(text)
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= set("\n\t\u200c\u200d")
    if not hidden and text.isprintable():
        assert shown == text


def test_emoji_and_japanese_stay_as_they_are() -> None:
    for text in ("👩‍👩‍👧‍👦 家族", "日本語のテキスト", "naïve café", "می‌خواهم"):
        assert words.visible(text) == text
    assert words.visible("a\u202eb\x1b[0m\ufeff") == "a⟨U+202E⟩b⟨U+001B⟩[0m⟨U+FEFF⟩"


@pytest.mark.parametrize(("text", "code"), [("返品できますか", "ja"), ("退货", ""), ("환불", "ko"), ("refund", "")])
def test_fonts_are_told_the_language(text: str, code: str) -> None:
    assert words.language(text) == code


# --- marks and drawings --------------------------------------------------------------------------------------


def shown(pieces: list[Any]) -> str:
    return "".join(f"[{piece.text}]" if piece.differs else piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("a", "b", "left", "right"),
    [
        ("It costs 30 euros today.", "It costs 45 euros today.", "It costs [30] euros today.", "It costs [45] euros today."),
        ("Yes, we do that.", "Yes, we do.", "Yes, we do[ that].", "Yes, we do."),
        ("三日以内に届きます。", "七日以内に届きます。", "[三]日以内に届きます。", "[七]日以内に届きます。"),
        ("the big red box", "the small old box", "the [big red] box", "the [small old] box"),
        ("yes", "no", "[yes]", "[no]"),
        ("same", "same", "same", "same"),
    ],
)  # fmt: skip
def test_differences_are_marked_by_word_or_by_character(a: str, b: str, left: str, right: str) -> None:
    assert tuple(map(shown, differences(a, b))) == (left, right)


@quick
@given(st.text(max_size=60), st.text(max_size=60))
def test_pieces_make_up_the_texts_and_what_is_unmarked_is_common(a: str, b: str) -> None:
    left, right = differences(a, b)
    assert ("".join(p.text for p in left), "".join(p.text for p in right)) == (a, b)
    same = ["".join("".join(p.text for p in side if not p.differs).split()) for side in (left, right)]
    assert same[0] == same[1]
    assert "".join(units(a)) == a


def test_histogram_bars_are_as_high_as_their_counts() -> None:
    drawn = drawing.histogram(Distribution(0, 10, 4, 2.5, 0, 9, (0, 5, 10), (30, 10)))
    assert drawn is not None
    assert [bar.height for bar in drawn.bars] == [drawing.HEIGHT, drawing.HEIGHT / 3]
    assert (drawn.median, drawn.p95) == (drawing.WIDTH / 4, drawing.WIDTH * 0.9)
    assert drawing.histogram(Distribution(0, 0, 0, 0, 0, 0)) is None
    assert (
        histogram(Distribution(1, 9, 4, 3, 1, 9, (1, 3, 5, 7, 9), (80, 40, 0, 1)), "Tokens")
        == "Tokens a row, from 1 to 9: █▄ ▁"
    )


def test_the_bar_of_rows_is_full_and_shows_every_reason() -> None:
    bars = drawing.accounting(replace(FACTS, rows=1_000_000, used=999_988))
    assert [bar.label for bar in bars] == ["999,988 used", "3 unreadable", "12 nothing left to learn"]
    assert bars[-1].x + bars[-1].width == pytest.approx(1_000, abs=0.1)
    assert all(bar.width >= 3 for bar in bars)
    assert drawing.accounting(empty_report().training) == ()


# --- terminal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    lines = as_text(sample_report(), width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


def test_an_ordinary_report_fits_one_screen() -> None:
    assert len(as_text(ordinary(), 80).splitlines()) <= 40


def test_the_terminal_is_read_from_the_verdict_to_what_is_missing() -> None:
    text = as_text(sample_report(), 80)
    told = [
        "2 things to mend before you train", "tickets-2026.jsonl: 1,000 rows read", "To mend before you train\n",
        "Error Q01, unreadable-row", "Error Q19", "Worth mending\n", "Warning Q09", "Good to know\n", "Note Q20",
        "Not looked for\n", "Q08 Rows that say the same",
    ]  # fmt: skip
    at = [text.index(words) for words in told]
    assert at == sorted(at)
    flat = " ".join(text.split())
    assert "Lines 77 and 410. Remove them" in flat
    assert "514,203 billed tokens, cost 1.54 at 3.00 a million tokens." in flat


def test_colour_adds_nothing_that_is_not_said_in_words() -> None:
    plain, coloured = as_text(sample_report(), 100), as_text(sample_report(), 100, colour=True)
    assert "\x1b" not in plain
    assert coloured != plain
    assert SGR.sub("", coloured) == plain


@quick
@given(anything)
def test_rows_do_nothing_to_a_terminal(text: str) -> None:
    said = SGR.sub("", as_text(with_text(text), 80, colour=True))
    assert not [c for c in said if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    said.encode()
    assert SGR.sub("", as_text(with_text("\x1b[31m"), 80)).count("⟨U+001B⟩") > 1


# --- JSON ----------------------------------------------------------------------------------------------------


def strict(schema: Any) -> Any:
    """The published schema, with nothing allowed that it does not describe."""
    if isinstance(schema, dict):
        closed = {key: strict(value) for key, value in schema.items()}
        return closed | ({"additionalProperties": False} if isinstance(schema.get("required"), list) else {})
    return [strict(item) for item in schema] if isinstance(schema, list) else schema


def known(report: Report) -> Report:
    """What JSON carries: not the parsed values of unreadable rows."""
    problems = tuple(replace(problem, value=None) for problem in report.training.problems)
    return replace(report, training=replace(report.training, problems=problems))


@pytest.mark.parametrize("make", [sample_report, empty_report])
def test_json_is_as_its_schema_says(make: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema_rs", reason="jsonschema-rs is not installed")
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(strict(schema))
    assert [str(error) for error in validator.iter_errors(as_json(make()))] == []
    assert schema["properties"]["schema"]["const"] == SCHEMA


@pytest.mark.parametrize("make", [sample_report, empty_report, ordinary])
def test_json_carries_the_whole_report_there_and_back(make: Any) -> None:
    report = make()
    assert from_json(json.loads(json_bytes(report))) == known(report)
    assert as_text(from_json(as_json(report))) == as_text(report)


def test_json_of_a_later_version_is_read_and_of_another_schema_refused() -> None:
    value = as_json(sample_report())
    assert from_json(value | {"news": 1, "plan": value["plan"] | {"more": 2}}) == known(sample_report())
    with pytest.raises(ValueError, match="schema 2"):
        from_json(value | {"schema": 2})


def test_json_has_no_nan_and_no_value_of_a_bad_row() -> None:
    odd = replace(FINDINGS[0], data={"ratio": math.nan, "most": math.inf, "of": (1, 2), "by": {Severity.INFO: {3}}})
    text = json_bytes(replace(sample_report(), findings=(odd,))).decode()
    value = json.loads(text, parse_constant=pytest.fail)
    assert value["findings"][0]["data"] == {"ratio": None, "most": None, "of": [1, 2], "by": {"info": [3]}}
    assert set(value["training"]["problems"][0]) == {"example", "line", "where", "text", "is_format"}


def test_rows_are_shown_without_secrets() -> None:
    from pegbox.data.views.as_html import as_html

    piece = Piece("Write to hanna.berg@posteo.de, please.", trained=True)
    problem = replace(FACTS.problems[0], text='is "hanna.berg@posteo.de", please.')
    report = replace(sample_report(), examples=(Shown(1, (piece,)),), training=replace(FACTS, problems=(problem,)))
    assert "hanna.berg" not in as_text(report)
    for said in (json_bytes(report).decode(), as_html(report)):
        assert "hanna.berg" not in said
        assert said.count(", please.") == 2


@quick
@given(anything)
def test_json_is_utf_8_whatever_the_rows_hold(text: str) -> None:
    value = json.loads(json_bytes(with_text(text)).decode())
    assert value["findings"][0]["samples"][0]["note"] == text


def test_findings_carry_what_clients_filter_by() -> None:
    value = as_json(sample_report())
    assert value["found"] == {"error": 2, "warning": 3, "info": 2}
    q09 = next(f for f in value["findings"] if f["code"] == "Q09")
    assert (q09["name"], q09["kind"], q09["severity"], q09["count"], q09["share"]) == (
        "contradiction", "different-labels", "warning", 44, 0.044,
    )  # fmt: skip
    assert [p["line"] for p in q09["samples"][0]["places"]] == [3, 88]


# --- SARIF ---------------------------------------------------------------------------------------------------


def results(report: Report) -> list[dict[str, Any]]:
    return list(as_sarif(report)["runs"][0]["results"])


def test_sarif_has_what_the_standard_requires() -> None:
    log = json.loads(json.dumps(as_sarif(sample_report(), "https://example.com/docs/codes.md")))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "pegbox"
    assert [rule["id"] for rule in driver["rules"]] == list(CODES)
    for rule in driver["rules"]:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["name"])
        assert rule["helpUri"].startswith("https://example.com/docs/codes.md#")
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["help"]["text"]
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        for location in result["locations"] + result.get("relatedLocations", []):
            physical = location["physicalLocation"]
            artifact = run["artifacts"][physical["artifactLocation"]["index"]]
            assert artifact["location"]["uri"] == physical["artifactLocation"]["uri"]
            assert physical["region"]["startLine"] >= 1
    assert run["invocations"][0]["executionSuccessful"] is True
    assert [n["associatedRule"]["id"] for n in run["invocations"][0]["toolExecutionNotifications"]] == ["Q08", "Q10"]


def test_the_help_of_every_rule_is_in_the_documents() -> None:
    text = (ROOT / "docs" / "codes.md").read_text("utf-8")
    for rule in as_sarif(sample_report())["runs"][0]["tool"]["driver"]["rules"]:
        assert "helpUri" not in rule  # no absolute address is known, and the standard allows no other
        anchor = rule["help"]["markdown"].rpartition("#")[2].removesuffix(").")
        assert f'<a id="{anchor}"></a>' in text


def test_every_line_of_a_finding_is_marked_once_and_pairs_are_related() -> None:
    of = {code: [r for r in results(sample_report()) if r["ruleId"] == code] for code in CODES}
    at = lambda location: location["physicalLocation"]["region"]["startLine"]  # noqa: E731
    assert [at(r["locations"][0]) for r in of["Q01"]] == [14, 89, 302]
    marked = Counter(at(x) for r in of["Q09"] for x in r["locations"] + r.get("relatedLocations", []))
    assert marked == dict.fromkeys((3, 88, 14, 201, 402, 617, 618, 702), 1)
    assert at(of["Q09"][0]["relatedLocations"][0]) == 88
    [first, *rest] = of["Q12"]  # one place in each file
    assert first["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["index"] == 1
    assert [at(r["locations"][0]) for r in rest] == [9, 12, 44, 51, 80]
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["index"] for r in rest} == {1}
    assert [at(r["locations"][0]) for r in of["Q18"]] == [1]  # the file as a whole


def test_sarif_spells_file_names_as_addresses_and_keeps_to_a_hundred() -> None:
    many = finding("Q05", "cut", "Many.", count=3_000, rows=9_000, lines=range(1, 3_001))
    report = replace(sample_report(), findings=(many,), training=replace(FACTS, name="a b#%.jsonl"))
    assert len(results(report)) == MAX_RESULTS
    uris = [a["location"]["uri"] for a in as_sarif(report)["runs"][0]["artifacts"]]
    assert uris == ["a%20b%23%25.jsonl", "%E6%A4%9C%E8%A8%BC%E7%94%A8.jsonl"]


def test_sarif_holds_no_hidden_characters() -> None:
    report = with_text(HOSTILE)
    for result in results(report):
        assert not re.search("[\x00-\x1f\u202a-\u202e]", result["message"]["text"])


# --- the real thing ------------------------------------------------------------------------------------------


def test_every_view_draws_what_the_check_says_of_a_real_file(tmp_path: Path) -> None:
    from pegbox.data.check import check
    from pegbox.data.views.as_html import as_html

    lines = (ROOT / "examples" / "tickets" / "train.jsonl").read_text("utf-8").splitlines()[:60]
    bad = ['{"messages": [{"role": "usr", "content": "a"}]}', "{", '{"messages": []}']
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([*lines, *bad, *lines[:20]]) + "\n", "utf-8")
    report = check(path, path)
    text = as_text(report, 80)
    assert "mixed.jsonl: 83 rows read: 80 used, 3 refused" in text
    for line in (61, 62, 63):
        assert re.search(rf"(Line|Lines|line) (\d+, )*{line}\b", " ".join(text.split())), line
    assert as_text(from_json(json.loads(json_bytes(report))), 80) == text
    marked = {
        r["locations"][0]["physicalLocation"]["region"]["startLine"] for r in results(report) if r["ruleId"] == "Q01"
    }
    assert marked == {61, 62, 63}
    page = as_html(report)
    found: Finding
    for found in report.findings:
        assert found.code in page
