"""Every exception of pegbox, as one tree.

PegboxError
├── RequestError              a request that is answered with an error; carries the HTTP status
│   ├── InvalidRequest        400  the body, a parameter or an id is wrong
│   ├── Unauthorized          401  no key, or a wrong one
│   ├── Forbidden             403  the key may not do this, or a web page of a stranger asks
│   ├── NotFound              404  no such file, job, model
│   ├── Conflict              409  the same Idempotency-Key with another body
│   ├── BodyTooLarge          413  more bytes than the setting allows
│   ├── UnsupportedEncoding   415  a body that is packed
│   ├── TooManyRequests       429  a key, or an address with wrong keys, asks too often
│   ├── Overloaded            429  more generations in flight than the engine takes
│   ├── Unavailable           503  the server is shutting down; another try may find the next one
│   ├── StorageBroken         503  the disk or the machine refuses what storing needs, and what to do
│   └── StorageFull           507  no room on the disk, or under the quota
├── JobFailure                a job ends as "failed"; becomes the job's `error` object
│   └── Setback               not yet: its work broke off and is worth another attempt, a while later
├── QueueError
│   ├── IllegalMove           the table of moves has no such arrow
│   └── LostRace              another process moved the job first; the caller drops its work
├── CatalogError              a base model is unknown or can't be loaded, and why
├── DataError                 the data desk can't do what was asked, and why (its leaves: data/tables/encodings.py
│                             TableError, a table that can't be read; data/mending/changes.py OutputError;
│                             data/grammar.py SchemaError)
├── RenderError               a conversation that the model's chat template refuses
├── EngineError               the engine process died or refused a request
│   └── FormError             an answer can't be kept to the form that was asked for
├── EgressError               a request to an address that a user named
│   ├── EgressRefused         the rules forbid it, and what to write instead
│   └── EgressFailed          nobody answered in time
└── CommandFailed             the command line can't go on (its leaf Unreachable, in cli/client.py: no server there)

Domain code raises these; `api/errors.py` translates them to HTTP in one place.
"""

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType


class PegboxError(Exception):
    """Root of all errors that pegbox raises on purpose. `str(error)` is fit for the user's eyes."""


class RequestError(PegboxError):
    """A request that gets an error answer, in the four words of the API's error object."""

    status = 500
    type = "server_error"
    headers: Mapping[str, str] = MappingProxyType({})  # of the answer

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class InvalidRequest(RequestError):  # noqa: N818 - the status says that it is an error
    status = 400
    type = "invalid_request_error"


class Unauthorized(RequestError):  # noqa: N818
    status = 401
    type = "invalid_request_error"


class Forbidden(RequestError):  # noqa: N818
    status = 403
    type = "invalid_request_error"


class NotFound(RequestError):  # noqa: N818
    status = 404
    type = "invalid_request_error"


class Conflict(RequestError):  # noqa: N818
    status = 409
    type = "invalid_request_error"
    headers = MappingProxyType({"x-should-retry": "false"})  # stock clients repeat a 409, which helps nobody here


class BodyTooLarge(RequestError):  # noqa: N818
    status = 413
    type = "invalid_request_error"


class UnsupportedEncoding(RequestError):  # noqa: N818
    status = 415
    type = "invalid_request_error"


class TooManyRequests(RequestError):  # noqa: N818
    status = 429
    type = "requests"

    def __init__(self, message: str, *, wait: float) -> None:
        """`wait` is in seconds: what the client is told to wait before it asks again."""
        super().__init__(message, code="rate_limit_exceeded")
        self.headers = {"retry-after": str(max(1, ceil(wait)))}


class Overloaded(RequestError):  # noqa: N818
    status = 429
    type = "rate_limit_error"


class Unavailable(RequestError):  # noqa: N818
    status = 503
    type = "server_error"


class StorageBroken(RequestError):  # noqa: N818
    status = 503
    type = "server_error"


class StorageFull(RequestError):  # noqa: N818
    status = 507
    type = "server_error"


class JobFailure(PegboxError):  # noqa: N818
    """Ends a job as failed. `code`, `message` and `param` are what the job's `error` shows."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class Setback(JobFailure):
    """Work on a job broke off for a reason that may have gone by the next attempt: a process was killed, a folder was
    still in use. `str(error)` says so, for the job's events."""

    def __init__(self, message: str) -> None:
        super().__init__("server_error", message)


class QueueError(PegboxError):
    pass


class IllegalMove(QueueError):  # noqa: N818
    pass


class LostRace(QueueError):  # noqa: N818
    pass


class CatalogError(PegboxError):
    pass


class DataError(PegboxError):
    pass


class RenderError(PegboxError):
    pass


class EngineError(PegboxError):
    pass


class FormError(EngineError):
    pass


class EgressError(PegboxError):
    pass


class EgressRefused(EgressError):  # noqa: N818
    pass


class EgressFailed(EgressError):  # noqa: N818
    pass


class CommandFailed(PegboxError):  # noqa: N818 - it fails the command, and its text is what the user reads
    """A command can't go on. `str(error)` says why and what to do."""
