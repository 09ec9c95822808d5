"""Projects, their API keys and the audit log, in the shapes of OpenAI's administration API where it has one."""

from typing import Annotated, Literal

from pydantic import Field

from pegbox.wire.base import JSONObject, Request, Response, is_absent

Name = Annotated[str, Field(min_length=1, max_length=200)]
AccessWord = Literal["read", "write", "admin"]
Lifetime = Annotated[int, Field(ge=1, le=10 * 366 * 86_400)]  # seconds


class CreateProject(Request):
    name: Name


class Project(Response):
    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]


class CreateKey(Request):
    name: Name
    scope: AccessWord = "write"
    expires_in_seconds: Lifetime | None = None


class RotateKey(Request):
    overlap_seconds: Annotated[int, Field(ge=0, le=366 * 86_400)] = 86_400


class Owner(Response):
    """Keys belong to their project; there are no users behind them."""

    type: Literal["service_account"] = "service_account"
    service_account: JSONObject | None = None


class Key(Response):
    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner: Owner = Owner()
    owner_project_access: Literal["active", "inactive"]
    # Beyond OpenAI's own fields:
    project_id: str
    scope: AccessWord
    revoked_at: int | None
    value: Annotated[str | None, Field(exclude_if=is_absent)] = None  # the key itself, in the answer that made it


class KeyDeleted(Response):
    id: str
    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: Literal[True] = True


class ActorKey(Response):
    id: str | None
    type: Literal["service_account"] = "service_account"


class Actor(Response):
    type: Literal["api_key"] = "api_key"
    api_key: ActorKey


class EntryProject(Response):
    id: str


class Change(Response):
    id: str  # of what was changed
    data: JSONObject


class AuditEntry(Response):
    """OpenAI names the field with the particulars by the entry's type; here that field is one of these."""

    id: str
    object: Literal["organization.audit_log"] = "organization.audit_log"
    type: str
    effective_at: int
    actor: Actor
    project: EntryProject
    api_key_created: Annotated[Change | None, Field(alias="api_key.created", exclude_if=is_absent)] = None
    api_key_updated: Annotated[Change | None, Field(alias="api_key.updated", exclude_if=is_absent)] = None
    api_key_deleted: Annotated[Change | None, Field(alias="api_key.deleted", exclude_if=is_absent)] = None
    project_created: Annotated[Change | None, Field(alias="project.created", exclude_if=is_absent)] = None
    project_updated: Annotated[Change | None, Field(alias="project.updated", exclude_if=is_absent)] = None
    project_archived: Annotated[Change | None, Field(alias="project.archived", exclude_if=is_absent)] = None

    @property
    def change(self) -> Change | None:
        found: Change | None = getattr(self, self.type.replace(".", "_"), None)
        return found
