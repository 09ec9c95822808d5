"""The report for a terminal: an ordinary file fits one screen, and every line can be read aloud."""

import io
from itertools import zip_longest

from rich.console import Console
from rich.text import Text

from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.findings import Finding
from pegbox.data.report import Distribution, FileFacts, Report
from pegbox.data.views import words

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold cyan"}
_NAMED_PROBLEMS = 3
_WIDE = 100  # columns from which histograms are drawn
_BLOCKS = "▁▂▃▄▅▆▇█"


def as_text(report: Report, width: int = 80, *, colour: bool = False) -> str:
    """The report in lines of at most `width` columns; with `colour`, in a terminal's codes."""
    page = _Page(width, colour=colour)
    page.write(words.verdict(report), style="bold")
    page.gap()
    for facts in (report.training, report.validation):
        if facts is not None:
            _file(page, facts, report)
    for severity in words.GRAVITIES:
        _findings(page, report, severity)
    if report.not_run:
        page.heading("Not looked for")
        for line in words.not_run(report):
            page.write(line, indent=2, hang=4)
    return page.text()


class _Page:
    """Lines, wrapped by the width that their characters take on a screen."""

    def __init__(self, width: int, *, colour: bool) -> None:
        self.width = max(20, width)
        self._out = io.StringIO()
        self._console = Console(
            file=self._out, width=self.width, force_terminal=colour, color_system="standard" if colour else None,
            markup=False, emoji=False, highlight=False, legacy_windows=False,
        )  # fmt: skip

    def write(self, text: str | Text, style: str = "", indent: int = 0, hang: int | None = None) -> None:
        """A paragraph. `hang` is the indent of its lines but the first."""
        hang = indent if hang is None else hang
        whole = Text(words.visible(text), style=style) if isinstance(text, str) else text
        lines = whole.wrap(self._console, self.width - max(indent, hang), overflow="fold")
        for i, line in enumerate(lines):
            line.rstrip()
            self._console.print(Text(" " * (hang if i else indent)) + line, soft_wrap=True)

    def heading(self, text: str) -> None:
        self.gap()
        self.write(text, style="bold")

    def gap(self) -> None:
        self._console.print()

    def text(self) -> str:
        return self._out.getvalue()


def _file(page: _Page, facts: FileFacts, report: Report) -> None:
    which = "" if facts.which == "training" else f" ({facts.which})"
    page.write(f"{facts.name}{which}: {words.rows(facts)}", hang=2)
    if said := words.tokens(facts):
        page.write(said, indent=2)
    if page.width >= _WIDE:
        for of, figures in (("Tokens", facts.tokens), ("Learnt tokens", facts.assistant_tokens)):
            if figures is not None and figures.counts:
                page.write(histogram(figures, of), indent=2)
    if facts.which == "training":
        if report.plan:
            page.write(words.plan(report.plan), indent=2)
        if report.estimate:
            page.write(words.estimate(report.estimate), indent=2)


def histogram(figures: Distribution, of: str) -> str:
    """`Tokens a row, from 31 to 2,044: ▁▃█▅▂▁`."""
    most = max(figures.counts) or 1
    # Any row at all is seen: only an empty bin is blank.
    drawn = "".join(_BLOCKS[n * (len(_BLOCKS) - 1) // most] if n else " " for n in figures.counts)
    return f"{of} a row, from {words.figure(figures.min)} to {words.figure(figures.max)}: {drawn}"


def _findings(page: _Page, report: Report, severity: Severity) -> None:
    found = [finding for finding in report.findings if finding.severity == severity]
    if not found:
        return
    page.heading(words.HEADINGS[severity])
    for finding, after in zip_longest(found, found[1:]):
        # Findings of one code follow each other: their remedy is said once, with the last.
        again = after is not None and (after.code, after.fix) == (finding.code, finding.fix)
        page.write(_sentence(finding), indent=2, hang=4)
        for line in _details(finding, report, fix="" if again or severity == Severity.INFO else finding.fix):
            page.write(line, indent=4)


def _sentence(finding: Finding) -> Text:
    return Text.assemble(
        (f"{words.SEVERITY_WORDS[finding.severity]} {finding.code}", _STYLES[finding.severity]),
        f", {CODES[finding.code].name}{words.in_file(finding)}: {words.visible(words.sentence(finding.text))}",
    )


def _details(finding: Finding, report: Report, fix: str) -> list[str]:
    """Which rows, and what to do about them."""
    problems = [problem for problem in words.problems(finding, report) if problem.text not in finding.text]
    named = [f"{problem}." for problem in problems[:_NAMED_PROBLEMS]]
    lines = words.where(finding) if len(finding.lines) > len(named) or not finding.lines else ""
    rest = " ".join(filter(None, (lines, fix)))
    return [*named, rest] if rest else named
