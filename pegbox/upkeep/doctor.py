"""Look at everything that a server stands on, and say of each thing whether it is well and what to do where it isn't.
Changes nothing, and may run beside the server."""

import smtplib
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pysqlite3 import dbapi2
from sqlalchemy.exc import DBAPIError

from pegbox.catalog.models import BaseModel, Catalog
from pegbox.catalog.pull import fingerprint
from pegbox.errors import CatalogError, PegboxError
from pegbox.notify import mail
from pegbox.queue.states import Status
from pegbox.settings import Settings
from pegbox.storage.db import HEAD
from pegbox.storage.room import look, mib
from pegbox.train.rundir import RunDir
from pegbox.upkeep.collect import is_wanted
from pegbox.upkeep.store import Store, opened, references
from pegbox.upkeep.verify import damage

State = Literal["well", "watch", "broken"]
_LAID_OUT = (Status.QUEUED, Status.RUNNING, Status.PAUSING)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """One finding after another, as they are made: hashing takes its time."""
    yield _folder(settings.root)
    at = settings.database
    if isinstance(at, str) or at.exists():
        sound = _server(settings) if isinstance(at, str) else _database(at)
        yield sound
        if sound.state != "broken":
            with opened(settings) as store:
                for look_at in (_bytes, _runs, _garbage):
                    yield look_at(store)
    else:
        text = f"{settings.root} holds no database yet"
        yield Finding("database", "watch", text, "`pegbox serve` makes it at its first start.")
    yield _room(settings)
    yield from _bases(settings)
    yield _mail(settings)


def _folder(root: Path) -> Finding:
    if not root.exists():
        return Finding("data directory", "watch", f"{root} is not there yet", "`pegbox serve` makes it.")
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & 0o077:
        text = f"{root} is open to other users of this machine (mode {mode:o})"
        return Finding("data directory", "watch", text, f"Run `chmod 700 {root}`.")
    return Finding("data directory", "well", f"{root}, for its owner only")


def _database(path: Path) -> Finding:
    name = "database"
    restore = "Stop the server, move the data directory away and run `pegbox restore` on your newest backup."
    try:
        with closing(dbapi2.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=30)) as db:
            (at,) = db.execute("SELECT version_num FROM alembic_version").fetchone()
            wrong = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
            astray = db.execute("PRAGMA foreign_key_check").fetchall()
    except (dbapi2.Error, TypeError) as error:
        return Finding(name, "broken", f"{path.name} can't be read: {error}", restore)
    if wrong or astray:
        problems = [*wrong, *(f"a row of {row[0]} refers to none of {row[2]}" for row in astray[:_SHOWN])]
        return Finding(name, "broken", "; ".join(problems), restore)
    if at > HEAD:
        text = f"the database was written by a newer pegbox (schema {at}, this one knows {HEAD})"
        return Finding(name, "broken", text, "Install that version again.")
    older = f"; schema {at} is brought to {HEAD} at the next start" if at < HEAD else ""
    return Finding(name, "well", f"every page and reference is sound, SQLite {dbapi2.sqlite_version}{older}")


def _server(settings: Settings) -> Finding:
    """PostgreSQL looks after its own pages; here only whether it answers."""
    try:
        with opened(settings) as store, store.db.read() as tx:
            references(tx)
    except (PegboxError, DBAPIError) as error:
        return Finding("database", "broken", str(error), "Start PostgreSQL, or mend PEGBOX_DATABASE_URL.")
    return Finding("database", "well", f"PostgreSQL answers, schema {HEAD}")


def _bytes(store: Store) -> Finding:
    with store.db.read() as tx:
        wanted = references(tx)
    found = damage(store.blobs.root, wanted)
    with store.db.read() as tx:  # what was deleted while we read is no damage
        still = references(tx)
    found = [one for one in found if one.key in still.files or one.key in still.adapters]
    if not found:
        text = f"{len(wanted.files):,} files and {len(wanted.adapters):,} adapters are what they were when stored"
        return Finding("stored bytes", "well", text)
    named = "; ".join(f"{one.key} {one.text}" for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    remedy = (
        "Take these from a backup: put the files of the same name below its blobs/ in their place, or delete the "
        "file or model through the API and make it again."
    )
    return Finding("stored bytes", "broken", named + more, remedy)


def _runs(store: Store) -> Finding:
    with store.db.read() as tx:
        jobs = references(tx).jobs
    waiting = [job for job, status in jobs.items() if status in _LAID_OUT]
    lost = [job for job in waiting if not RunDir(store.root / "runs" / job).recipe_path.exists()]
    if lost:
        text = f"the run directories of {', '.join(lost[:_SHOWN])} are gone"
        return Finding("run directories", "broken", text, "These jobs will fail; create them again.")
    return Finding("run directories", "well", f"{len(waiting):,} jobs that wait or work have theirs")


def _garbage(store: Store) -> Finding:
    keys = store.blobs.keys()
    with store.db.read() as tx:
        wanted = references(tx)
    count = sum(1 for key in keys if not is_wanted(key, wanted))
    if count:
        text = f"{count:,} stored things belong to nothing"
        return Finding("garbage", "watch", text, "Run `pegbox collect`; the server does it at every start.")
    return Finding("garbage", "well", "nothing is stored that nobody refers to")


def _room(settings: Settings) -> Finding:
    at = settings.root
    while not at.exists():
        at = at.parent
    room = look(at, kept_free=settings.keep_free_bytes, quota=settings.max_stored_bytes)
    remedy = "Free some room, delete files or models, or raise PEGBOX_MAX_STORED_BYTES where that is the limit."
    if room.left < settings.max_file_bytes:
        state: State = "watch" if room.left else "broken"
        return Finding("room", state, f"{mib(room.left)} may still be stored: {room}", remedy)
    return Finding("room", "well", f"{mib(room.left)} may still be stored: {room}")


def _bases(settings: Settings) -> Iterator[Finding]:
    try:
        bases = Catalog(settings.models).bases()
    except CatalogError as error:
        yield Finding("base models", "broken", str(error), "Remove that folder and add the model again.")
        return
    if not bases:
        text = f"there is none in {settings.models}"
        yield Finding("base models", "broken", text, "Run `pegbox models pull`.")
    for base in bases:
        yield _base(base)


def _base(base: BaseModel) -> Finding:
    name, folder = f"base model {base.name}", Path(base.folder)
    again = f"Run `pegbox models remove {base.name}`, then `pegbox models pull` or `pegbox models add` it again."
    missing = [part for part in ("config.json", "tokenizer.json") if not (folder / part).is_file()]
    if missing:
        return Finding(name, "broken", f"{' and '.join(missing)} are missing in {folder}", again)
    try:
        whole = fingerprint(folder) == base.fingerprint
    except OSError as error:
        return Finding(name, "broken", f"its weights can't be read: {error.strerror}", again)
    if not whole:
        return Finding(name, "broken", f"the weights in {folder} are not those that were added", again)
    return Finding(name, "well", "its weights are those that were added")


def _mail(settings: Settings) -> Finding:
    if settings.smtp_host is None:
        return Finding("mail", "well", "no mail is sent (PEGBOX_SMTP_HOST is not set)")
    where = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        with mail.connected(settings) as server:
            server.noop()
    except (OSError, smtplib.SMTPException) as error:
        remedy = "Check PEGBOX_SMTP_HOST, _PORT, _SECURITY, _USER and _PASSWORD; mail that waits is sent later."
        return Finding("mail", "broken", f"{where} can't be used: {error}", remedy)
    return Finding("mail", "well", f"{where} answers")
