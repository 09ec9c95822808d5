"""Keys, projects, buckets and the audit log, below HTTP."""

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, select, text

from pegbox.auth import audit
from pegbox.auth.access import Access, Caller
from pegbox.auth.buckets import Buckets
from pegbox.auth.keys import Keys
from pegbox.auth.projects import Projects
from pegbox.errors import Forbidden, InvalidRequest, NotFound, PegboxError
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT, Scope
from pegbox.storage.tables import api_keys

OPERATOR = Caller("key_operator", DEFAULT, Access.ADMIN)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "pegbox.db")
    yield database
    database.close()


def is_good(keys: Keys, text: str) -> bool:
    found = keys.find(text)
    return found is not None and found.is_good


# --- keys ----------------------------------------------------------------------------------------------------


def test_a_key_is_stored_as_a_hash_and_nothing_else(db: Database, tmp_path: Path):
    keys = Keys(db)
    key, value = keys.mint(OPERATOR, DEFAULT, "laptop", Access.WRITE)
    assert re.fullmatch(r"sk-pegbox-[\w-]{43}", value)
    assert (key.redacted, key.hint) == (f"{value[:14]}...{value[-4:]}", value[-4:])
    with db.read() as tx:
        row = tx.execute(select(api_keys)).one()._asdict()
    assert row["sha256"] == hashlib.sha256(value.encode()).hexdigest()
    secret = value.removeprefix("sk-pegbox-")
    assert not [name for name, cell in row.items() if secret in str(cell)]
    db.close()
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in on_disk


def test_a_short_key_of_an_operator_is_not_shown(db: Database):
    keys = Keys(db)
    keys.ensure("open-sesame")
    found = keys.find("open-sesame")
    assert found is not None
    assert found.redacted == "..."


def test_a_server_always_has_a_way_in(db: Database):
    keys = Keys(db)
    first = keys.ensure(None)
    assert first is not None
    found = keys.find(first)
    assert found is not None
    assert found.caller.runs_the_server
    assert keys.ensure(None) is None, "one is enough"
    with db.write() as tx:  # as time does it
        tx.execute(text("UPDATE api_keys SET expires_at = 1"))
    assert Keys(db).ensure(None) is not None


def test_the_configured_key_follows_the_setting(db: Database):
    keys = Keys(db)
    keys.ensure("sk-first-0123456789")
    first = keys.find("sk-first-0123456789")
    keys.ensure("sk-second-0123456789")
    assert not is_good(keys, "sk-first-0123456789")
    keys.ensure("sk-first-0123456789")
    assert is_good(keys, "sk-first-0123456789")
    again = keys.find("sk-first-0123456789")
    assert first is not None
    assert again is not None
    assert first.id == again.id, "jobs and the audit log name it"
    assert Keys(db).ensure(None) is None, "a setting that is left out later changes nothing"
    for change in (
        lambda: keys.revoke(OPERATOR, DEFAULT, again.id),
        lambda: keys.rotate(OPERATOR, DEFAULT, again.id, 60),
    ):
        with pytest.raises(InvalidRequest, match="PEGBOX_API_KEY"):
            change()


def test_a_revoked_key_does_not_come_back_as_a_setting(db: Database):
    keys = Keys(db)
    keys.ensure("sk-first-0123456789")
    key, value = keys.mint(OPERATOR, DEFAULT, "old", Access.ADMIN)
    keys.mint(OPERATOR, DEFAULT, "spare", Access.ADMIN)
    keys.ensure(value)
    assert is_good(keys, value)
    keys.revoke(OPERATOR, DEFAULT, key.id)
    with pytest.raises(PegboxError, match=f"{key.id}, which is revoked"):
        keys.ensure(value)
    assert not is_good(keys, value)


def test_rotation_overlaps(db: Database):
    keys = Keys(db)
    old, old_value = keys.mint(OPERATOR, DEFAULT, "robot", Access.READ, expires_in=1_000)
    new, new_value = keys.rotate(OPERATOR, DEFAULT, old.id, 60)
    assert is_good(keys, old_value)
    assert is_good(keys, new_value)
    assert (new.name, new.access, new.scope) == ("robot", Access.READ, DEFAULT)
    assert new.expires_at is not None
    assert new.expires_at - new.created_at == 1_000, "it lives as long as the old one was to"
    until = keys.get(DEFAULT, old.id).expires_at
    assert until is not None
    assert 0 <= until - time.time() <= 60
    keys.rotate(OPERATOR, DEFAULT, new.id, 100_000)
    assert keys.get(DEFAULT, new.id).expires_at == new.expires_at, "an overlap never prolongs a life"
    keys.rotate(OPERATOR, DEFAULT, new.id, 0)
    assert not is_good(keys, new_value)
    with pytest.raises(InvalidRequest, match="expired"):  # and whoever holds it gets no other
        keys.rotate(OPERATOR, DEFAULT, new.id, 60)


