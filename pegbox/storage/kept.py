"""Statements that are put together once: to do so takes longer than to run them.

A function that is `kept` takes what makes the statement another one (a project, whether there is an `after`), and
leaves what differs from call to call to `bindparam`.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Statement = TypeVar("Statement")
_MOST = 1024  # of each function; a project has its own


def kept(build: Callable[P, Statement]) -> Callable[P, Statement]:
    return lru_cache(maxsize=_MOST)(build)  # type: ignore[return-value] # typed as one that takes anything
