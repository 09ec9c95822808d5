"""`pegbox models`: the base models on this machine, which need no server, and the tuned ones on it."""

from collections.abc import Callable
from typing import Annotated

import typer

from pegbox.catalog import pull as bring
from pegbox.catalog.models import BaseModel, Catalog
from pegbox.catalog.table import DEFAULT_BASE
from pegbox.cli import progress, screen
from pegbox.cli.client import path
from pegbox.cli.local import connect, read_settings
from pegbox.errors import CommandFailed
from pegbox.wire.base import Deleted, Page
from pegbox.wire.models import Model

app = typer.Typer(
    name="models",
    help="Base models here, tuned ones on the server.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.command("list")
def list_models() -> None:
    """Show the base models on this machine, and what the names in old scripts mean here."""
    catalog = _catalog()
    bases = catalog.bases()
    if not bases:
        screen.note(f"No base model is in {catalog.root} yet. Bring one with `pegbox models pull {DEFAULT_BASE}`.")
        return
    columns = ("base model", "parameters", "context", "rows", "price / 1M tokens", "license", "source")
    screen.table(columns, (_base_row(model) for model in bases))
    screen.say()
    rows = (
        (
            alias.name,
            model.name,
            alias.format or ", ".join(model.formats),
            f"{min(alias.context or model.context, model.context):,}",
        )
        for alias, model in catalog.aliases()
    )
    screen.table(("alias", "means", "rows", "context"), rows)
    screen.note(f"Models lie in {catalog.root}")


@app.command("pull")
def pull(name: Annotated[str, typer.Argument(help="A model of the built-in table.")] = DEFAULT_BASE) -> None:
    """Bring a base model of the built-in table onto this machine."""
    catalog = _catalog()
    if catalog.find(name):
        screen.note(f"{name} is here already.")
    _bring(name, lambda tell: bring.pull(catalog, name, tell))


@app.command("add")
def add(
    source: Annotated[str, typer.Argument(help="A folder in Hugging Face layout, or a model's id on the hub.")],
    name: Annotated[str | None, typer.Option(help="What to call it here; its own name if left out.")] = None,
    price: Annotated[float, typer.Option(min=0, max=1e9, help="Price of a million training tokens.")] = 0.0,
) -> None:
    """Add any other base model; a folder is used where it is."""
    _bring(name or source, lambda tell: bring.add(_catalog(), source, name=name, price=price, progress=tell))


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="A base model's name.")]) -> None:
    """Remove a base model from this machine. A folder that was added keeps its files."""
    bring.remove(_catalog(), name)
    screen.say(f"{name} is removed.")


@app.command("alias")
def alias(
    name: Annotated[str, typer.Argument(help="What scripts say, for example gpt-4o-mini.")],
    base: Annotated[str | None, typer.Argument(help="The base model on this machine that it shall mean.")] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Take back what was set; the table's meaning is left.")
    ] = False,
) -> None:
    """Let a name in old scripts mean a base model of your choice."""
    if (base is None) != forget:
        raise CommandFailed("name a base model, or say --forget.")
    if base is not None:
        screen.say(f"{_catalog().point(name, base).name} means {base} from now on.")
        return
    _catalog().forget(name)
    found = _catalog().find(name)
    screen.say(f"{name} means {found.base.name} again." if found else f"{name} means nothing any more.")


@app.command("tuned")
def tuned(ctx: typer.Context) -> None:
    """List the tuned models on the server, checkpoints among them."""
    with connect(ctx) as api:
        found = [model for model in api.get("/models", Page[Model]).data if model.id.startswith("ft:")]
    if not found:
        screen.note("There are no tuned models yet. Make one with `pegbox jobs create ROWS.jsonl --follow`.")
        return
    rows = ((model.id, screen.moment(model.created), model.weights or "adapter") for model in found)
    screen.table(("tuned model", "created", "weights"), rows)


@app.command("delete")
def delete(ctx: typer.Context, name: Annotated[str, typer.Argument(help="A tuned model's name, ft:…")]) -> None:
    """Delete a tuned model from the server."""
    with connect(ctx) as api:
        gone = api.delete(path("models", name), Deleted)
    screen.say(f"{gone.id} is deleted.")


def _catalog() -> Catalog:
    return Catalog(read_settings().models)


def _bring(name: str, work: Callable[[bring.Progress], BaseModel]) -> None:
    try:
        with progress.stages(name) as tell:
            model = work(tell)
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"this needs the Python package {error.name}; install it with `pip install 'pegbox[train]'`."
        ) from None
    rows = " and ".join(model.formats)
    screen.say(f"{model.name}: {_millions(model.parameters)} parameters, context {model.context:,}, {rows} rows")


def _base_row(model: BaseModel) -> tuple[str, ...]:
    return (
        model.name,
        _millions(model.parameters),
        f"{model.context:,}",
        ", ".join(model.formats),
        f"{model.price:g}" if model.price else "free",
        model.license,
        model.source,
    )


def _millions(n: int) -> str:
    return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.0f}M" if n >= 1e6 else str(n)
