"""The report as a page: hostile rows stay text, and a real browser shows it well in light and dark, wide and narrow."""

import base64
import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import chromium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_report import FACTS, FINDINGS, HOSTILE, empty_report, pairs, sample_report

from pegbox.data.quality.findings import finding
from pegbox.data.report import Piece, Report, Shown
from pegbox.data.views import words
from pegbox.data.views.as_html import as_html

needs_chromium = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed")
VOID = {"meta", "link", "br", "img", "rect", "line", "input", "hr"}
ALLOWED = {
    "html", "head", "meta", "link", "title", "style", "body", "a", "header", "p", "h1", "h2", "h3", "h4", "main", "section", "svg",
    "rect", "line", "text", "ul", "li", "span", "dl", "div", "dt", "dd", "figure", "figcaption", "article", "b", "code", "mark",
    "bdi", "details", "summary", "footer",
}  # fmt: skip


@dataclass
class Parsed(HTMLParser):
    """A page's elements and text, as an independent parser sees them."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    style: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def values(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]


def parsed(page: str) -> Parsed:
    parser = Parsed()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def poisoned(text: str) -> Report:
    """A report in which that text stands wherever a row's or a file's text can."""
    odd = finding("Q09", "odd", text, count=1, rows=2, samples=[pairs(3, text, 8, text[::-1], text)], fix=text)
    facts = replace(FACTS, name=text, problems=tuple(replace(p, text=text) for p in FACTS.problems))
    shown = Shown(3, (Piece(text, trained=False), Piece(text, trained=True)))
    return replace(
        sample_report(), training=facts, findings=(odd, FINDINGS[0]), examples=(shown,), not_run={"Q08": text}
    )


# --- what is written -----------------------------------------------------------------------------------------


def check_harmless(page: str) -> Parsed:
    """Nothing but known elements, no script, no handler, no inline style, nothing to load."""
    found = parsed(page)
    assert {tag for tag, _ in found.tags} <= ALLOWED
    names = {name for _, attributes in found.tags for name in attributes}
    assert not [
        name for name in names if name.startswith("on") or name in ("style", "src", "srcset", "action", "xlink:href")
    ]
    assert all(value.startswith("#") or value == "data:," for value in found.values("href"))
    assert "@import" not in found.style
    assert "url(" not in found.style
    return found


@pytest.mark.parametrize("make", [sample_report, empty_report])
def test_the_page_is_one_file_that_loads_and_runs_nothing(make) -> None:
    page = as_html(make())
    found = check_harmless(page)
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert page == as_html(make())


@pytest.mark.parametrize(
    "text", [HOSTILE, '"><svg onload=alert(1)>', "' autofocus onfocus=alert(1) x='", "</style><script>alert(1)</script>",
             "<!--", "]]>", "&lt;script&gt;", "{{ config }}{% raw %}", "javascript:alert(1)", "\u2066evil\u2069", "`<b>x</b>`"],
)  # fmt: skip
def test_hostile_rows_stay_text(text: str) -> None:
    found = check_harmless(as_html(poisoned(text)))
    wanted = " ".join(words.visible(text).replace("`", "").split())
    assert found.text.replace("`", "").count(wanted) >= 6


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=40))
def test_no_text_breaks_the_page(text: str) -> None:
    page = as_html(poisoned(text))
    check_harmless(page)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)


def test_everything_that_was_found_is_told() -> None:
    report = sample_report()
    text = parsed(as_html(report)).text
    for found in report.findings:
        for told in (found.text, found.code, words.where(found), found.fix.replace("`", "")):
            assert told in text
        for sample in found.samples:
            for place in sample.places:
                assert " ".join(words.visible(place.excerpt).split()) in text
    for told in (
        words.verdict(report),
        words.rows(report.training),
        words.plan(report.plan),
        words.estimate(report.estimate),
    ):
        assert told in text
    for problem in report.training.problems:
        assert words.visible(str(problem)) in text
    for line in words.not_run(report):
        assert line in text


def test_what_is_learnt_is_marked_in_words_too() -> None:
    page = as_html(sample_report())
    learnt = re.findall(r'<mark class="learnt"><span class="unseen">Learnt: </span><bdi[^>]*>([^<]*)</bdi>', page)
    assert learnt == ["workshop&lt;|im_end|&gt;", "返品・交換&lt;|im_end|&gt;", "配送&lt;|im_end|&gt;"]


def test_a_long_piece_keeps_its_ends() -> None:
    text = "start" + "x" * 5_000 + "end"
    report = replace(sample_report(), examples=(Shown(1, (Piece(text, trained=False),)),))
    told = parsed(as_html(report)).text
    assert "start" in told
    assert "xend" in told
    assert "… 4,108 characters left out …" in told


def test_references_inside_the_page_lead_somewhere() -> None:
    found = parsed(as_html(sample_report()))
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in found.values("href") if value != "data:,"} <= set(ids)
    assert {part for value in found.values("aria-labelledby") for part in value.split()} <= set(ids)
    headings = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


# --- what a browser shows ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab() -> Iterator[chromium.Page]:
    with chromium.browser() as page:
        yield page


@pytest.fixture
def address(tmp_path: Path) -> str:
    path = tmp_path / "report.html"
    path.write_text(as_html(sample_report()), "utf-8")
    return path.as_uri()


COLOURS = "(e => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color])()"


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of `rgb(…)`."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_looks_right(tab: chromium.Page, address: str, tmp_path: Path, width: int, dark: bool) -> None:
    tab.look(width, dark=dark)
    tab.open(address)
    picture = tab.screenshot(tmp_path / "page.png")
    shown_width, shown_height = struct.unpack(">II", picture[16:24])
    assert shown_width == width
    assert shown_height > 2_000
    assert len(picture) > 50_000
    assert tab.complaints() == []
    assert tab.requests() == [address]
    assert tab.run("document.documentElement.scrollWidth") <= width
    # Nothing sticks out of what holds it, but what is hidden from sight on purpose.
    wide = "[...document.querySelectorAll('main *:not(.unseen)')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    assert tab.run(wide) == 0
    back, ink = tab.run(COLOURS)
    assert (luminance(back) < 0.05) == dark
    assert contrast(back, ink) >= 7


TEXTS = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.unseen, .skip, title') &&
  [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const style = getComputedStyle(e);
    let under = e;
    while (under && getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
    return [e.closest('svg') ? style.fill : style.color, getComputedStyle(under || document.body).backgroundColor, e.outerHTML];
  })"""


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_can_be_read(tab: chromium.Page, address: str, dark: bool) -> None:
    """WCAG 2.2 AA: a contrast of 4.5."""
    tab.look(1200, dark=dark)
    tab.open(address)
    texts = tab.run(TEXTS)
    assert len(texts) > 100
    assert [html[:120] for ink, back, html in texts if contrast(ink, back) < 4.5] == []


