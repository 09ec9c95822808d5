"""The model object."""

from typing import Literal

from pegbox.wire.base import Response


class Model(Response):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
