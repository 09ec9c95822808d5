"""The data desk: what is wrong with a training file, what it would cost, what to mend first.

The command line, the upload and the job all come through here.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pegbox.data import reading
from pegbox.data.epochs import epochs_for
from pegbox.data.openai_count import count_openai
from pegbox.data.quality.affixes import Affixes
from pegbox.data.quality.balance import Balance
from pegbox.data.quality.base import Check, Context, Deadline
from pegbox.data.quality.boilerplate import Boilerplate
from pegbox.data.quality.characters import Characters
from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.contradictions import Contradictions
from pegbox.data.quality.duplicates import Duplicates
from pegbox.data.quality.endings import Endings
from pegbox.data.quality.findings import Finding
from pegbox.data.quality.grounding import Grounding
from pegbox.data.quality.languages import Languages
from pegbox.data.quality.leakage import leaks
from pegbox.data.quality.lengths import Lengths
from pegbox.data.quality.markers import Markers
from pegbox.data.quality.order import Order
from pegbox.data.quality.preferences import Preferences
from pegbox.data.quality.profile import Profile
from pegbox.data.quality.refusals import Refusals
from pegbox.data.quality.rendering import Rendering
from pegbox.data.quality.secrets import Secrets, redact
from pegbox.data.quality.turns import Turns
from pegbox.data.render import render
from pegbox.data.report import Estimate, Piece, Plan, Report, Shown
from pegbox.data.rows import guess_method
from pegbox.data.survey import Survey, Target, facts, survey

CHECKS: tuple[type[Check], ...] = (
    # Languages first: what comes after has its memory.
    Languages, Turns, Rendering, Duplicates, Contradictions, Refusals, Secrets, Lengths, Endings, Balance, Profile,
    Boilerplate, Affixes, Markers, Characters, Order, Grounding, Preferences,
)  # fmt: skip
# Nobody learns from a validation file: its order says nothing, and labels are rare in it because it is small.
VALIDATION_CHECKS = tuple(kind for kind in CHECKS if kind not in (Order, Balance))
_GRAVITY = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(slots=True)
class Looked:
    """What was found in files that are still open."""

    training: Survey
    validation: Survey | None
    findings: list[Finding]
    not_run: dict[str, str]


Foresee = Callable[[Survey, Survey | None, Target], Estimate]


def check(
    training: Path,
    valid: Path | None = None,
    *,
    target: Target | None = None,
    method: str | None = None,
    quick: bool = False,
    expected_refusals: float | None = None,
    seconds: float | None = None,
    openai_tokens: bool = False,
    foresee: Foresee | None = None,
    names: Sequence[str] = (),
    tick: Callable[[str, int, int], None] = lambda *_: None,
) -> Report:
    """Read the files and say what is to be said.

    `method` is guessed from the first row where it is None. `quick` leaves the quality checks out. `seconds` is the
    time that may be spent: what there is no time for is named in `not_run`. `tick(name, done, total)` hears of
    progress, in bytes. `foresee` says how long a job would take. `openai_tokens` adds a count by OpenAI's rule; raises
    DataError where that can't be had. `names` are what to call the files, if not by their paths.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        contents = [(path.name, stack.enter_context(path.open("rb"))) for path in (training, valid) if path]
        looked = look(
            contents, target=target, method=method or guess_method(contents[0][1]), quick=quick,
            expected_refusals=expected_refusals, seconds=seconds, tick=tick,
        )  # fmt: skip
        sizes = [path.stat().st_size for path in (training, valid) if path]
        called = names or [name for name, _ in contents]
        report = report_of(looked, list(zip(called, sizes, strict=True)), target, foresee)
        if openai_tokens:
            report = replace(report, training=replace(report.training, openai_tokens=count_openai(contents[0][1])))
    return replace(report, seconds=time.monotonic() - began)


