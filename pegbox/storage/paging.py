"""One page of a query. All lists of the API are paged the same way: `after` an id, `limit`, newest first."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Row, Select, select

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Slice(Generic[Item]):
    items: list[Item]
    has_more: bool


class Owner(Protocol):
    """Whose rows they are: a project's (`Scope`), or those of something that a project was seen to own."""

    def owns(self, table: FromClause) -> ColumnElement[bool]: ...


def fetch(
    tx: Connection,
    owner: Owner,
    query: Select[Any],
    seq: Column[int],
    name: Column[str],
    after: str | None,
    limit: int,
    *,
    newest_first: bool = True,
) -> Slice[Row[Any]]:
    """The rows that follow the row named `after`, at most `limit`.

    An `after` that names no row of the owner gives an empty page: a client that pages while things are deleted
    comes to an end instead of starting over.
    """
    query = query.where(owner.owns(seq.table))
    if after is not None:
        at = select(seq).where(name == after, owner.owns(seq.table)).scalar_subquery()
        query = query.where(seq < at if newest_first else seq > at)
    query = query.order_by(seq.desc() if newest_first else seq.asc()).limit(limit + 1)
    rows = list(tx.execute(query))
    return Slice(rows[:limit], has_more=len(rows) > limit > 0)
