"""The model object."""

from typing import Literal

from pegbox.wire.base import Response


class Model(Response):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Engine(Response):
    """What a model was called before there was /v1/models."""

    id: str
    object: Literal["engine"] = "engine"
    owner: str
    ready: bool = True


class Engines(Response):
    object: Literal["list"] = "list"
    data: list[Engine]
