"""Projects, API keys and the audit log, below /v1/organization: OpenAI's own paths, for admin keys.

OpenAI has keys made in the browser; here they are made by `POST …/api_keys`, and changed by `POST …/rotate`.
"""

from typing import Annotated

from fastapi import Depends

from pegbox.api.deps import Asker, Paging, ServerParts, body, page, paging
from pegbox.api.router import new_router
from pegbox.auth import audit
from pegbox.auth.access import Access
from pegbox.auth.audit import Entry
from pegbox.auth.keys import Key
from pegbox.auth.projects import Project
from pegbox.storage.paging import Slice
from pegbox.wire import organization as wire
from pegbox.wire.base import Page

router = new_router("/v1/organization")
Pages = Annotated[Paging, Depends(paging(20, most=100))]


@router.get("/projects")
def list_projects(
    caller: Asker, parts: ServerParts, paging: Pages, include_archived: bool = False
) -> Page[wire.Project]:
    found = parts.projects.list(caller, after=paging.after, limit=paging.limit, archived=include_archived)
    return page(Slice([_project(one) for one in found.items], found.has_more), lambda project: project.id)


@router.post("/projects")
def create_project(
    request: Annotated[wire.CreateProject, Depends(body(wire.CreateProject))], caller: Asker, parts: ServerParts
) -> wire.Project:
    return _project(parts.projects.create(caller, request.name))


@router.get("/projects/{project_id}")
def retrieve_project(project_id: str, caller: Asker, parts: ServerParts) -> wire.Project:
    return _project(parts.projects.find(caller, project_id))


@router.post("/projects/{project_id}")
def rename_project(
    project_id: str,
    request: Annotated[wire.CreateProject, Depends(body(wire.CreateProject))],
    caller: Asker,
    parts: ServerParts,
) -> wire.Project:
    return _project(parts.projects.rename(caller, project_id, request.name))


@router.post("/projects/{project_id}/archive")
def archive_project(project_id: str, caller: Asker, parts: ServerParts) -> wire.Project:
    archived = parts.projects.archive(caller, project_id)
    parts.keys.reload()
    return _project(archived)


@router.get("/projects/{project_id}/api_keys")
def list_keys(project_id: str, caller: Asker, parts: ServerParts, paging: Pages) -> Page[wire.Key]:
    scope = parts.projects.find(caller, project_id).scope
    found = parts.keys.list(scope, after=paging.after, limit=paging.limit)
    return page(Slice([_key(key) for key in found.items], found.has_more), lambda key: key.id)


@router.post("/projects/{project_id}/api_keys")
def create_key(
    project_id: str,
    request: Annotated[wire.CreateKey, Depends(body(wire.CreateKey))],
    caller: Asker,
    parts: ServerParts,
) -> wire.Key:
    scope = parts.projects.find(caller, project_id).scope
    access = Access(request.scope)
    key, value = parts.keys.mint(caller, scope, request.name, access, expires_in=request.expires_in_seconds)
    return _key(key, value)


@router.get("/projects/{project_id}/api_keys/{key_id}")
def retrieve_key(project_id: str, key_id: str, caller: Asker, parts: ServerParts) -> wire.Key:
    return _key(parts.keys.get(parts.projects.find(caller, project_id).scope, key_id))


@router.post("/projects/{project_id}/api_keys/{key_id}/rotate")
def rotate_key(
    project_id: str,
    key_id: str,
    request: Annotated[wire.RotateKey, Depends(body(wire.RotateKey))],
    caller: Asker,
    parts: ServerParts,
) -> wire.Key:
    """The successor; the old key stays good for `overlap_seconds`."""
    scope = parts.projects.find(caller, project_id).scope
    key, value = parts.keys.rotate(caller, scope, key_id, request.overlap_seconds)
    return _key(key, value)


@router.delete("/projects/{project_id}/api_keys/{key_id}")
def revoke_key(project_id: str, key_id: str, caller: Asker, parts: ServerParts) -> wire.KeyDeleted:
    parts.keys.revoke(caller, parts.projects.find(caller, project_id).scope, key_id)
    return wire.KeyDeleted(id=key_id)


@router.get("/audit_logs")
def list_audit_logs(caller: Asker, parts: ServerParts, paging: Pages) -> Page[wire.AuditEntry]:
    entries, has_more = audit.page(parts.desk.db, caller, after=paging.after, limit=paging.limit)
    return page(Slice([_entry(entry) for entry in entries], has_more), lambda entry: entry.id)


def _project(project: Project) -> wire.Project:
    return wire.Project(
        id=project.id,
        name=project.name,
        created_at=project.created_at,
        archived_at=project.archived_at,
        status="active" if project.archived_at is None else "archived",
    )


def _key(key: Key, value: str | None = None) -> wire.Key:
    return wire.Key(
        id=key.id,
        name=key.name,
        redacted_value=key.redacted,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
        owner_project_access="active" if key.is_good else "inactive",
        project_id=key.scope.project_id,
        scope=key.access.value,
        revoked_at=key.revoked_at,
        value=value,
    )


def _entry(entry: Entry) -> wire.AuditEntry:
    change = wire.Change(id=entry.target_id, data=entry.details)
    return wire.AuditEntry(
        id=entry.id,
        type=entry.type,
        effective_at=entry.effective_at,
        actor=wire.Actor(api_key=wire.ActorKey(id=entry.actor_key)),
        project=wire.EntryProject(id=entry.project_id),
        **{entry.type: change},
    )
