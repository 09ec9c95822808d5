"""What the server writes about what it does: a line an event, as text or as JSON, with the id of the request.

Nothing that a client sent is written, and no key: messages are ours, an exception of somebody else's code is named
without its message (which may quote what it choked on) unless the level is debug, and whatever looks like a secret is
masked in the finished line.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime

from pegbox.errors import PegboxError

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_SECRETS = re.compile(r"\b(sk-|whsec_|Bearer\s+|api[-_]key[=:]\s*)([A-Za-z0-9+/=_\-.]{6,})", re.IGNORECASE)
_WITHHELD = "(its message may quote data; PEGBOX_LOG_LEVEL=debug shows it)"


def configure(style: str, level: str) -> None:
    """Send all logging of this process to standard error. `style` is "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(AsJSON() if style == "json" else AsText())
    handler.addFilter(_with_request)
    # Who called from which thread and process is in no line of ours, and finding it out costs more than the line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "alembic", "multipart", "python_multipart", "asyncio", "matplotlib"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def masked(text: str) -> str:
    """Without what looks like a secret."""
    return _SECRETS.sub(r"\1***", text)


class AsText(logging.Formatter):
    """For a person: a line, and below it the traceback, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        fields = {**_fields(record), "request_id": getattr(record, "request_id", None)}
        said = "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
        lines = f"{when} {record.levelname.lower()} {record.name}: {record.getMessage()}{said}"
        if trouble := _trouble(record):
            lines += f"\n{trouble}"
        return masked(lines)


class AsJSON(logging.Formatter):
    """For a program: one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, object] = {
            "time": when, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
            "request_id": getattr(record, "request_id", None), **_fields(record), "exception": _trouble(record),
        }  # fmt: skip
        kept = {name: value for name, value in values.items() if value is not None}
        return masked(json.dumps(kept, ensure_ascii=False, default=str))


def _with_request(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra={"fields": {…}}`."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _trouble(record: logging.LogRecord) -> str | None:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return None
    whole = logging.getLogger().isEnabledFor(logging.DEBUG)
    return "\n".join(part for one in _chain(error) for part in _described(one, whole=whole))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception after those that led to it."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _chain(earlier)
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _chain(one)


def _described(error: BaseException, *, whole: bool) -> Iterator[str]:
    yield "Traceback (most recent call last):"
    yield "".join(traceback.format_tb(error.__traceback__)).rstrip()
    ours = isinstance(error, PegboxError | OSError)  # written by us, or by the system about a file or a connection
    yield f"{type(error).__module__}.{type(error).__qualname__}: {str(error) if whole or ours else _WITHHELD}"