def test_the_last_admin_key_stays(db: Database):
    keys = Keys(db)
    one, _ = keys.mint(OPERATOR, DEFAULT, "one", Access.ADMIN)
    with pytest.raises(InvalidRequest, match="last admin key"):
        keys.revoke(OPERATOR, DEFAULT, one.id)
    keys.mint(OPERATOR, DEFAULT, "two", Access.ADMIN)
    keys.revoke(OPERATOR, DEFAULT, one.id)
    keys.revoke(OPERATOR, DEFAULT, one.id)
    with pytest.raises(InvalidRequest, match="revoked"):
        keys.rotate(OPERATOR, DEFAULT, one.id, 1)


def test_another_server_learns_of_a_revocation(db: Database, tmp_path: Path):
    keys = Keys(db)
    key, value = keys.mint(OPERATOR, DEFAULT, "one", Access.WRITE)
    other_db = Database(tmp_path / "pegbox.db")
    other = Keys(other_db)
    keys.revoke(OPERATOR, DEFAULT, key.id)
    assert is_good(other, value), "for two seconds at most"
    other.reload()
    assert not is_good(other, value)
    other_db.close()


def test_keys_are_found_in_their_project_only(db: Database):
    keys, projects = Keys(db), Projects(db)
    theirs = projects.create(OPERATOR, "theirs").scope
    key, _ = keys.mint(OPERATOR, theirs, "a", Access.WRITE)
    for call in (
        lambda: keys.get(DEFAULT, key.id),
        lambda: keys.rotate(OPERATOR, DEFAULT, key.id, 0),
        lambda: keys.revoke(OPERATOR, DEFAULT, key.id),
    ):
        with pytest.raises(NotFound):
            call()
    assert keys.list(DEFAULT, after=None, limit=10).items == []
    assert [k.id for k in keys.list(theirs, after=None, limit=10).items] == [key.id]
    assert keys.list(theirs, after="key_unknown", limit=10).items == []


def test_a_use_is_written_once_a_minute(db: Database):
    keys = Keys(db)
    _, value = keys.mint(OPERATOR, DEFAULT, "one", Access.WRITE)
    written = []
    event.listen(db._engines.writer, "before_cursor_execute", lambda *args: written.append(args[2]))
    for _ in range(100):
        key = keys.find(value)
        assert key is not None
        if keys.use_is_due(key):
            keys.note_use(key)
    assert len([statement for statement in written if statement.startswith("UPDATE api_keys")]) == 1
    used = keys.get(DEFAULT, key.id).last_used_at
    assert used is not None
    assert abs(used - time.time()) < 60
    fresh = Keys(db)
    assert not fresh.use_is_due(fresh.find(value)), "a restart does not write it again"


def test_a_use_that_cannot_be_written_is_no_error(db: Database, caplog: pytest.LogCaptureFixture):
    keys = Keys(db)
    key, _ = keys.mint(OPERATOR, DEFAULT, "one", Access.WRITE)
    with db.write() as tx:
        tx.execute(text("ALTER TABLE api_keys RENAME TO elsewhere"))
    keys.note_use(key)
    assert "the use of a key can't be written down" in caplog.text


# --- projects and the log ------------------------------------------------------------------------------------


def test_projects_belong_to_those_who_run_the_server(db: Database):
    projects = Projects(db)
    made = projects.create(OPERATOR, "theirs")
    its_admin = Caller("key_a", made.scope, Access.ADMIN)
    assert projects.find(its_admin, made.id) == made
    assert [p.id for p in projects.list(its_admin, after=None, limit=5, archived=True).items] == [made.id]
    assert [p.id for p in projects.list(OPERATOR, after=None, limit=5, archived=True).items] == [
        "proj_default",
        made.id,
    ]
    assert [p.id for p in projects.list(OPERATOR, after="proj_default", limit=5, archived=True).items] == [made.id]
    with pytest.raises(NotFound):
        projects.find(its_admin, "proj_default")
    for call in (
        lambda: projects.create(its_admin, "x"),
        lambda: projects.rename(its_admin, made.id, "x"),
        lambda: projects.archive(its_admin, made.id),
    ):
        with pytest.raises(Forbidden):
            call()
    with pytest.raises(Forbidden):
        projects.create(Caller("key_w", DEFAULT, Access.WRITE), "x")
    with pytest.raises(InvalidRequest, match="default project"):
        projects.archive(OPERATOR, "proj_default")


