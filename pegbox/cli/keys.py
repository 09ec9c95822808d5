"""`pegbox keys`: API keys of a project, for admin keys."""

import re
from itertools import islice
from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.client import Api, path
from pegbox.cli.local import connect
from pegbox.errors import CommandFailed
from pegbox.wire.base import Page
from pegbox.wire.organization import AccessWord, Key, KeyDeleted, Project

app = typer.Typer(name="keys", help="API keys.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
InProject = Annotated[str | None, typer.Option("--project", help="Whose keys, proj_…; your own key's if left out.")]
KeyId = Annotated[str, typer.Argument(help="key_…")]


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        AccessWord, typer.Option(help="read: look only; write: train and chat, too; admin: keys.")
    ] = "write",
    expires_in: Annotated[
        str | None, typer.Option(help="How long it lives, as 12h, 30d or 8w; for ever if unset.")
    ] = None,
    project: InProject = None,
) -> None:
    """Create a key. It is the only thing on standard output, and is never shown again."""
    body: dict[str, object] = {"name": name, "scope": scope}
    if expires_in is not None:
        body["expires_in_seconds"] = seconds(expires_in)
    with connect(ctx) as api:
        key = api.post(_keys(api, project), Key, body)
    _show(key)


@app.command("list")
def list_keys(
    ctx: typer.Context,
    project: InProject = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest to show.")] = 20,
) -> None:
    """List keys, newest first; none of them is shown whole."""
    with connect(ctx) as api:
        found = list(islice(api.pages(_keys(api, project), Page[Key]), limit))
    rows = (
        (key.id, key.name, key.scope, key.redacted_value, _state(key), screen.moment(key.created_at), _used(key))
        for key in found
    )
    screen.table(("key", "name", "scope", "begins…ends", "state", "created", "last used"), rows)


@app.command("rotate")
def rotate(
    ctx: typer.Context,
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old key stays good, as 1h or 7d; 0s ends it now.")] = "1d",
    project: InProject = None,
) -> None:
    """Replace a key by one like it. The new one is the only thing on standard output."""
    with connect(ctx) as api:
        key = api.post(f"{_keys(api, project)}{path(key_id, 'rotate')}", Key, {"overlap_seconds": seconds(overlap)})
    _show(key)
    screen.note(f"{key_id} stays good for {overlap}; revoke it with `pegbox keys revoke {key_id}` once nobody uses it.")


@app.command("revoke")
def revoke(ctx: typer.Context, key_id: KeyId, project: InProject = None) -> None:
    """End a key, at once and for good."""
    with connect(ctx) as api:
        gone = api.delete(f"{_keys(api, project)}{path(key_id)}", KeyDeleted)
    screen.say(f"{gone.id} is revoked.")


def seconds(text: str) -> int:
    """`90m` → 5400. Raises CommandFailed."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if found is None:
        raise CommandFailed(f'"{text}" is no length of time; write a number and s, m, h, d or w, as in 12h or 30d.')
    return int(found[1]) * _SECONDS[found[2]]


def _keys(api: Api, project: str | None) -> str:
    """Where the project's keys are. The first project that an admin key sees is its own."""
    if project is None:
        project = api.get("/organization/projects", Page[Project], limit=1).data[0].id
    return path("organization", "projects", project, "api_keys")


def _show(key: Key) -> None:
    screen.say(key.value or "")
    until = f", until {screen.moment(key.expires_at)}" if key.expires_at else ""
    screen.note(f"{key.id} ({key.name}) may {key.scope} in {key.project_id}{until}. It is shown this once.")


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.owner_project_access == "inactive":
        return "ended"
    return f"until {screen.moment(key.expires_at)}" if key.expires_at else "good"


def _used(key: Key) -> str:
    return screen.moment(key.last_used_at) if key.last_used_at else "never"
