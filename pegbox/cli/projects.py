"""`pegbox projects`: whose files, jobs and models are kept apart; for admin keys."""

from typing import Annotated

import typer

from pegbox.cli import screen
from pegbox.cli.client import path
from pegbox.cli.local import connect
from pegbox.wire.base import Page
from pegbox.wire.organization import Project

app = typer.Typer(name="projects", help="Projects.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)
ProjectId = Annotated[str, typer.Argument(help="proj_…")]
Name = Annotated[str, typer.Argument(help="What to call it.")]


@app.command("create")
def create(ctx: typer.Context, name: Name) -> None:
    """Create a project; its id is the only thing on standard output."""
    with connect(ctx) as api:
        made = api.post("/organization/projects", Project, {"name": name})
    screen.say(made.id)
    screen.note(f"Give it a key with `pegbox keys create NAME --project {made.id}`.")


@app.command("list")
def list_projects(
    ctx: typer.Context, archived: Annotated[bool, typer.Option("--archived", help="Archived ones, too.")] = False
) -> None:
    """List the projects that your key looks after, oldest first."""
    with connect(ctx) as api:
        found = list(api.pages("/organization/projects", Page[Project], include_archived=str(archived).lower()))
    rows = ((project.id, project.name, project.status, screen.moment(project.created_at)) for project in found)
    screen.table(("project", "name", "status", "created"), rows)


@app.command("rename")
def rename(ctx: typer.Context, project_id: ProjectId, name: Name) -> None:
    """Call a project something else."""
    with connect(ctx) as api:
        project = api.post(path("organization", "projects", project_id), Project, {"name": name})
    screen.say(f"{project.id} is called {project.name}.")


@app.command("archive")
def archive(ctx: typer.Context, project_id: ProjectId) -> None:
    """Close a project: its keys open nothing any more. What it holds stays."""
    with connect(ctx) as api:
        project = api.post(path("organization", "projects", project_id, "archive"), Project)
    screen.say(f"{project.id} is archived.")
