"""`pegbox check`: know the data before money is spent on it. Needs no server and no torch."""

import gc
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import existing_file, find_base, read_settings
from pegbox.cli.progress import through_files
from pegbox.data.formats import METHODS
from pegbox.errors import CommandFailed

FAILED = 1  # exit status where a finding is as grave as --fail-on says


def check(
    train: Annotated[Path, typer.Argument(help="The training file.", metavar="TRAIN")],
    valid: Annotated[Path | None, typer.Option(help="The validation file.", metavar="FILE")] = None,
    model: Annotated[str | None, typer.Option(help="The base model to tune, or one of its aliases.")] = None,
    method: Annotated[str | None, typer.Option(help=f"One of {', '.join(METHODS)}; guessed if not given.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Formats, tokens, epochs and cost only.")] = False,
    expected_refusals: Annotated[
        float | None, typer.Option(help="The share of refusals you want in production, like 0.05.", min=0, max=1)
    ] = None,
    fail_on: Annotated[
        str, typer.Option(help="error, warning, info, never, or codes like Q09,Q12: what makes the exit status 1.")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="Print it as SARIF, for code review.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write it as one HTML page to this file.", metavar="FILE")] = None,
    openai_tokens: Annotated[
        bool, typer.Option("--openai-tokens", help="Also count tokens by OpenAI's rule, about (needs tiktoken).")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="Spend at most about this long.", min=0)] = None,
    price: Annotated[float | None, typer.Option(help="Price of a million training tokens.", min=0)] = None,
) -> None:
    """Say what is wrong with a training file, what a job would cost, and what to mend first."""
    if method is not None and method not in METHODS:
        raise CommandFailed(f"there is no method {method}; use one of {', '.join(METHODS)}.")
    from pegbox.catalog.target import target_of
    from pegbox.data.check import check as run
    from pegbox.data.quality.codes import CODES
    from pegbox.jobs.foresee import estimator

    gc.set_threshold(50_000)  # rows come and go in thousands; what they leave behind is no cycles
    wanted = _policy(fail_on, list(CODES))
    settings = read_settings()
    resolved = find_base(settings, model)
    with through_files() as tick:
        report = run(
            existing_file(train), existing_file(valid) if valid else None, method=method, quick=quick,
            target=target_of(resolved, price) if resolved else None,
            foresee=estimator(settings, resolved.base) if resolved else None,
            expected_refusals=expected_refusals, seconds=seconds, openai_tokens=openai_tokens, tick=tick,
            names=[str(path) for path in (train, valid) if path] if as_sarif else (),
        )  # fmt: skip
    if html is not None:
        from pegbox.data.views.as_html import as_html

        html.write_text(as_html(report), "utf-8")
        screen.note(f"Wrote {html}; open it in a browser.")
    if as_json:
        from pegbox.data.views.as_json import json_bytes

        sys.stdout.buffer.write(json_bytes(report))
    elif as_sarif:
        from pegbox.data.views.as_sarif import as_sarif as drawn

        screen.say(json.dumps(drawn(report), ensure_ascii=False, indent=1))
    else:
        from pegbox.data.views.as_text import as_text

        sys.stdout.write(as_text(report, screen.out.width, colour=screen.on_terminal()))
    if any(finding.code in wanted or str(finding.severity) in wanted for finding in report.findings):
        raise typer.Exit(FAILED)


def _policy(fail_on: str, codes: list[str]) -> set[str]:
    """The severities and codes that fail the command. Raises CommandFailed for a word that means nothing."""
    order = ["error", "warning", "info"]
    wanted: set[str] = set()
    for word in (part.strip() for part in fail_on.split(",")):
        if word in order:
            wanted.update(order[: order.index(word) + 1])
        elif word.upper() in codes:
            wanted.add(word.upper())
        elif word != "never":
            raise CommandFailed(f"--fail-on takes error, warning, info, never or codes like Q09, not {word!r}.")
    return wanted