@needs_chromium
def test_dark_is_another_page_and_pairs_stand_side_by_side_where_there_is_room(
    tab: chromium.Page, address: str
) -> None:
    seen = {}
    for dark in (False, True):
        tab.look(1200, dark=dark)
        tab.open(address)
        seen[dark] = tab.run(
            "['body', '.finding', 'mark', 'mark.learnt', '.chip', '.bin'].map(s => "
            "{const c = getComputedStyle(document.querySelector(s)); return [c.color, c.backgroundColor, c.fill].join()})"
        )
    assert all(a != b for a, b in zip(seen[False], seen[True], strict=True))
    tops = "[...document.querySelectorAll('.columns')].filter(c => c.children.length === 2).map(c => [...c.children].map(p => Math.round(p.getBoundingClientRect().top)))"
    assert all(left == right for left, right in tab.run(tops))
    tab.look(390)
    tab.open(address)
    assert all(left < right for left, right in tab.run(tops))


@needs_chromium
def test_the_page_can_be_heard(tab: chromium.Page, address: str) -> None:
    """What a screen reader meets: landmarks, headings, drawings with words, the findings by name."""
    tab.look(1200)
    tab.open(address)
    met = tab.accessibility()
    roles = {role for role, _ in met}
    assert {"banner", "main", "contentinfo", "region", "article", "heading", "list", "image"} <= roles
    articles = [name for role, name in met if role == "article"]
    assert articles == [found.text for found in FINDINGS]
    drawings = [name for role, name in met if role == "image"]
    assert drawings[0] == "Tokens a row: A row has 31 to 2,044 tokens, half have 121 or fewer."
    assert all(drawings)
    heard = [name for role, name in met if role == "StaticText"]
    assert heard.count("Learnt: ") + heard.count("Learnt:") == 3


@needs_chromium
def test_the_keyboard_reaches_the_findings(tab: chromium.Page, address: str) -> None:
    tab.look(1200)
    tab.open(address)
    for key in ("Tab", "Enter"):
        tab.press(key)
    assert tab.run("[location.hash, document.activeElement.id]") == ["#findings", "findings"]
    tab.press("Tab")
    assert tab.run("document.activeElement.tagName") == "SUMMARY"


@needs_chromium
def test_hostile_rows_run_nothing_in_a_browser(tab: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    page = as_html(poisoned(HOSTILE))
    tab.look(390)
    path.write_text(page, "utf-8")
    tab.open(path.as_uri())
    assert (tab.complaints(), tab.dialogs(), tab.requests()) == ([], 0, [path.as_uri()])
    assert tab.run("document.scripts.length + document.images.length") == 0
    assert tab.run("document.documentElement.scrollWidth") <= 390
    # And if one got through after all, the policy stops it.
    path.write_text(
        page.replace("</main>", "<script>document.title = 'run'</script><img src='https://example.com/x.png'></main>"),
        "utf-8",
    )
    tab.open(path.as_uri())
    assert tab.run("document.title") != "run"
    assert sum("Content Security Policy" in text for text in tab.complaints()) >= 2


@needs_chromium
def test_the_page_prints(tab: chromium.Page, address: str) -> None:
    tab.look(1200, dark=True, media="print")
    tab.open(address)
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) in range(2, 9)


@needs_chromium
def test_an_empty_file_has_a_page_too(tab: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(as_html(empty_report()), "utf-8")
    tab.look(390, dark=True)
    tab.open(path.as_uri())
    assert tab.complaints() == []
    assert "No row of this file can be trained on" in tab.run("document.body.innerText")
