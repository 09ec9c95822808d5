"""What the wire types share: strict requests, pages, deletions, the error object."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")
# Any JSON object. Wire types have a field named `object`, which hides the builtin in their own bodies.
JSONObject = dict[str, object]


class Request(BaseModel):
    """A body that a client sends. An unknown field is refused rather than dropped in silence, and so is a value of
    another type: `true` is not 1 and "3" is not 3."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def is_absent(value: object) -> bool:
    """For `exclude_if`: the API leaves such a field out rather than sending null, and scripts write
    `delta.get("content", "")`."""
    return value is None


class Response(BaseModel):
    """A body that pegbox sends."""

    model_config = ConfigDict(frozen=True)


class Page(Response, Generic[Item]):
    """A list of things; `has_more` says whether to ask again with `after=last_id`."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(Response):
    id: str
    object: str
    deleted: Literal[True] = True


class ErrorDetail(Response):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Response):
    error: ErrorDetail
