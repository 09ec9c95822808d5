"""`pegbox jobs receipt` and `pegbox jobs rows`: what a job can show for itself."""

from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.client import path
from pegbox.cli.local import connect
from pegbox.cli.screen import Cell
from pegbox.errors import CommandFailed
from pegbox.wire.receipt import Check, JobRow, JobRows, Receipt

JobId = Annotated[str, typer.Argument(help="ftjob-…")]
_STYLES = {"passed": "green", "warned": "yellow", "failed": "bold red"}


def show(ctx: typer.Context, job_id: JobId) -> None:
    """Show what was checked before a job's model was published."""
    with connect(ctx) as api:
        found = api.get(path("fine_tuning", "jobs", job_id, "receipt"), Receipt)
    screen.facts(
        (
            ("job", found.fine_tuning_job_id),
            ("receipt", found.status),
            ("base", f"{found.base} ({found.base_fingerprint[:12]})" if found.base_fingerprint else found.base),
            ("trained on from", found.trained_on_from),
            ("method", f"{found.method}, seed {found.seed}, step {found.step}, {found.dtype}, {found.threads} threads"),
            ("versions", ", ".join(f"{name} {number}" for name, number in found.versions.items())),
            *((f"sha256 of {name}", digest) for name, digest in found.sha256.items()),
            ("made", f"{screen.moment(found.created_at)}, in {found.seconds:.1f} s"),
        )
    )
    screen.say()
    screen.table(("check", "status", "what was found"), [_check(check) for check in found.checks])


def _check(check: Check) -> tuple[str, Cell, str]:
    status = check.status if check.ran else "not run"
    said = check.text if check.status == "passed" else f"{check.text} {check.remedy or ''}".strip()
    return check.name, Cell(status, _STYLES[check.status]), said


def rows(
    ctx: typer.Context,
    job_id: JobId,
    hardest: Annotated[int | None, typer.Option(min=1, max=1_000, help="Rows that cost most at the end.")] = None,
    suspect: Annotated[int | None, typer.Option(min=1, max=1_000, help="Rows that look wrong.")] = None,
    easiest: Annotated[int | None, typer.Option(min=1, max=1_000, help="Rows that cost least.")] = None,
) -> None:
    """Show what training rows cost the model, epoch by epoch: how many, and which; the 30 hardest if not said."""
    asked = {"hardest": hardest, "suspect": suspect, "easiest": easiest}
    chosen = {order: limit for order, limit in asked.items() if limit is not None} or {"hardest": 30}
    if len(chosen) > 1:
        raise CommandFailed("give one of --hardest, --suspect and --easiest.")
    order, limit = next(iter(chosen.items()))
    with connect(ctx) as api:
        found = api.get(path("fine_tuning", "jobs", job_id, "rows"), JobRows, order=order, limit=limit)
    if found.data:
        shown = ("line", "loss", *(("by epoch",) if found.epochs > 2 else ()), "remark", "asked", "answer")
        screen.table(shown, [_row(row, curve=found.epochs > 2) for row in found.data])
    screen.note(
        f"{found.rows} rows, {found.epochs} epochs: {found.looks_mislabelled} look mislabelled, "
        f"{found.never_learnt} were never learnt."
    )


def _row(row: JobRow, *, curve: bool) -> tuple[str | Cell, ...]:
    remark = "looks mislabelled" if row.looks_mislabelled else "never learnt" if row.never_learnt else ""
    line = str(row.line) if row.line is not None else f"example {row.example}"
    epochs = (" ".join(f"{loss:.2f}" for loss in row.losses),) if curve else ()
    loss = f"{row.first:.2f} → {row.last:.2f}"
    return line, loss, *epochs, Cell(remark, "yellow"), row.asked or "-", row.answer or "-"
