import hashlib
import json
import stat
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from conftest import only_postgres, only_sqlite
from pysqlite3 import dbapi2
from sqlalchemy import Integer, create_engine, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from pegbox.errors import PegboxError
from pegbox.queue import store
from pegbox.queue.states import Status
from pegbox.storage import db as db_module
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import HEAD, Database, insert_if_new, now
from pegbox.storage.lock import Owners, lock_folder
from pegbox.storage.paging import fetch, paged
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import events, files, jobs, metadata, projects


def add_file(name: str, *, size: int = 1) -> object:
    return insert(files).values(id=name, bytes=size, created_at=1, filename="x", purpose="fine-tune", sha256="")


# --- tables and migrations -----------------------------------------------------------------------------------


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(db_module.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_migrations_make_exactly_the_tables(db: Database) -> None:
    with db.read() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD


def test_the_queue_of_an_older_pegbox_keeps_its_order(tmp_path: Path) -> None:
    """Rows of the first release, the second of them under a lease of a process that nobody knows."""
    path = tmp_path / "old.db"
    plain = create_engine(f"sqlite+pysqlite:///{path}", module=dbapi2)
    config = Config()
    config.set_main_option("script_location", str(Path(db_module.__file__).parent / "migrations"))
    with plain.begin() as tx:
        config.attributes["connection"] = tx
        command.upgrade(config, "0002")
        for name in ("a", "b", "c"):
            tx.execute(text(f"INSERT INTO jobs (id, status, created_at, attempt) VALUES ('{name}', 'queued', 1, 0)"))
        tx.execute(text("UPDATE jobs SET lease_token = 'x', lease_until = 9e9 WHERE id = 'b'"))
    plain.dispose()
    db = Database(path)
    assert store.release(db, lambda owner: owner is None) == 1
    assert [store.claim(db, [Status.QUEUED]).id for _ in range(3)] == ["a", "b", "c"]
    db.close()


@only_sqlite
def test_foreign_keys_and_uniques_are_those_of_the_tables(db: Database, tmp_path: Path) -> None:
    """What Alembic's comparison passes over: the SQL text itself, spaces aside."""
    plain = create_engine(f"sqlite+pysqlite:///{tmp_path / 'plain.db'}", module=dbapi2)
    metadata.create_all(plain)
    query = text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name != 'alembic_version'")
    with plain.connect() as ours, db.read() as migrated:
        wanted, found = ({name: "".join(sql.split()) for name, sql in tx.execute(query)} for tx in (ours, migrated))
    plain.dispose()
    assert found == wanted


def test_opening_again_keeps_rows(db: Database, where: Path | str) -> None:
    with db.write() as tx:
        tx.execute(add_file("file-1"))
    again = Database(where)
    with again.read() as tx:
        assert tx.execute(select(files.c.id)).scalars().all() == ["file-1"]
    again.close()


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbapi2, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(PegboxError, match="pysqlite3"):
        Database(tmp_path / "x.db")
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "日本",
        "hash#tag",
        "a;b=c",
        pytest.param("per%20cent"),
        pytest.param("who?"),
    ],
)
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    Database(tmp_path / name / "pegbox.db").close()
    assert (tmp_path / name / "pegbox.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


# --- transactions --------------------------------------------------------------------------------------------


@only_sqlite
def test_the_connection_is_set_as_it_should(db: Database) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
    for open_ in (db.read, db.write):
        with open_() as tx:
            assert {name: tx.execute(text(f"PRAGMA {name}")).scalar() for name in wanted} == wanted


def test_an_exception_rolls_back(db: Database) -> None:
    def half() -> None:
        with db.write() as tx:
            tx.execute(add_file("file-1"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with db.read() as tx:
        assert tx.execute(select(func.count()).select_from(files)).scalar() == 0
    with db.write() as tx:  # and the writer is free again
        tx.execute(add_file("file-1"))


def test_a_row_needs_its_job_and_goes_with_it(db: Database) -> None:
    event = insert(events).values(id="e", job_id="j", key="k", created_at=1, level="info", type="message", message="m")
    with pytest.raises(IntegrityError), db.write() as tx:
        tx.execute(event)
    with db.write() as tx:
        tx.execute(insert(jobs).values(id="j", status="queued", created_at=1))
        tx.execute(event)
        tx.execute(delete(jobs))
        assert tx.execute(select(events)).all() == []


def test_a_reader_sees_one_moment_while_a_writer_goes_on(db: Database) -> None:
    with db.write() as tx:
        tx.execute(add_file("file-1"))
    count = select(func.count()).select_from(files)
    with db.read() as reader:
        assert reader.execute(count).scalar() == 1
        with db.write() as writer:
            writer.execute(add_file("file-2"))
        assert reader.execute(count).scalar() == 1
    with db.read() as reader:
        assert reader.execute(count).scalar() == 2


def test_readers_and_writers_at_once_lose_nothing(db: Database) -> None:
    """Each transaction writes a pair: no reader may ever see half of one."""

    def write(worker: int) -> None:
        for i in range(25):
            with db.write() as tx:
                tx.execute(add_file(f"{worker}-{i}-a"))
                tx.execute(add_file(f"{worker}-{i}-b"))

    def count() -> int:
        with db.read() as tx:
            return tx.execute(select(func.count()).select_from(files)).scalar()

    def read(writing: list[Future[None]]) -> list[int]:
        seen = [count()]
        while not all(future.done() for future in writing):
            seen.append(count())
        return seen

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, worker) for worker in range(3)]
        reading = [pool.submit(read, writing) for _ in range(3)]
    for future in writing:
        future.result()
    for future in reading:
        assert future.result() == sorted(future.result())
        assert not any(n % 2 for n in future.result())
    assert count() == 150


def test_numbers_of_deleted_rows_come_back_only_after_the_last(db: Database) -> None:
    with db.write() as tx:
        for name in ("a", "b", "c"):
            tx.execute(add_file(name))
        tx.execute(delete(files).where(files.c.id == "b"))
        tx.execute(add_file("d"))
        assert tx.execute(select(files.c.id).order_by(files.c.seq)).scalars().all() == ["a", "c", "d"]


def test_no_writer_runs_beside_another_so_rows_come_in_the_order_of_their_numbers(
    db: Database, where: Path | str
) -> None:
    """Two processes write. Who follows the table by `seq` sees every row: none appears behind what it has read."""
    other = Database(where)
    n = 40

    def write(to: Database, name: str) -> None:
        for i in range(n):
            with to.write() as tx:
                tx.execute(add_file(f"{name}-{i}"))

    followed: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(write, to, name) for to, name in ((db, "a"), (other, "b"))]
        last = 0
        while len(followed) < 2 * n:
            over = all(future.done() for future in writing)
            with db.read() as tx:
                rows = tx.execute(select(files.c.seq, files.c.id).where(files.c.seq > last).order_by(files.c.seq)).all()
            last = rows[-1].seq if rows else last
            followed += [row.id for row in rows]
            assert rows or not over, f"only {len(followed)} rows were seen"
    other.close()
    assert len(set(followed)) == 2 * n
    for name in "ab":
        assert [one for one in followed if one.startswith(name)] == [f"{name}-{i}" for i in range(n)]


