"""Where a route finds its arguments, decided once.

FastAPI decides it anew for every request, which takes longer than to look up a job. What is read here is what most of
our routes ask for, and it is read by the same rules; FastAPI still reads forms and headers, and describes the API.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends, Query
from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

Find = Callable[[Request], Awaitable[Any]]


def finder(call: Callable[..., Any], *, in_path: bool = True) -> Find | None:
    """What finds all arguments of a route, as a dict: the request itself, words of its path (not for a dependency) and
    of its query, and dependencies that ask for no more. None where there is anything else."""
    hints = get_type_hints(call, include_extras=True)
    finds: dict[str, Find] = {}
    asked: dict[str, Any] = {}
    for name, parameter in inspect.signature(call).parameters.items():
        hint = hints[name]
        said = [*getattr(hint, "__metadata__", ()), parameter.default]
        depends = [of.dependency for of in said if isinstance(of, Depends)]
        if any(isinstance(of, FieldInfo) and not isinstance(of, Query) for of in said):
            return None  # a header, a form
        if hint is Request:
            finds[name] = _itself
        elif depends:
            if (found := _dependency(depends[0])) is None:
                return None
            finds[name] = found
        elif parameter.default is not parameter.empty:
            asked[name] = (hint, parameter.default)
        elif hint is str and in_path:
            finds[name] = _word(name)
        else:
            return None
    query = create_model("Query", **asked) if asked else None

    async def find(request: Request) -> dict[str, Any]:
        found = {name: await part(request) for name, part in finds.items()}
        return found if query is None else found | _read(query, request)

    return find


def _dependency(call: Callable[..., Any] | None) -> Find | None:
    find = finder(call, in_path=False) if call is not None and inspect.iscoroutinefunction(call) else None
    if call is None or find is None:
        return None

    async def solve(request: Request) -> Any:
        return await call(**await find(request))

    return solve


def _read(query: type[BaseModel], request: Request) -> dict[str, Any]:
    try:
        return dict(query.model_validate(dict(request.query_params)))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


async def _itself(request: Request) -> Request:
    return request


def _word(name: str) -> Find:
    async def find(request: Request) -> Any:
        return request.path_params[name]

    return find
