"""The sentences that the views share, so that the terminal and the page say the same in the same words."""

import re
import unicodedata
from collections import Counter
from dataclasses import replace

from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.findings import MAX_LINES, Finding, Place
from pegbox.data.quality.secrets import redact
from pegbox.data.report import Distribution, Estimate, FileFacts, Plan, Report
from pegbox.data.rows import Problem

GRAVITIES = (Severity.ERROR, Severity.WARNING, Severity.INFO)
HEADINGS = {
    Severity.ERROR: "To mend before you train",
    Severity.WARNING: "Worth mending",
    Severity.INFO: "Good to know",
}
SEVERITY_WORDS = {Severity.ERROR: "Error", Severity.WARNING: "Warning", Severity.INFO: "Note"}

_NAMED_LINES = 6
_NAMED_PAIRS = 3
_FEW_CODES = 3  # that are named with their titles, each in a line
# The joiners that hold emoji and some scripts together, and line ends and tabs, which every view lays out.
_HARMLESS = "\n\t\u200c\u200d"


# --- figures -------------------------------------------------------------------------------------------------


def count(n: float, one: str, many: str = "") -> str:
    """`1 row`, `1,234 rows`."""
    return f"{figure(n)} {one if n == 1 else many or one + 's'}"


def figure(n: float) -> str:
    """A number for people: thousands marked, at most three digits of a fraction's worth."""
    if n == int(n) or abs(n) >= 100:
        return f"{n:,.0f}"
    return f"{n:.3g}"


def percent(share: float) -> str:
    """`23%`, `4.2%`, `less than 0.1%`."""
    if 0 < share < 0.001:
        return "less than 0.1%"
    if 0.999 < share < 1:
        return "more than 99.9%"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def duration(seconds: float) -> str:
    """`40 seconds`, `14 minutes`, `2 hours 10 minutes`, `3 days 4 hours`."""
    if seconds < 90:
        return count(max(1, round(seconds)), "second")
    minutes = round(seconds / 60)
    if minutes < 90:
        return count(minutes, "minute")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return count(hours, "hour") + (f" {count(minutes, 'minute')}" if minutes else "")
    days, hours = divmod(hours, 24)
    return count(days, "day") + (f" {count(hours, 'hour')}" if hours else "")


