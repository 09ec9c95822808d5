"""What the machine refuses, told apart: no room, or something that is broken. With a remedy for each."""

import errno

from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from pegbox.errors import RequestError, StorageBroken, StorageFull
from pegbox.storage.doubt import InDoubt

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REMEDIES = {
    errno.EIO: "The disk reports an I/O error; look at the kernel's log, then at `pegbox doctor`.",
    errno.EROFS: "The data directory is read-only; mount it for writing.",
    errno.EMFILE: "The server has too many files open; raise its limit (`ulimit -n`), or try again in a moment.",
    errno.ENFILE: "The machine has too many files open; try again in a moment.",
    errno.ENOMEM: "The machine has no memory left; try again in a moment.",
    errno.EACCES: "The server may not write to its data directory; mend its permissions.",
    errno.EUCLEAN: "The database is damaged; run `pegbox doctor`, and restore a backup if it says so too.",
    errno.ENODEV: "The disk of the data directory is gone; mount it again.",
}
# SQLite's own words, which stay the same over its versions; it has no more than these for the same troubles.
_SAYINGS = {
    "disk I/O error": errno.EIO,
    "readonly database": errno.EROFS,
    "unable to open database file": errno.EMFILE,
    "out of memory": errno.ENOMEM,
    "disk image is malformed": errno.EUCLEAN,
}
_NO_ROOM = "There is no room left on the server's disk; nothing was stored. Delete files or models, or free some room."
_IN_DOUBT = (
    "The disk failed while this was being stored, so it may be there or not; look before you send it again. The server "
    f"stores nothing more until its disk is well again. {_REMEDIES[errno.EIO]}"
)


def trouble(error: BaseException) -> RequestError | None:
    """The answer to a request that the machine could not serve; None where the error is of another kind."""
    if isinstance(error, OSError):
        return _answer(error.errno)
    if isinstance(error, InDoubt):
        return StorageBroken(_IN_DOUBT, code="storage_unavailable")
    if not isinstance(error, DBAPIError):
        return None
    said = str(error.orig)
    if "disk is full" in said or "No space left" in said:  # SQLite; PostgreSQL
        return _answer(errno.ENOSPC)
    if "locked" in said or _of_postgres(error):
        text = "The database is busy or does not answer; try again in a moment."
        return StorageBroken(text, code="storage_unavailable")
    return next((_answer(code) for words, code in _SAYINGS.items() if words in said), None)


def _of_postgres(error: DBAPIError) -> bool:
    """PostgreSQL can't be reached, or a server that hangs holds it; with SQLite each such trouble has its own words."""
    return isinstance(error, OperationalError | InternalError) and type(error.orig).__module__.startswith("psycopg")


def _answer(code: int | None) -> RequestError | None:
    if code in FULL:
        return StorageFull(_NO_ROOM, code="insufficient_storage")
    if code in _REMEDIES:
        text = f"The server can't store anything now; nothing was stored. {_REMEDIES[code]}"
        return StorageBroken(text, code="storage_unavailable")
    return None
