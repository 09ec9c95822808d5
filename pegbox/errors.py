"""Every exception of pegbox, as one tree.

PegboxError
├── RequestError              a request that is answered with an error; carries the HTTP status
│   ├── InvalidRequest        400  the body, a parameter or an id is wrong
│   ├── Unauthorized          401  no key, or a wrong one
│   ├── NotFound              404  no such file, job, model
│   ├── BodyTooLarge          413  more bytes than the setting allows
│   └── Overloaded            429  more generations in flight than the engine takes
├── JobFailure                a job ends as "failed"; becomes the job's `error` object
│   └── Setback               not yet: its work broke off and is worth another attempt, a while later
├── QueueError
│   ├── IllegalMove           the table of moves has no such arrow
│   └── LostRace              another process moved the job first; the caller drops its work
├── CatalogError              a base model is unknown or can't be loaded, and why
├── DataError                 the data desk can't do what was asked, and why (its leaves: data/tables/encodings.py
│                             TableError, a table that can't be read; data/mending/changes.py OutputError)
├── RenderError               a conversation that the model's chat template refuses
├── EngineError               the engine process died or refused a request
└── CommandFailed             the command line can't go on (its leaf Unreachable, in cli/client.py: no server there)

Domain code raises these; `api/errors.py` translates them to HTTP in one place.
"""


class PegboxError(Exception):
    """Root of all errors that pegbox raises on purpose. `str(error)` is fit for the user's eyes."""


class RequestError(PegboxError):
    """A request that gets an error answer, in the four words of the API's error object."""

    status = 500
    type = "server_error"

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


class NotFound(RequestError):  # noqa: N818
    status = 404
    type = "invalid_request_error"


class BodyTooLarge(RequestError):  # noqa: N818
    status = 413
    type = "invalid_request_error"


class Overloaded(RequestError):  # noqa: N818
    status = 429
    type = "rate_limit_error"


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


class CommandFailed(PegboxError):  # noqa: N818 - it fails the command, and its text is what the user reads
    """A command can't go on. `str(error)` says why and what to do."""
