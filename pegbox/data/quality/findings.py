"""What a check found, as facts that every view shows and every client can read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pegbox.data.quality.codes import CODES, Severity

MAX_SAMPLES = 5
MAX_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is."""

    line: int  # 1-based
    path: str  # "messages[1].content", "completion", …; "" is the whole row
    excerpt: str  # a short piece of the text, secrets redacted
    file: str = "training"  # or "validation"


@dataclass(frozen=True, slots=True)
class Sample:
    """An example of a finding: one place, or the two of a pair."""

    places: tuple[Place, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of trouble in one file."""

    code: str
    kind: str  # kebab-case; a code may have several kinds
    severity: Severity
    count: int  # rows (or pairs, as `text` says)
    share: float  # of the rows read, 0 to 1
    threshold: float | None  # above which the check speaks
    text: str  # a sentence with the figures
    fix: str
    samples: tuple[Sample, ...] = ()
    lines: tuple[int, ...] = ()  # 1-based, ascending; the first MAX_LINES
    data: Mapping[str, object] = field(default_factory=dict)  # further figures, JSON values
    file: str = "training"  # or "validation"


def finding(
    code: str,
    kind: str,
    text: str,
    *,
    count: int,
    rows: int,
    lines: Iterable[int] = (),
    samples: Iterable[Sample] = (),
    severity: Severity | None = None,
    threshold: float | None = None,
    fix: str | None = None,
    data: Mapping[str, object] | None = None,
    file: str = "training",
) -> Finding:
    """A finding, with what the table of codes says of it unless told otherwise. `count` is a share of `rows`."""
    of = CODES[code]
    return Finding(
        code=code,
        kind=kind,
        severity=of.severity if severity is None else severity,
        count=count,
        share=count / rows if rows else 0.0,
        threshold=of.threshold if threshold is None else threshold,
        text=text,
        fix=of.fix if fix is None else fix,
        samples=tuple(samples)[:MAX_SAMPLES],
        lines=tuple(sorted(set(lines))[:MAX_LINES]),
        data=data or {},
        file=file,
    )