def test_a_touch_changes_a_row(db: Database) -> None:
    with db.write() as tx:
        tx.execute(add_file("file-1"))
    with db.touch() as tx:
        tx.execute(update(files).values(bytes=7))
    with db.read() as tx:
        assert tx.execute(select(files.c.bytes)).scalar() == 7


@only_postgres
def test_a_touch_does_not_wait_for_a_writer(db: Database) -> None:
    with db.write() as tx:
        tx.execute(add_file("file-1"))
    with db.write() as writer:
        writer.execute(add_file("file-2"))
        with db.touch() as tx:
            tx.execute(update(files).where(files.c.id == "file-1").values(bytes=7))


@only_postgres
def test_a_reader_can_not_write(db: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only"), db.read() as tx:
        tx.execute(add_file("file-1"))


def test_new_rows_are_told_from_known_ones(db: Database) -> None:
    values = {"name": "x", "created_at": 1}
    with db.write() as tx:
        before = tx.execute(select(func.count()).select_from(projects)).scalar()
        assert insert_if_new(tx, projects, id="a", **values)
        assert not insert_if_new(tx, projects, id="a", **values)
        assert insert_if_new(tx, projects, id="b", **values)
        assert tx.execute(select(func.count()).select_from(projects)).scalar() == before + 2


def test_the_clock_is_the_databases_own(db: Database) -> None:
    before = time.time()
    with db.write() as tx:
        told = tx.execute(select(now())).scalar()
    assert before - 0.001 <= told <= time.time() + 0.001


def test_the_clock_of_sqlite_can_be_a_simulated_one(empty_sqlite: Path) -> None:
    db = Database(empty_sqlite, clock=lambda: 12.5)
    with db.read() as tx:
        assert tx.execute(select(now())).scalar() == 12.5
    db.close()


def test_every_number_that_counts_has_room(db: Database) -> None:
    """Bytes, seconds, rows: none ends at 2³¹."""
    narrow = [c for table in metadata.tables.values() for c in table.c if type(c.type) is Integer]
    assert narrow == [], "make it a `Whole` of storage/db.py, in the table and in the migration"
    with db.write() as tx:
        tx.execute(add_file("file-1", size=2**40))
        assert tx.execute(select(files.c.bytes)).scalar() == 2**40


def test_any_text_is_kept_and_a_nul_breaks_nothing(db: Database) -> None:
    name = "日本 🦜 \\u0000 ' % \u2028"
    with db.write() as tx:
        tx.execute(insert(jobs).values(id="j", status="queued", created_at=1))
        event = {"job_id": "j", "created_at": 1, "level": "info", "type": "message", "message": name}
        tx.execute(insert(events).values(id="e1", key="1", data={"a": name, "b": [1, None, 0.1]}, **event))
        tx.execute(insert(events).values(id="e2", key="2", data={"a": "x\0y"}, **{**event, "message": "x\0y"}))
        first, second = tx.execute(select(events).order_by(events.c.seq)).all()
        assert (first.message, first.data) == (name, {"a": name, "b": [1, None, 0.1]})
        assert second.data["a"] in ("x\0y", "x\ufffdy")
        found = select(events.c.id).where(events.c.data["a"].as_string() == name)
        assert tx.execute(found).scalars().all() == ["e1"]
        assert tx.execute(select(files).where(files.c.id == "a\0")).all() == []


def test_the_database_of_a_newer_pegbox_is_left_alone(db: Database, where: Path | str) -> None:
    with db.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    try:
        with pytest.raises(PegboxError, match="of a newer pegbox"):
            Database(where)
    finally:
        with db.write() as tx:
            tx.execute(text(f"UPDATE alembic_version SET version_num = '{HEAD}'"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:secret@h/n", "names mysql"),
        ("nonsense", "is not a URL"),
        ("postgresql://u:secret@127.0.0.1:1/n", "can't be used"),
        ("postgresql://u:secret@/n?host=/nowhere", "can't be used"),
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(url: str, said: str) -> None:
    with pytest.raises(PegboxError, match=said) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


# --- paging --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "limit", "newest_first", "items", "has_more"),
    [
        (None, 10, True, "edcba", False),
        (None, 5, True, "edcba", False),
        (None, 4, True, "edcb", True),
        (None, 2, True, "ed", True),
        ("d", 2, True, "cb", True),
        ("b", 2, True, "a", False),
        ("a", 2, True, "", False),
        (None, 3, False, "abc", True),
        ("c", 3, False, "de", False),
        ("e", 3, False, "", False),
        (None, 0, True, "", False),
        ("c", 0, True, "", False),
        ("gone", 5, True, "", False),
        ("gone", 5, False, "", False),
        ("", 5, True, "", False),
    ],
)
def test_pages(db: Database, after: str | None, limit: int, newest_first: bool, items: str, has_more: bool) -> None:
    with db.write() as tx:
        for name in "abcde":
            tx.execute(add_file(name))
    with db.read() as tx:
        statement = paged(
            DEFAULT, select(files), files.c.seq, files.c.id, follows=after is not None, newest_first=newest_first
        )
        page = fetch(tx, statement, after, limit)
    assert ("".join(row.id for row in page.items), page.has_more) == (items, has_more)


def test_pages_of_a_filtered_list(db: Database) -> None:
    with db.write() as tx:
        for i, name in enumerate("abcdef"):
            tx.execute(add_file(name, size=i % 2))
    with db.read() as tx:
        odd = select(files).where(files.c.bytes == 1)
        page = fetch(tx, paged(DEFAULT, odd, files.c.seq, files.c.id, follows=True), "e", 1)
    assert ([row.id for row in page.items], page.has_more) == (["d"], True)


LOCKS = {"naming.lock", "alive.lock"}


# --- blobs ---------------------------------------------------------------------------------------------------


def test_what_is_put_has_its_name_and_no_other(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "files")
    blobs.put("file-1", b"one")
    blobs.put("jobs/7/result.csv", b"two")
    blobs.put("file-1", b"new")
    assert blobs.path("file-1").read_bytes() == b"new"
    assert blobs.path("jobs/7/result.csv").read_bytes() == b"two"
    assert blobs.keys() == ["file-1", "jobs/7/result.csv"]
    assert {path.name for path in (tmp_path / "files" / "incoming").rglob("*")} <= LOCKS | {blobs.begin().parent.name}


def test_begin_and_commit(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    first, second = blobs.begin(), blobs.begin()
    assert first != second
    first.write_bytes(b"x")
    assert not blobs.path("file-1").exists()
    blobs.commit(first, "file-1")
    assert blobs.path("file-1").read_bytes() == b"x"
    assert not first.exists()


def test_leftovers_of_a_crash_go_at_start_and_nothing_else(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.put("file-1", b"kept")
    half, folder = blobs.begin(), blobs.begin()
    half.write_bytes(b"half")
    folder.mkdir()
    Blobs(tmp_path)
    assert half.read_bytes() == b"half", "its process lives"
    del blobs
    again = Blobs(tmp_path)
    assert [path.name for path in (tmp_path / "incoming").iterdir()] == ["naming.lock"]
    assert again.path("file-1").read_bytes() == b"kept"


def test_nobody_else_reads_what_comes_in(tmp_path: Path) -> None:
    Blobs(tmp_path / "files")
    assert stat.S_IMODE((tmp_path / "files" / "incoming").stat().st_mode) == 0o700


def test_put_folder_copies_the_named_files_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name, "utf-8")
    blobs = Blobs(tmp_path / "blobs")
    blobs.put_folder("adapters/1", source, ["a", "b"])
    (source / "a").write_text("changed", "utf-8")
    blobs.put_folder("adapters/1", source, ["a"])
    found = {path.name: path.read_text("utf-8") for path in blobs.path("adapters/1").iterdir()}
    manifest = json.loads(found.pop("manifest.json"))
    assert found == {"a": "a", "b": "b"}
    assert manifest == {name: hashlib.sha256(name.encode()).hexdigest() for name in "ab"}
    with pytest.raises(FileNotFoundError):
        blobs.put_folder("adapters/2", source, ["a", "missing"])
    assert not blobs.path("adapters/2").exists()


def test_put_folder_links_what_is_never_written_again(tmp_path: Path) -> None:
    """One place on the disk under two names; the first may go. Where a file is missing nothing stays behind."""
    blobs = Blobs(tmp_path / "blobs")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("large", "small"):
        (source / name).write_text(name)
    blobs.put_folder("a/b", source, ["large", "small"], linked=["large"])
    found = blobs.path("a/b")
    assert (found / "large").stat().st_ino == (source / "large").stat().st_ino
    assert (found / "small").stat().st_ino != (source / "small").stat().st_ino
    (source / "large").unlink()
    assert (found / "large").read_text() == "large"
    for names in (["large", "small"], ["small", "large"]):
        with pytest.raises(FileNotFoundError):
            blobs.put_folder("a/c", source, names, linked=["large"])
    assert not blobs.path("a/c").exists()
    left = [path for path in (tmp_path / "blobs" / "incoming").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


def test_where_links_are_refused_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("pegbox.storage.blobs.os.link", refuse)
    blobs = Blobs(tmp_path / "blobs")
    (tmp_path / "large").write_text("large")
    blobs.put_folder("a", tmp_path, ["large"], linked=["large"])
    assert (blobs.path("a") / "large").read_text() == "large"


def test_delete(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    blobs.put("file-1", b"x")
    blobs.put("folder/inner", b"x")
    for key in ("file-1", "folder", "never-there", "file-1"):
        blobs.delete(key)
    assert [path.name for path in tmp_path.iterdir()] == ["incoming"]


# --- the lock ------------------------------------------------------------------------------------------------

HOLD = "import sys, time; from pathlib import Path; from pegbox.storage.lock import lock_folder; held = lock_folder(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def test_one_process_holds_a_folder_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PegboxError, match="another pegbox server uses"):
            lock_folder(tmp_path)
    finally:
        holder.kill()
        holder.communicate()
    held = lock_folder(tmp_path)
    assert subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, check=False).returncode == 1
    held.close()
    lock_folder(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["server.lock"]


OWN = "import sys, time; from pathlib import Path; from pegbox.storage.lock import Owners; own = Owners(Path(sys.argv[1]), one_machine=True); print(own.name, flush=True); time.sleep(60)"


def test_a_process_is_known_to_live_until_it_ends(tmp_path: Path) -> None:
    mine = Owners(tmp_path, one_machine=True)
    other = subprocess.Popen([sys.executable, "-c", OWN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        name = other.stdout.readline().strip()
        assert not mine.is_dead(name)
        assert not mine.is_dead(mine.name)
        mine.forget_dead()
        assert {path.name for path in (tmp_path / "owners").iterdir()} == {mine.name, name}
    finally:
        other.kill()
        other.communicate()
    assert mine.is_dead(name)
    mine.forget_dead()
    assert [path.name for path in (tmp_path / "owners").iterdir()] == [mine.name]
    assert mine.is_dead(name)
    mine.close()
    assert mine.is_dead("") is mine.is_dead(None) is True


def test_of_another_machine_nothing_is_known(tmp_path: Path) -> None:
    here, anywhere = Owners(tmp_path, one_machine=True), Owners(tmp_path, one_machine=False)
    assert here.is_dead("another-boot.1"), "of this machine, before it was started anew"
    assert not anywhere.is_dead("another-boot.1"), "its lease has to run out"
    here.close()
    anywhere.close()