def test_an_archived_project_closes_its_keys(db: Database):
    keys, projects = Keys(db), Projects(db)
    made = projects.create(OPERATOR, "theirs")
    _, value = keys.mint(OPERATOR, made.scope, "a", Access.WRITE)
    assert is_good(keys, value)
    projects.archive(OPERATOR, made.id)
    keys.reload()
    assert not is_good(keys, value)
    assert projects.list(OPERATOR, after=None, limit=5, archived=False).items[-1].id == "proj_default"


def test_every_change_is_in_the_log(db: Database):
    keys, projects = Keys(db), Projects(db)
    first = keys.ensure(None)
    made = projects.create(OPERATOR, "theirs")
    projects.rename(OPERATOR, made.id, "still theirs")
    old, value = keys.mint(OPERATOR, made.scope, "a", Access.WRITE)
    its_admin = Caller("key_a", made.scope, Access.ADMIN)
    new, new_value = keys.rotate(its_admin, made.scope, old.id, 60)
    keys.revoke(its_admin, made.scope, old.id)
    projects.archive(OPERATOR, made.id)
    entries, more = audit.page(db, OPERATOR, after=None, limit=100)
    told = [(e.type, e.target_id, e.actor_key) for e in entries[::-1]]
    assert told[0][0::2] == ("api_key.created", None), "the server's own doing"
    assert told[1:] == [
        ("project.created", made.id, "key_operator"), ("project.updated", made.id, "key_operator"),
        ("api_key.created", old.id, "key_operator"), ("api_key.updated", old.id, "key_a"),
        ("api_key.created", new.id, "key_a"), ("api_key.deleted", old.id, "key_a"),
        ("project.archived", made.id, "key_operator"),
    ]  # fmt: skip
    assert not more
    assert not [e for e in entries if any(secret in str(e.details) for secret in (first, value, new_value))]
    theirs, _ = audit.page(db, its_admin, after=None, limit=100)
    assert [e.id for e in theirs] == [e.id for e in entries[:-1]]
    page, more = audit.page(db, its_admin, after=theirs[1].id, limit=2)
    assert ([e.id for e in page], more) == ([e.id for e in theirs[2:4]], True)
    assert audit.page(db, its_admin, after=entries[-1].id, limit=9)[0] == [], (
        "an entry of others is no place to go on from"
    )


# --- buckets -------------------------------------------------------------------------------------------------


def test_a_bucket_refills_by_time():
    now = [0.0]
    buckets = Buckets(60, lambda: now[0])
    assert [buckets.take("a").remaining for _ in range(60)] == list(range(59, -1, -1))
    empty = buckets.take("a")
    assert (empty.granted, empty.limit, empty.wait, empty.reset) == (False, 60, 1.0, 60.0)
    assert buckets.take("b").granted, "each name has its own"
    now[0] = 0.5
    assert not buckets.take("a").granted
    now[0] = 1.5
    assert buckets.take("a").granted
    assert not buckets.take("a").granted
    now[0] = 1e6
    assert buckets.take("a").remaining == 59, "never more than a minute's worth"


def test_a_bucket_without_a_limit_never_runs_out():
    buckets = Buckets(0)
    assert not buckets.are_limited
    assert all(buckets.take("a").granted for _ in range(1_000))


def test_many_names_take_little_memory():
    now = [0.0]
    buckets = Buckets(2, lambda: now[0])
    for i in range(30_000):
        buckets.take(f"address {i}")
        assert len(buckets._tokens) <= 10_001
    now[0] = 120
    for i in range(10_001):
        buckets.take(f"late {i}")
    assert len(buckets._tokens) <= 10_001


@pytest.mark.parametrize(
    ("has", "needs", "may"),
    [("read", "read", True), ("read", "write", False), ("read", "admin", False), ("write", "read", True), ("write", "write", True),
     ("write", "admin", False), ("admin", "read", True), ("admin", "write", True), ("admin", "admin", True)],
)  # fmt: skip
def test_each_scope_includes_those_before_it(has: str, needs: str, may: bool):
    assert Access(has).covers(Access(needs)) == may
    assert not Caller("k", Scope("proj_x"), Access(has)).runs_the_server
    assert Caller("k", DEFAULT, Access(has)).runs_the_server == (has == "admin")
