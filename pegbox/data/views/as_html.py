"""The report as one page that needs nothing else: no script, no network, all of it in one file.

The rows are hostile until proven otherwise. Jinja escapes every value, `words.visible` spells out what would hide or
turn text around, and the page's own policy lets nothing run or load, whatever slipped through.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

import pegbox
from pegbox.data.quality.codes import CODES
from pegbox.data.quality.findings import Finding, Place, Sample
from pegbox.data.quality.secrets import redact
from pegbox.data.report import Distribution, FileFacts, Report, Shown
from pegbox.data.views import drawing, words
from pegbox.data.views.marks import Marked, differences

_SHOWN_CHARACTERS = 900  # of a piece of an example row; the middle of a longer one is left out


@dataclass(frozen=True, slots=True)
class _Chart:
    title: str
    text: str  # what the drawing shows
    tail: str  # and what it does not
    figures: Distribution
    drawing: drawing.Histogram


@dataclass(frozen=True, slots=True)
class _Example:
    """A place, or two side by side, with what differs between them."""

    note: str
    columns: tuple[tuple[Place, list[Marked]], ...]
    compared: bool

    @property
    def apart(self) -> bool:
        """Whether its places are in different files."""
        return len({place.file for place, _ in self.columns}) > 1


@dataclass(frozen=True, slots=True)
class _Section:
    """A file's facts, drawn."""

    facts: FileFacts
    sentences: tuple[str, ...]
    bars: tuple[drawing.Bar, ...]
    charts: tuple[_Chart, ...]


def as_html(report: Report) -> str:
    """A whole HTML document. The same report gives the same text."""
    style = files("pegbox.data.views").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    both = [facts for facts in (report.training, report.validation) if facts is not None]
    return _template().render(
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=digest,
        version=pegbox.__version__,
        report=report,
        words=words,
        codes=CODES,
        sections=[_section(facts) for facts in both],
        groups=[(s, [f for f in report.findings if f.severity == s]) for s in words.GRAVITIES],
        examples_of=_examples,
        problems_of=lambda finding: _problems(finding, report),
        pieces_of=_pieces,
        WIDTH=drawing.WIDTH,
        HEIGHT=drawing.HEIGHT,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    return environment.from_string(files("pegbox.data.views").joinpath("report.html.jinja").read_text("utf-8"))


def _finalize(value: object) -> object:
    """What every value passes through before it is escaped."""
    return words.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _section(facts: FileFacts) -> _Section:
    said = (words.rows(facts), words.tokens(facts))
    charts = (
        _chart("Tokens a row", "tokens", facts.tokens),
        _chart("Learnt tokens a row", "learnt tokens", facts.assistant_tokens),
        _chart("Messages a row", "messages", facts.messages),
    )
    return _Section(
        facts, tuple(filter(None, said)), drawing.accounting(facts), tuple(chart for chart in charts if chart)
    )


def _chart(title: str, of: str, figures: Distribution | None) -> _Chart | None:
    drawn = drawing.histogram(figures) if figures else None
    if figures is None or drawn is None:
        return None
    return _Chart(title, words.spread(figures, of), words.tail(figures), figures, drawn)


def _examples(finding: Finding) -> list[_Example]:
    return [_example(sample) for sample in finding.samples if sample.places]


def _example(sample: Sample) -> _Example:
    note = "" if sample.note == sample.places[0].excerpt else sample.note
    if len(sample.places) != 2:
        columns = tuple((place, [Marked(place.excerpt, differs=False)]) for place in sample.places)
        return _Example(note, columns, compared=False)
    a, b = sample.places
    left, right = differences(a.excerpt, b.excerpt)
    return _Example(note, ((a, left), (b, right)), compared=a.excerpt != b.excerpt)


def _problems(finding: Finding, report: Report) -> list[str]:
    """The unreadable rows by name, but for those that the samples show."""
    shown = {place.line for sample in finding.samples for place in sample.places}
    return [str(problem) for problem in words.problems(finding, report) if problem.line not in shown]


def _pieces(shown: Shown) -> Iterator[tuple[str, bool]]:
    for piece in shown.pieces:
        text, most = redact(piece.text), _SHOWN_CHARACTERS
        if len(text) > most:
            left_out = words.count(len(text) - most, "character")
            text = f"{text[: most * 2 // 3]} … {left_out} left out … {text[-(most // 3) :]}"
        yield text, piece.trained
