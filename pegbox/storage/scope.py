"""Whose rows a query may see: the one place where a project becomes a condition.

What belongs to somebody is read and written through a Scope. Every function that takes a user's id takes one, too, so
that a query without it is no legal call; `tests/test_scope.py` looks for statements that go around it.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Delete, FromClause, Insert, Select, Table, Update, delete, insert, select, update

from pegbox.storage.tables import DEFAULT_PROJECT


@dataclass(frozen=True, slots=True)
class Scope:
    """One project's rows. To every query in it, the rows of others are not there."""

    project_id: str

    def owns(self, table: FromClause) -> ColumnElement[bool]:
        mine: ColumnElement[bool] = table.c.project_id == self.project_id
        return mine

    def select(self, table: Table, *beside: Table) -> Select[Any]:
        """Rows of `table`, with what the caller joins to it."""
        return select(table, *beside).where(self.owns(table))

    def insert(self, table: Table) -> Insert:
        return insert(table).values(project_id=self.project_id)

    def update(self, table: Table) -> Update:
        return update(table).where(self.owns(table))

    def delete(self, table: Table) -> Delete:
        return delete(table).where(self.owns(table))


DEFAULT = Scope(DEFAULT_PROJECT)
