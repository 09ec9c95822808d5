"""The data desk: what is wrong with a training file, what it would cost, what to mend first.

The command line, the upload and the job all come through here.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from pegbox.data import reading
from pegbox.data import survey as surveys
from pegbox.data.epochs import auto_epochs
from pegbox.data.quality.base import Check, Context, Deadline
from pegbox.data.quality.codes import CODES, Severity
from pegbox.data.quality.findings import Finding
from pegbox.data.quality.rendering import RenderingCheck
from pegbox.data.report import Piece, Plan, Report, Shown
from pegbox.data.rows import guess_method
from pegbox.data.survey import Survey, Target
from pegbox.data.render import render

CHECKS: tuple[Callable[[Context], Check], ...] = (RenderingCheck,)
_SHOWN_ROWS = 3
_GRAVITY = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


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
    tick: Callable[[str, int, int], None] = lambda *_: None,
) -> Report:
    """Read the files and say what is to be said.

    `method` is guessed from the first row where it is None. `quick` leaves the quality checks out. `seconds` is the
    time that may be spent: what there is no time for is named in `not_run`. `tick(name, done, total)` hears of
    progress, in bytes. `openai_tokens` adds a count by OpenAI's rule; raises DataError where tiktoken is missing.
    """
    began = time.monotonic()
    deadline = Deadline.after(seconds) if seconds is not None else Deadline()
    context = Context(
        template=target.template if target else None,
        base_folder=target.folder if target else None,
        limit=target.limit if target else 0,
        expected_refusals=expected_refusals,
        deadline=deadline,
    )
    with ExitStack() as stack:
        file = stack.enter_context(training.open("rb"))
        method = method or guess_method(file)
        checks = [] if quick else _checks(context)

        def read(path: Path, which: str, content: BinaryIO, checks: Sequence[Check]) -> Survey:
            size = path.stat().st_size
            return surveys.survey(
                content, method=method, which=which, target=target, context=context, checks=checks, keep=not quick,
                tick=lambda done: tick(path.name, done, size),
            )  # fmt: skip

        trained = read(training, "training", file, checks)
        validated = read(valid, "validation", stack.enter_context(valid.open("rb")), ()) if valid else None
        findings = [*reading.findings(trained, target), *(reading.findings(validated, target) if validated else [])]
        not_run: dict[str, str] = {}
        if quick:
            not_run = dict.fromkeys([code for code in CODES if code not in reading.CODES], "not asked for")
        else:
            findings += _look(trained, validated, checks, not_run)
        return Report(
            training=surveys.facts(trained, training.name, training.stat().st_size),
            validation=surveys.facts(validated, valid.name, valid.stat().st_size) if validated and valid else None,
            plan=plan(trained, target) if target else None,
            estimate=None,
            findings=tuple(sorted(findings, key=lambda f: (_GRAVITY[f.severity], f.code, f.kind))),
            not_run=not_run,
            examples=_shown(trained, target) if target and checks else (),
            seconds=time.monotonic() - began,
        )


def plan(found: Survey, target: Target) -> Plan | None:
    """What a job would do by default. None where no row is good."""
    if not found.used:
        return None
    epochs, reason = auto_epochs(found.used)
    tokens = found.kept * epochs
    cost = tokens / 1e6 * target.price if target.price else None
    return Plan(target.name, target.limit, epochs, reason, tokens, target.price, cost)


def _checks(context: Context) -> list[Check]:
    """One of each, fresh: a check remembers what it saw."""
    return [make(context) for make in CHECKS]


def _look(trained: Survey, validated: Survey | None, checks: Sequence[Check], not_run: dict[str, str]) -> list[Finding]:
    """What the checks found, as long as there is time."""
    findings: list[Finding] = []
    for one in checks:
        if trained.corpus.context.deadline.over:
            not_run.update(dict.fromkeys(one.codes, "no time was left"))
        else:
            findings += one.found(trained.corpus)
    return findings


def _shown(found: Survey, target: Target) -> tuple[Shown, ...]:
    """Some rows as the model will see them: the first, one of the middle, the last."""
    n = len(found.corpus)
    shown = []
    for i in sorted({0, n // 2, n - 1} if n else ()):
        line = found.corpus.lines[i]
        for segments in render(found.corpus.record(i), target.template)[:1]:
            shown.append(Shown(line, tuple(Piece(segment.text, segment.trained) for segment in segments)))
    return tuple(shown[:_SHOWN_ROWS])
