"""No query of what belongs to somebody goes around its project, and older databases get one for each row."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from pysqlite3 import dbapi2
from sqlalchemy import URL, create_engine, inspect, select, text

import pegbox
from pegbox.adapters import Adapters
from pegbox.auth.keys import Keys
from pegbox.errors import NotFound
from pegbox.files import Files
from pegbox.jobs import records
from pegbox.queue import store
from pegbox.storage import db as db_module
from pegbox.storage.blobs import Blobs
from pegbox.storage.db import Database
from pegbox.storage.scope import DEFAULT, Scope
from pegbox.storage.tables import files, metadata

ROOT = Path(pegbox.__file__).parent
OWNED = {table.name: table for table in metadata.sorted_tables if "project_id" in table.c}
NAMES = {
    "files",
    "jobs",
    "events",
    "checkpoints",
    "adapters",
    "tunings",
    "api_keys",
    "audit",
    "idempotency",
    "webhook_endpoints",
}
STATEMENTS = {"select", "insert", "update", "delete", "sqlite_insert"}
# Who may name such a table in a statement of their own, and why that lets nobody see what is not theirs.
AROUND = {
    ("auth/audit.py", "note"): "adds a row, and fills the project in",
    ("auth/audit.py", "page"): "all projects for those who run the server; of others through the scope",
    ("auth/keys.py", "note_use"): "a key that was checked",
    ("auth/keys.py", "_configure"): "at the start of a server",
    ("auth/keys.py", "_mint"): "adds a row, and fills the project in",
    ("auth/keys.py", "_all"): "callers add the scope, but for reload: the key says which project it is",
    ("auth/keys.py", "_admins"): "with the default project's condition",
    ("adapters.py", "delete"): "whether bytes are still in use, by whomever",
    ("files.py", "purge"): "what has expired, of whomever",
    ("jobs/execute.py", "_publish"): "the worker's job, under its lease",
    ("jobs/prepare.py", "prepare"): "the worker's job, under its lease",
    ("jobs/follow.py", "pull"): "the worker's job, under its lease",
    ("jobs/follow.py", "_record_checkpoint"): "the worker's job, under its lease",
    ("jobs/control.py", "resume"): "a job that was found through the scope",
    ("jobs/repeats.py", "remember"): "adds a row, and fills the project in",
    ("jobs/repeats.py", "_forget"): "what is older than a day, of whomever",
    ("jobs/repeats.py", "_same_body"): "with the scope's condition on jobs",
    ("jobs/submit.py", "_second_half"): "adds the second half of a job that `enqueue` added with its project",
    ("notify/deliver.py", "_mail"): "for the operator",
    ("notify/endpoints.py", "find"): "for a delivery, whose receiver was chosen through the scope",
    ("notify/endpoints.py", "disable"): "for a delivery, as above",
    ("upkeep/store.py", "references"): "which bytes have an owner, for those who run the server",
    ("api/event_stream.py", "_latest"): "how far the table reaches, for nobody's eyes",
    ("api/event_stream.py", "_told_since"): "which streams to wake; each reads through its own scope",
    ("api/health.py", "_reasons"): "whether the database answers",
    ("api/health.py", "show_metrics"): "numbers of jobs by status, for those who run the server",
}
# The queue serves all projects. What a user names never comes here by itself: only `jobs.records` reads for users.
WHOLE_FILES = {"queue/store.py", "queue/turns.py", "queue/outbox.py", "storage/tables.py"}


def around(path: Path) -> Iterator[tuple[str, int]]:
    """Functions with a statement on a table that belongs to projects, made without a Scope."""
    tree = ast.parse(path.read_text("utf-8"))
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
            begins = isinstance(call.func, ast.Name) and call.func.id in STATEMENTS
            goes_on = isinstance(call.func, ast.Attribute) and call.func.attr == "select_from"
            if begins or goes_on:
                named = {node.id for argument in call.args for node in ast.walk(argument) if isinstance(node, ast.Name)}
                if named & NAMES:
                    yield function.name, call.lineno


def test_no_statement_goes_around_the_scope() -> None:
    found = {}
    for path in ROOT.rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if name not in WHOLE_FILES and "migrations" not in name:
            found |= {(name, function): line for function, line in around(path)}
    assert found.keys() - AROUND.keys() == set(), "use the methods of storage.scope.Scope, or say here why not"
    assert AROUND.keys() - found.keys() == set(), "these are gone: take them off the list"


def test_the_list_of_tables_is_whole() -> None:
    listed = {"files", "jobs", "job_events", "checkpoints", "adapters", "api_keys", "audit", "idempotency"}
    assert set(OWNED) == listed | {"webhook_endpoints"}


def test_only_the_queue_and_workers_read_jobs_without_a_project() -> None:
    """`store.get` and `store.claim` know no project, so nothing that serves users may call them."""
    for path in [
        *(ROOT / "api").rglob("*.py"),
        ROOT / "jobs" / "control.py",
        ROOT / "jobs" / "submit.py",
        ROOT / "jobs" / "records.py",
    ]:
        assert "store.get(" not in path.read_text("utf-8"), path
        assert "store.claim(" not in path.read_text("utf-8"), path


def test_a_forgotten_project_is_no_legal_call(tmp_path: Path) -> None:
    db = Database(tmp_path / "pegbox.db")
    blobs = Blobs(tmp_path / "blobs")
    with db.read() as tx:
        for call in (
            lambda: Files(db, blobs).find("file-a"),
            lambda: Files(db, blobs).list(purpose=None, after=None, limit=1, newest_first=True),
            lambda: Adapters(db, blobs).find("ft:a"),
            lambda: Adapters(db, blobs).list(),
            lambda: records.find(tx, "ftjob-a"),
            lambda: records.list_events(tx, "ftjob-a", after=None, limit=1),
            lambda: store.enqueue(tx, "ftjob-a"),
        ):
            with pytest.raises(TypeError):
                call()
    db.close()


def test_rows_of_others_are_not_there(tmp_path: Path) -> None:
    db = Database(tmp_path / "pegbox.db")
    blobs = Blobs(tmp_path / "blobs")
    made, ours, theirs = Files(db, blobs), Scope("proj_a"), Scope("proj_b")
    ids = []
    for scope in (ours, theirs, ours):
        file = made.put(b"x", filename="a", purpose="batch")
        with db.write() as tx:
            made.record(tx, scope, file)
        ids.append(file.id)
    assert made.find(theirs, ids[0]) is None
    with pytest.raises(NotFound):
        made.delete(theirs, ids[0])
    assert [file.id for file in made.list(ours, purpose=None, after=None, limit=9, newest_first=False).items] == ids[
        ::2
    ]
    for after in (ids[1], "file-unknown"):
        page = made.list(ours, purpose=None, after=after, limit=9, newest_first=False)
        assert page.items == [], "a file of others is no place to go on from"
    db.close()


def test_events_belong_to_whom_their_job_belongs_to(tmp_path: Path) -> None:
    db = Database(tmp_path / "pegbox.db")
    ours, theirs = Scope("proj_a"), Scope("proj_b")
    with db.write() as tx:
        store.enqueue(tx, ours, "ftjob-a")
        store.tell(tx, "ftjob-a", store.Event("created", "Hello"))
        assert [event.message for event in records.list_events(tx, ours, "ftjob-a", after=None, limit=9).items] == [
            "Hello"
        ]
        assert records.list_events(tx, theirs, "ftjob-a", after=None, limit=9).items == []
    db.close()


def _migrate(path: Path, revision: str, step: str = "upgrade") -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(db_module.__file__).parent / "migrations"))
    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)), module=dbapi2)
    with engine.begin() as tx:
        tx.execute(text("PRAGMA foreign_keys=ON"))
        config.attributes["connection"] = tx
        getattr(command, step)(config, revision)
    engine.dispose()


def test_an_older_database_moves_into_the_default_project(tmp_path: Path) -> None:
    path = tmp_path / "pegbox.db"
    _migrate(path, "0002")
    old = create_engine(URL.create("sqlite+pysqlite", database=str(path)), module=dbapi2)
    with old.begin() as tx:
        for statement in (
            "INSERT INTO files (id, bytes, created_at, filename, purpose, sha256) VALUES ('file-a', 1, 1, 'a', 'fine-tune', '')",
            "INSERT INTO jobs (id, status, created_at, attempt) VALUES ('ftjob-a', 'succeeded', 1, 1)",
            "INSERT INTO job_events (id, job_id, key, created_at, level, type, message) VALUES ('e', 'ftjob-a', 'k', 1, 'info', 'message', 'm')",
            "INSERT INTO checkpoints (id, job_id, created_at, step, model, metrics) VALUES ('c', 'ftjob-a', 1, 1, 'ft:a', '{}')",
            "INSERT INTO adapters (name, base, created_at, job_id, format, folder) VALUES ('ft:a', 'tiny', 1, 'ftjob-a', 'chat', 'x')",
            "INSERT INTO api_keys (sha256, hint, source, created_at) VALUES ('7c4a8d09ca37', '6789', 'minted', 5)",
        ):
            tx.execute(text(statement))
    old.dispose()
    db = Database(path)
    with db.read() as tx:
        for name in ("files", "jobs", "job_events", "checkpoints", "adapters", "api_keys"):
            assert tx.execute(select(OWNED[name].c.project_id)).scalars().all() == ["proj_default"], name
        assert tx.execute(text("SELECT id, name FROM projects")).all() == [("proj_default", "Default project")]
        assert tx.execute(select(files.c.id).where(DEFAULT.owns(files))).scalars().all() == ["file-a"]
    key = next(iter(Keys(db)._known.values()))
    assert key.caller.runs_the_server
    assert (key.hint, key.created_at, key.is_good) == ("6789", 5, True)
    assert Keys(db).ensure(None) is None
    db.close()
    _migrate(path, "0002", "downgrade")
    back = create_engine(URL.create("sqlite+pysqlite", database=str(path)), module=dbapi2)
    with back.begin() as tx:
        assert "projects" not in inspect(tx).get_table_names()
        assert tx.execute(text("SELECT sha256, hint, created_at FROM api_keys")).all() == [("7c4a8d09ca37", "6789", 5)]
        assert tx.execute(text("SELECT count(*) FROM job_events")).scalar() == 1
    back.dispose()
