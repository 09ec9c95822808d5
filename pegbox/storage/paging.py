"""One page of a query. All lists of the API are paged the same way: `after` an id, `limit`, newest first."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, FromClause, Row, Select, bindparam, select

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Slice(Generic[Item]):
    items: list[Item]
    has_more: bool


class Owner(Protocol):
    """Whose rows they are: a project's (`Scope`), or those of something that a project was seen to own."""

    def owns(self, table: FromClause) -> ColumnElement[bool]: ...


def paged(
    owner: Owner,
    query: Select[Any],
    seq: Column[int],
    name: Column[str],
    *,
    follows: bool,
    newest_first: bool = True,
) -> Select[Any]:
    """The statement that `fetch` runs: rows of the query that follow the one named `after`, or the first ones.

    An `after` that names no row of the owner gives an empty page: a client that pages while things are deleted
    comes to an end instead of starting over.
    """
    query = query.where(owner.owns(seq.table))
    if follows:
        at = select(seq).where(name == bindparam("after"), owner.owns(seq.table)).scalar_subquery()
        query = query.where(seq < at if newest_first else seq > at)
    return query.order_by(seq.desc() if newest_first else seq.asc()).limit(bindparam("rows"))


def fetch(tx: Connection, statement: Select[Any], after: str | None, limit: int, **named: object) -> Slice[Row[Any]]:
    """At most `limit` rows of a statement made by `paged`; `named` is what it leaves open besides."""
    follows = {} if after is None else {"after": after}
    rows = list(tx.execute(statement, {**named, **follows, "rows": limit + 1}))
    return Slice(rows[:limit], has_more=len(rows) > limit > 0)
