"""Q01, Q04 and Q05: what the reader itself found, as findings."""

import re
from collections.abc import Iterator

import numpy as np

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.findings import MAX_LINES, Finding, Place, Sample, finding
from pegbox.data.quality.text import excerpt
from pegbox.data.survey import Survey, Target

MIN_EXAMPLES = 10  # the API's rule
CODES = ("Q01", "Q04", "Q05")
_LIMITS = (512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536)
_MANY_CUT = 0.2  # of rows: from here on cutting is an error
_LITTLE_LEARNT = 0.01  # of tokens


def findings(found: Survey, target: Target | None, least: int = MIN_EXAMPLES) -> Iterator[Finding]:
    """In the order of codes. `least` is how many rows a job wants."""
    yield from _unreadable(found)
    if found.corpus.which == "training" and found.rows < least:
        yield finding(
            "Q04", "too-few", f"The file has {found.rows:,} {_rows(found.rows)}; a job wants at least {least}.",
            count=found.rows, rows=found.rows, fix="Collect more: improvements show from 50 to 100 good rows.",
        )  # fmt: skip
    if target is not None and found.tokens and found.corpus.method != "reinforcement":
        yield from _nothing_learnt(found, target)
        yield from _truncated(found, target)


def _unreadable(found: Survey) -> Iterator[Finding]:
    kinds: dict[str, list[int]] = {}
    for i, problem in enumerate(found.problems):
        kinds.setdefault(_kind(problem.text, problem.where, is_format=problem.is_format), []).append(i)
    named = len(found.problems)
    for kind, which in kinds.items():
        problems = [found.problems[i] for i in which]
        # Beyond the first hundred nobody reads on; their number is told with the first kind.
        count = len(problems) + (found.bad - named if kind == next(iter(kinds)) else 0)
        first = excerpt(str(problems[0]).removesuffix(f" (line {problems[0].line})"))
        text = f"{count:,} {_rows(count)} can't be read ({kind.replace('-', ' ')}). {first}."
        yield finding(
            "Q01", kind, text, count=count, rows=found.rows, file=found.corpus.which,
            lines=[problem.line for problem in problems],
            samples=[
                Sample((Place(p.line, p.where, excerpt(p.text), found.corpus.which),), excerpt(p.text))
                for p in problems
            ],
        )  # fmt: skip


def _kind(text: str, where: str, *, is_format: bool) -> str:
    """A short name for what is wrong, for filters and statistics."""
    for words, kind in _SIGNS:
        if re.search(words, text):
            return kind
    if not is_format and not where:
        return "template-refuses"
    return "unknown-format" if is_format else "bad-field"


_SIGNS = (
    ("UTF-8|UTF-16", "not-utf-8"),
    ("not valid JSON|CR alone", "not-json"),
    ("appears twice", "duplicate-key"),
    ("surrogate", "lone-surrogate"),
    ("levels deep", "too-deep"),
    ("bytes long", "line-too-long"),
    ("NaN|Infinity|not JSON|number|digits", "bad-number"),
    ("not a JSON object", "not-an-object"),
    ("no assistant message|nothing to learn", "no-answer"),
    ("extra|unrecognized key", "unknown-key"),
    ("role", "bad-role"),
    ("format", "mixed-formats"),
)


def _nothing_learnt(found: Survey, target: Target) -> Iterator[Finding]:
    if found.empty:
        count = len(found.empty)
        said = "lose an answer whole" if found.corpus.method == "dpo" else "have nothing left to learn"
        text = (
            f"Cut at {target.limit:,} tokens, {count:,} {_rows(count)} {said}; "
            f"{'it is' if count == 1 else 'they are'} left out."
        )
        yield finding(
            "Q04", "nothing-left", text, count=count, rows=found.rows, lines=found.empty_lines,
            fix="Shorten what stands before the answer.", file=found.corpus.which,
        )  # fmt: skip
    share = found.kept_trained / found.kept if found.kept else 0.0
    if found.kept and share < _LITTLE_LEARNT:
        text = f"Only {share:.2%} of the tokens are learnt; the rest is context that is computed for nothing else."
        yield finding(
            "Q04", "small-share", text, count=found.used, rows=found.rows, severity=Severity.WARNING,
            fix="Shorten the prompts: a tuned model needs fewer instructions.", data={"share": share},
            file=found.corpus.which,
        )  # fmt: skip


def _truncated(found: Survey, target: Target) -> Iterator[Finding]:
    if not found.cut_rows:
        return
    lengths = found.row_tokens.load()
    lost = found.cut_trained / found.trained if found.trained else 0.0
    share = found.cut_rows / found.rows
    text = (
        f"{found.cut_rows:,} of {found.rows:,} rows are longer than {target.limit:,} tokens and are cut at the end; "
        f"{found.cut_trained:,} tokens to learn ({lost:.1%}) are lost."
    )
    longer = {str(limit): int(np.count_nonzero(lengths > limit)) for limit in _LIMITS}
    yield finding(
        "Q05", "over-limit", text, count=found.cut_rows, rows=found.rows, threshold=0.0, lines=found.cut_lines,
        severity=Severity.ERROR if share > _MANY_CUT else Severity.WARNING, file=found.corpus.which,
        data={"limit": target.limit, "lost_tokens": found.cut_trained, "lost_share": lost, "rows_longer_than": longer,
              "longest": int(lengths.max())},
    )  # fmt: skip


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


assert MAX_LINES >= 100, "all named problems have their line in the finding"
