"""Projects: whose files, jobs, models and keys are kept apart."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update

from pegbox import ids
from pegbox.auth import audit
from pegbox.auth.access import Caller
from pegbox.errors import Forbidden, InvalidRequest, NotFound
from pegbox.storage.db import Database
from pegbox.storage.paging import Slice
from pegbox.storage.scope import DEFAULT, Scope
from pegbox.storage.tables import projects


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    created_at: int
    archived_at: int | None

    @property
    def scope(self) -> Scope:
        return Scope(self.id)


class Projects:
    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, caller: Caller, project_id: str) -> Project:
        """Raises NotFound for one that the caller does not look after, as if it did not exist."""
        with self._db.read() as tx:
            row = tx.execute(select(projects).where(_seen_by(caller), projects.c.id == project_id)).first()
        if row is None:
            raise NotFound(f"No such project: {project_id}", param="project_id", code="project_not_found")
        return _project(row)

    def list(self, caller: Caller, *, after: str | None, limit: int, archived: bool) -> Slice[Project]:
        """Oldest first, the default project before all others."""
        query = select(projects).where(_seen_by(caller))
        if not archived:
            query = query.where(projects.c.archived_at.is_(None))
        if after is not None:
            at = select(projects.c.seq).where(_seen_by(caller), projects.c.id == after).scalar_subquery()
            query = query.where(projects.c.seq > at)
        with self._db.read() as tx:
            rows = tx.execute(query.order_by(projects.c.seq).limit(limit + 1)).all()
        return Slice([_project(row) for row in rows[:limit]], has_more=len(rows) > limit > 0)

    def create(self, caller: Caller, name: str) -> Project:
        _only_for_operators(caller)
        values = {"id": ids.mint("project"), "name": name, "created_at": int(time.time())}
        with self._db.write() as tx:
            row = tx.execute(insert(projects).values(values).returning(projects)).one()
            audit.note(tx, caller, Scope(row.id), "project.created", row.id, {"name": name})
        return _project(row)

    def rename(self, caller: Caller, project_id: str, name: str) -> Project:
        project = self.find(caller, project_id)
        _only_for_operators(caller)
        with self._db.write() as tx:
            tx.execute(update(projects).where(projects.c.id == project.id).values(name=name))
            audit.note(tx, caller, project.scope, "project.updated", project.id, {"name": name})
        return self.find(caller, project_id)

    def archive(self, caller: Caller, project_id: str) -> Project:
        """Its keys open nothing from now on; its rows stay. Changes nothing where it is archived already."""
        project = self.find(caller, project_id)
        _only_for_operators(caller)
        if project.scope == DEFAULT:
            raise InvalidRequest("The default project can't be archived.", param="project_id", code="invalid_value")
        if project.archived_at is None:
            with self._db.write() as tx:
                tx.execute(update(projects).where(projects.c.id == project.id).values(archived_at=int(time.time())))
                audit.note(tx, caller, project.scope, "project.archived", project.id)
        return self.find(caller, project_id)


def _seen_by(caller: Caller) -> ColumnElement[bool]:
    if caller.runs_the_server:
        return projects.c.id.is_not(None)
    return projects.c.id == caller.scope.project_id


def _only_for_operators(caller: Caller) -> None:
    if not caller.runs_the_server:
        raise Forbidden(
            "Projects are created, renamed and archived with an admin key of the default project.", code="missing_scope"
        )


def _project(row: Row[Any]) -> Project:
    return Project(row.id, row.name, row.created_at, row.archived_at)
