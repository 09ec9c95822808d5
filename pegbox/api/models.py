"""/v1/models: base models, their aliases, tuned models and checkpoints."""

from typing import Literal

from pegbox.adapters import Adapter
from pegbox.api.deps import Parts, Project, ServerParts
from pegbox.api.router import new_router
from pegbox.catalog.models import BaseModel
from pegbox.errors import InvalidRequest, NotFound
from pegbox.jobs import records
from pegbox.storage.scope import Scope
from pegbox.wire import models as wire
from pegbox.wire.base import Deleted, Page

router = new_router("/v1/models")
engines = new_router("/v1/engines")  # the same models, as clients before 2023 ask for them


@router.get("")
def list_models(project: Project, parts: ServerParts) -> Page[wire.Model]:
    catalog, organization = parts.desk.catalog, parts.settings.organization
    found = [_base(model.name, model) for model in catalog.bases()]
    found += [_base(alias.name, model) for alias, model in catalog.aliases()]
    found += [_tuned(adapter, organization) for adapter in parts.desk.adapters.list(project)]
    first, last = (found[0].id, found[-1].id) if found else (None, None)
    return Page(data=found, first_id=first, last_id=last, has_more=False)


@router.get("/{name:path}")
def retrieve(name: str, project: Project, parts: ServerParts) -> wire.Model:
    if adapter := parts.desk.adapters.find(project, name):
        return _tuned(adapter, parts.settings.organization)
    if resolved := parts.desk.catalog.find(name):
        return _base(name, resolved.base)
    raise NotFound(f"The model '{name}' does not exist", param="model", code="model_not_found")


@router.delete("/{name:path}")
def delete(name: str, project: Project, parts: ServerParts) -> Deleted:
    if parts.desk.catalog.find(name):
        raise InvalidRequest(
            f"{name} is a base model and can't be deleted through the API; use `pegbox models remove`.",
            param="model",
            code="cannot_delete_base_model",
        )
    adapter = parts.desk.adapters.get(project, name)
    _refuse_if_trained_on(parts, project, adapter)
    parts.desk.adapters.delete(project, adapter)
    parts.pool.unload(adapter.model_folder or adapter.base, adapter.name)
    if adapter.model_folder and not parts.desk.adapters.folder(adapter.model_folder).exists():
        parts.pool.forget(adapter.model_folder)
    return Deleted(id=name, object="model")


def _refuse_if_trained_on(parts: Parts, project: Scope, adapter: Adapter) -> None:
    """A job that goes on from a whole model computes with its bytes until it ends."""
    if not adapter.is_whole:
        return
    with parts.desk.db.read() as tx:
        job_id = records.trained_on_by(tx, project, adapter.name)
    if job_id:
        raise InvalidRequest(
            f"{job_id} trains on from {adapter.name}; delete the model when that has ended, or cancel it first.",
            param="model",
            code="model_in_use",
        )


@engines.get("")
def list_engines(project: Project, parts: ServerParts) -> wire.Engines:
    return wire.Engines(data=[_engine(model) for model in list_models(project, parts).data])


@engines.get("/{name:path}")
def retrieve_engine(name: str, project: Project, parts: ServerParts) -> wire.Engine:
    return _engine(retrieve(name, project, parts))


def _engine(model: wire.Model) -> wire.Engine:
    return wire.Engine(id=model.id, owner=model.owned_by)


def _base(name: str, model: BaseModel) -> wire.Model:
    return wire.Model(id=name, created=model.created_at, owned_by="pegbox")


def _tuned(adapter: Adapter, organization: str) -> wire.Model:
    weights: Literal["all"] | None = "all" if adapter.is_whole else None
    return wire.Model(id=adapter.name, created=adapter.created_at, owned_by=organization, weights=weights)
