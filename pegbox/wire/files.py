"""The file object."""

from typing import Literal

from pegbox.wire.base import Response

# What a client may upload a file for; "fine-tune-results" is made by the server alone.
PURPOSES = ("fine-tune", "assistants", "batch", "vision", "user_data", "evals")


class File(Response):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None
    expires_at: int | None = None
