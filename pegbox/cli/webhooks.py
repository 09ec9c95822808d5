"""`pegbox webhooks`: who is told when a job ends."""

from itertools import islice
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.client import path
from pegbox.cli.local import connect
from pegbox.cli.screen import Cell
from pegbox.errors import CommandFailed
from pegbox.wire.base import Deleted, Page
from pegbox.wire.webhooks import EVENT_TYPES, Attempt, Delivery, Endpoint, EndpointWithSecret, TestResult

app = typer.Typer(
    name="webhooks",
    help="Programs that are told when a job ends.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
EndpointId = Annotated[str, typer.Argument(help="whe_…", metavar="ID")]
KeepOld = Annotated[bool, typer.Option("--keep-old", help="Sign with the old secret as well for 24 hours.")]
Sample = Annotated[str, typer.Option("--event", help="The event to send a sample of.")]
Limit = Annotated[int, typer.Option(min=1, max=100, help="How many of the newest to show.")]
Events = Annotated[list[str] | None, typer.Option("--event", help="An event to tell of; may be given again.")]
_STYLES = {"delivered": "green", "failed": "red", "pending": "yellow"}
_SECRET_NOTE = "The secret is shown this once; the receiver needs it as OPENAI_WEBHOOK_SECRET."  # noqa: S105 - a sentence


@app.command("create")
def create(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="Where to send events: https://…")],
    name: Annotated[str, typer.Option(help="What to call it.")] = "webhook",
    events: Events = None,
) -> None:
    """Make an endpoint; its id and its secret are the only things on standard output."""
    body: dict[str, object] = {"name": name, "url": url, "event_types": events or list(EVENT_TYPES)}
    with connect(ctx) as api:
        made = api.post("/webhook_endpoints", EndpointWithSecret, body)
    screen.say(made.id)
    screen.say(made.signing_secret)
    screen.note(_SECRET_NOTE)


@app.command("list")
def list_endpoints(ctx: typer.Context, limit: Limit = 20) -> None:
    """List endpoints, newest first."""
    with connect(ctx) as api:
        found = list(islice(api.pages("/webhook_endpoints", Page[Endpoint]), limit))
    if not found:
        screen.note("There are no webhook endpoints. Make one with `pegbox webhooks create https://…`.")
        return
    shown = ((e.id, e.name, e.url, ", ".join(e.event_types), "on" if e.enabled else "off") for e in found)
    screen.table(("endpoint", "name", "url", "events", "state"), shown)


@app.command("update")
def update(
    ctx: typer.Context,
    endpoint_id: EndpointId,
    url: Annotated[str | None, typer.Option(help="A new URL.")] = None,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    events: Events = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Send it events, or none.")] = None,
) -> None:
    """Change an endpoint; what is not named stays as it is."""
    wish = {"url": url, "name": name, "event_types": events or None, "enabled": enabled}
    body: dict[str, object] = {key: value for key, value in wish.items() if value is not None}
    if not body:
        raise CommandFailed("nothing is to be changed: give --url, --name, --event, --on or --off.")
    with connect(ctx) as api:
        changed = api.post(path("webhook_endpoints", endpoint_id), Endpoint, body)
    _show(changed)


@app.command("delete")
def delete(ctx: typer.Context, endpoint_id: EndpointId) -> None:
    """Delete an endpoint with its log."""
    with connect(ctx) as api:
        gone = api.delete(path("webhook_endpoints", endpoint_id), Deleted)
    screen.say(f"{gone.id} is deleted.")


@app.command("rotate")
def rotate(ctx: typer.Context, endpoint_id: EndpointId, keep_old: KeepOld = False) -> None:
    """Make a new secret, the only thing on standard output."""
    body: dict[str, object] = {"keep_old_secret_active_for_24_hours": keep_old}
    with connect(ctx) as api:
        made = api.post(path("webhook_endpoints", endpoint_id, "rotate_secret"), EndpointWithSecret, body)
    screen.say(made.signing_secret)
    screen.note(_SECRET_NOTE)


@app.command("test")
def send_sample(ctx: typer.Context, endpoint_id: EndpointId, event: Sample = EVENT_TYPES[0]) -> None:
    """Send a sample event now, and show what the receiver answered."""
    with connect(ctx) as api:
        result = api.post(path("webhook_endpoints", endpoint_id, "test"), TestResult, {"event_type": event})
    screen.say(f"{result.event_type} was answered with {result.status_code}.")
    if not 200 <= result.status_code < 300:
        screen.note("Only 2xx counts as delivered.")


@app.command("deliveries")
def list_deliveries(ctx: typer.Context, endpoint_id: EndpointId, limit: Limit = 20) -> None:
    """Show what became of the events for an endpoint, newest first."""
    with connect(ctx) as api:
        pages = api.pages(path("webhook_endpoints", endpoint_id, "deliveries"), Page[Delivery])
        found = list(islice(pages, limit))
    if not found:
        screen.note("Nothing was to be told yet.")
        return
    screen.table(("when", "event", "job", "status", "attempts", "last answer"), [_row(told) for told in found])


def _row(told: Delivery) -> tuple[str | Cell, ...]:
    last = _said(told.attempts[-1]) if told.attempts else "-"
    if told.next_attempt_at is not None and told.attempts:
        last += f"; next at {screen.moment(told.next_attempt_at)}"
    status = Cell(told.status, _STYLES[told.status])
    when = screen.moment(told.created_at)
    return when, told.event_type, told.fine_tuning_job_id, status, str(len(told.attempts)), last


def _said(attempt: Attempt) -> str:
    return attempt.error or f"{attempt.status_code} in {attempt.milliseconds} ms"


def _show(endpoint: Endpoint) -> None:
    screen.facts(
        (
            ("endpoint", endpoint.id),
            ("name", endpoint.name),
            ("url", endpoint.url),
            ("events", ", ".join(endpoint.event_types)),
            ("state", "on" if endpoint.enabled else "off"),
        )
    )