def look(
    contents: Sequence[tuple[str, BinaryIO]],
    *,
    target: Target | None,
    method: str,
    quick: bool = False,
    expected_refusals: float | None = None,
    seconds: float | None = None,
    with_digests: bool = False,
    tick: Callable[[str, int, int], None] = lambda *_: None,
) -> Looked:
    """The training file and, maybe, the validation file, read through and checked. They stay open."""
    context = Context(
        template=target.template if target else None,
        base_folder=target.folder if target else None,
        limit=target.limit if target else 0,
        expected_refusals=expected_refusals,
        deadline=Deadline.after(seconds) if seconds is not None else Deadline(),
    )
    kinds = {"training": CHECKS, "validation": VALIDATION_CHECKS}
    checks = {which: [] if quick else [make(context) for make in kinds[which]] for which in kinds}
    surveys: list[Survey] = []
    for (name, content), which in zip(contents, kinds, strict=False):
        read = survey(
            content,
            method=method,
            which=which,
            target=target,
            context=context,
            checks=checks[which],
            keep=not quick,
            with_digests=with_digests,
            tick=partial(tick, name),
        )
        surveys.append(read)
    training, validation = surveys[0], surveys[1] if len(surveys) > 1 else None
    looked = Looked(training, validation, [], {})
    for one in surveys:
        looked.findings += reading.findings(one, target)
    if quick:
        looked.not_run = dict.fromkeys([code for code in CODES if code not in reading.CODES], "not asked for")
    else:
        _judge(looked, checks["training"], checks["validation"])
    looked.findings.sort(key=lambda f: (_GRAVITY[f.severity], f.code, f.file, f.kind))
    return looked


def report_of(
    looked: Looked, sizes: Sequence[tuple[str, int]], target: Target | None, foresee: Foresee | None = None
) -> Report:
    """What was found, as facts. The files are still open; `sizes` are their names and bytes."""
    training, validation = looked.training, looked.validation
    return Report(
        training=facts(training, *sizes[0]),
        validation=facts(validation, *sizes[1]) if validation else None,
        plan=plan(training, target) if target else None,
        estimate=foresee(training, validation, target) if foresee and target and training.used else None,
        findings=tuple(looked.findings),
        not_run=looked.not_run,
        examples=_shown(training, target) if target else (),
    )


def headlines(looked: Looked, most: int = 8) -> list[Finding]:
    """The findings to tell a user who did not ask: errors and warnings, the gravest first."""
    return [finding for finding in looked.findings if finding.severity != Severity.INFO][:most]


def plan(found: Survey, target: Target) -> Plan | None:
    """What a job would do by default. None where no row is good."""
    if not found.used:
        return None
    epochs, reason = epochs_for(found.corpus.method, found.used)
    tokens = found.kept * epochs
    cost = tokens / 1e6 * target.price if target.price else None
    return Plan(target.name, target.limit, epochs, reason, tokens, target.price, cost)


def _judge(looked: Looked, checks: Sequence[Check], of_validation: Sequence[Check]) -> None:
    """What the checks found, as long as there is time: the training file first, then what the validation file has from
    it, then the validation file by itself."""
    corpus = looked.training.corpus
    for one in checks:
        if corpus.context.deadline.over:
            looked.not_run.update(dict.fromkeys(one.codes, "no time was left"))
        else:
            looked.findings += one.found(corpus)
    if looked.validation is None:
        looked.not_run["Q12"] = "no validation file was given"
        return
    validation = looked.validation.corpus
    if corpus.context.deadline.over:
        looked.not_run["Q12"] = "no time was left"
    else:
        looked.findings += leaks(corpus, validation)
    for one in of_validation:
        if corpus.context.deadline.over:
            late = dict.fromkeys(one.codes, "no time was left for the validation file")
            looked.not_run.update({code: why for code, why in late.items() if code not in looked.not_run})
        else:
            looked.findings += (_of_validation(found) for found in one.found(validation))


def _of_validation(found: Finding) -> Finding:
    """Checks that see one file at a time need not know which one it is."""
    samples = (replace(s, places=tuple(replace(p, file="validation") for p in s.places)) for s in found.samples)
    return replace(found, file="validation", samples=tuple(samples))


def _shown(found: Survey, target: Target) -> tuple[Shown, ...]:
    """Some rows as the model will see them: the first, one of the middle, the last."""
    n = len(found.corpus)
    shown = []
    for i in sorted({0, n // 2, n - 1} if n else ()):
        segments = render(found.corpus.record(i), target.template)[0]
        shown.append(Shown(found.corpus.lines[i], tuple(Piece(redact(s.text), s.trained) for s in segments)))
    return tuple(shown)