def size(n: float) -> str:
    """Bytes: `812 bytes`, `3.4 MiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} GiB"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# --- sentences -----------------------------------------------------------------------------------------------


def verdict(report: Report) -> str:
    """The report in one sentence."""
    found = Counter(finding.severity for finding in report.findings)
    errors, warnings, notes = (found[severity] for severity in GRAVITIES)
    if not report.training.used:
        start = "No row of this file can be trained on"
    elif errors:
        start = f"{count(errors, 'thing')} to mend before you train"
    elif report.findings:
        start = "Nothing that must be mended before you train"
    else:
        start = "Nothing found in what was looked at" if report.not_run else "Nothing found"
    rest = [f"{n:,} {words}" for n, words in ((warnings, "worth mending"), (notes, "good to know")) if n]
    return ", ".join([start, *rest]) + "."


def rows(facts: FileFacts) -> str:
    """Where every row went: the figures sum up."""
    refused = sum(facts.refused.values())
    read = f"{count(facts.rows, 'row')} read"
    if not facts.rows:
        said = "The file has no rows."
    elif not refused:
        said = f"{read}, all used."
    else:
        reasons = ", ".join(f"{figure(n)} {reason}" for reason, n in facts.refused.items() if n)
        said = f"{read}: {figure(facts.used)} used, {figure(refused)} refused ({reasons})."
    if facts.blank_lines:
        said += f" {count(facts.blank_lines, 'blank line')} passed over."
    return said


def tokens(facts: FileFacts) -> str:
    """How many, how many are learnt, how they are spread; empty where no model is named."""
    if facts.tokens is None or not facts.total_tokens:
        return ""
    learnt = facts.trained_tokens
    said = f"{count(facts.total_tokens, 'token')}, of which {figure(learnt)} ({percent(learnt / facts.total_tokens)})"
    return f"{said} are learnt. {spread(facts.tokens, 'tokens')}"


def spread(figures: Distribution, of: str) -> str:
    """How a figure is spread over the rows."""
    if figures.min == figures.max:
        return f"Every row has {figure(figures.min)} {of}."
    return (
        f"A row has {figure(figures.min)} to {figure(figures.max)} {of}, half have {figure(figures.median)} or fewer."
    )


def tail(figures: Distribution) -> str:
    """What a histogram does not show at a glance."""
    if figures.p95 == figures.median:
        return f"The mean is {figure(figures.mean)}."
    return f"One row in twenty has {figure(figures.p95)} or more; the mean is {figure(figures.mean)}."


def plan(plan: Plan) -> str:
    """What a job would do by default, and its price."""
    said = f"{count(plan.n_epochs, 'epoch')} on {plan.model}, {count(plan.billing_tokens, 'billed token')}"
    if plan.cost is not None:
        said += f", cost {plan.cost:,.2f} at {plan.price:,.2f} a million tokens"
    return said + "."


def estimate(estimate: Estimate) -> str:
    """How long a job would take on this machine, and how much memory."""
    low, high = duration(estimate.seconds_low), duration(estimate.seconds_high)
    if low.split()[1:] == high.split()[1:]:
        low = low.split()[0]  # "9 to 20 minutes"
    interval = f" ({low} to {high})" if low != high.split()[0] else ""
    return f"About {duration(estimate.seconds)} on this machine{interval}, {size(estimate.peak_bytes)} of memory."


def in_file(finding: Finding) -> str:
    """Which file a finding is about, where it is not the training file."""
    return "" if finding.file == "training" else f" in the {finding.file} file"


def where(finding: Finding) -> str:
    """The first lines of a finding, or its first pairs; "" where it is about the file as a whole."""
    pairs = [sample.places for sample in finding.samples if len(sample.places) == 2]
    if pairs:
        named = [pair(a, b, finding.file) for a, b in pairs[:_NAMED_PAIRS]]
        return f"For example {listed(named)}."
    if not finding.lines:
        return ""
    of = "" if finding.file == "training" else f" of the {finding.file} file"
    named = [f"{line}" for line in finding.lines[:_NAMED_LINES]]
    more = len(finding.lines) - len(named)
    if more:
        named.append(("at least " if len(finding.lines) == MAX_LINES else "") + f"{more:,} more")
    return f"Line{'s' if len(named) > 1 else ''} {listed(named)}{of}."


def pair(a: Place, b: Place, file: str = "training") -> str:
    """`lines 3 and 88`, or `line 3 of the training file with line 9 of the validation file`."""
    if a.file == b.file == file:
        return f"lines {a.line} and {b.line}" if a.line != b.line else f"line {a.line}"
    return f"line {a.line} of the {a.file} file with line {b.line} of the {b.file} file"


def sentence(text: str) -> str:
    """The text with an end, so that another sentence can follow it."""
    return text if text.endswith((".", "!", "?", "…", "。", "！", "？")) else f"{text}."


def threshold(finding: Finding) -> str:
    """Where the check begins to speak; "" where it does at the first case."""
    if finding.threshold is None or not 0 < finding.threshold < 1:
        return ""
    return f"Reported above {percent(finding.threshold)}."


def problems(finding: Finding, report: Report) -> list[Problem]:
    """The unreadable rows that a finding counts, as far as they are known by name; without secrets."""
    facts = report.validation if finding.file == "validation" else report.training
    if finding.code != "Q01" or facts is None:
        return []
    lines = set(finding.lines)
    return [replace(problem, text=redact(problem.text)) for problem in facts.problems if problem.line in lines]


def not_run(report: Report) -> list[str]:
    """What was not looked for, and why; many codes for one reason in one line."""
    reasons: dict[str, list[str]] = {}
    for code, why in report.not_run.items():
        reasons.setdefault(why, []).append(code)
    lines = []
    for why, codes in reasons.items():
        if len(codes) > _FEW_CODES:
            lines.append(f"{listed(codes)}: {why}")
        else:
            lines += [f"{code} {CODES[code].title if code in CODES else ''}".strip() + f": {why}" for code in codes]
    return lines


# --- hostile text --------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """The text with every character spelt out that a terminal acts upon, that turns the direction of text around, or
    that nobody sees."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelt(character) for character in text)


def language(text: str) -> str:
    """The language that a font must know to draw the text; "" where any will do. Chinese characters are drawn
    differently in Japan and in China."""
    if re.search("[\u3040-\u30ff]", text):
        return "ja"
    return "ko" if re.search("[\uac00-\ud7af]", text) else ""


def _spelt(character: str) -> str:
    if character in _HARMLESS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
