"""The model object."""

from typing import Annotated, Literal

from pydantic import Field

from pegbox.wire.base import Response, is_absent


class Model(Response):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    weights: Annotated[Literal["all"] | None, Field(exclude_if=is_absent)] = None  # of a tuned model that is whole


class Engine(Response):
    """What a model was called before there was /v1/models."""

    id: str
    object: Literal["engine"] = "engine"
    owner: str
    ready: bool = True


class Engines(Response):
    object: Literal["list"] = "list"
    data: list[Engine]
