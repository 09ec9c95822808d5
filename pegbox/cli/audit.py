"""`pegbox audit`: who changed keys and projects."""

import json
from itertools import islice
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.local import connect
from pegbox.wire.base import Page
from pegbox.wire.organization import AuditEntry


def audit(
    ctx: typer.Context, limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 20
) -> None:
    """Show who changed keys and projects, newest first."""
    with connect(ctx) as api:
        found = list(islice(api.pages("/organization/audit_logs", Page[AuditEntry]), limit))
    columns = ("time", "change", "of", "by", "in", "particulars")
    screen.table(columns, (_row(entry) for entry in found))


def _row(entry: AuditEntry) -> tuple[str, ...]:
    change = entry.change
    return (
        screen.moment(entry.effective_at),
        entry.type,
        change.id if change else "",
        entry.actor.api_key.id or "the server",
        entry.project.id,
        json.dumps(change.data, ensure_ascii=False) if change and change.data else "",
    )
