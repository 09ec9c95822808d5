"""Projects: every row has one, keys are theirs, changes are audited, creates are idempotent."""

import time

import sqlalchemy as sa
from alembic import op

from pegbox import ids
from pegbox.storage.db import Whole

revision = "0003"
down_revision = "0002"
_DEFAULT = "proj_default"
_OWNED = ("files", "jobs", "job_events", "checkpoints", "adapters")
_LISTED = {"files": "files_by_project", "jobs": "jobs_by_project", "adapters": "adapters_by_project"}
_OLD_KEYS = sa.table("api_keys", *map(sa.column, ("seq", "sha256", "hint", "source", "created_at")))


def _seq() -> "sa.Column[int]":
    return sa.Column("seq", Whole, primary_key=True, autoincrement=True)


def upgrade() -> None:
    # A plain ADD COLUMN: to rebuild `jobs` would drop it, and what refers to it would go with it.
    for table in _OWNED:
        op.add_column(table, sa.Column("project_id", sa.String, nullable=False, server_default=_DEFAULT))
    for table, name in _LISTED.items():
        op.create_index(name, table, ["project_id", "seq"])
    op.add_column("tunings", sa.Column("created_by", sa.String))
    op.add_column("tunings", sa.Column("request_sha256", sa.String))
    op.create_index("tunings_by_request", "tunings", ["request_sha256"])
    op.create_table(
        "idempotency",
        sa.Column("project_id", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("request_sha256", sa.String, nullable=False),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", Whole, nullable=False),
    )
    op.create_index("idempotency_by_age", "idempotency", ["created_at"])
    _projects()
    _keys()
    op.create_table(
        "audit",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("effective_at", Whole, nullable=False),
        sa.Column("actor_key", sa.String),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("target_id", sa.String, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("audit_by_project", "audit", ["project_id", "seq"])


def _projects() -> None:
    projects = op.create_table(
        "projects",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("archived_at", Whole),
    )
    op.bulk_insert(projects, [{"id": _DEFAULT, "name": "Default project", "created_at": int(time.time())}])


def _keys() -> None:
    """The keys that are there stay good, as admin keys of the default project."""
    known = op.get_bind().execute(sa.select(_OLD_KEYS).order_by(_OLD_KEYS.c.seq)).all()
    op.drop_table("api_keys")
    keys = op.create_table(
        "api_keys",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("access", sa.String, nullable=False),
        sa.Column("sha256", sa.String, unique=True, nullable=False),
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("hint", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("expires_at", Whole),
        sa.Column("revoked_at", Whole),
        sa.Column("last_used_at", Whole),
    )
    op.create_index("keys_by_project", "api_keys", ["project_id", "seq"])
    names = {"settings": "PEGBOX_API_KEY", "minted": "first key"}
    rows = [
        {
            "id": ids.mint("key"), "project_id": _DEFAULT, "name": names.get(row.source, row.source), "access": "admin",
            "sha256": row.sha256, "prefix": "", "hint": row.hint, "source": row.source, "created_at": row.created_at,
        }
        for row in known
    ]  # fmt: skip
    if rows:
        op.bulk_insert(keys, rows)


def downgrade() -> None:
    old = op.get_bind().execute(sa.text("SELECT sha256, hint, source, created_at FROM api_keys ORDER BY seq")).all()
    for table in ("audit", "api_keys", "projects", "idempotency"):
        op.drop_table(table)
    op.drop_index("tunings_by_request", "tunings")
    op.drop_column("tunings", "request_sha256")
    op.drop_column("tunings", "created_by")
    for table, name in _LISTED.items():
        op.drop_index(name, table)
    for table in _OWNED:
        op.drop_column(table, "project_id")
    keys = op.create_table(
        "api_keys",
        _seq(),
        sa.Column("sha256", sa.String, unique=True, nullable=False),
        sa.Column("hint", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
    )
    if old:
        op.bulk_insert(keys, [row._asdict() for row in old])
