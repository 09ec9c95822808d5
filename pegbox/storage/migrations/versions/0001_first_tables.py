"""The first tables: files, jobs and their events, tunings, checkpoints, adapters, outbox, keys."""

import sqlalchemy as sa
from alembic import op

from pegbox.storage.db import Whole

revision = "0001"
down_revision = None


def _seq() -> "sa.Column[int]":
    return sa.Column("seq", Whole, primary_key=True, autoincrement=True)


def _job_id() -> "sa.Column[str]":
    return sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "files",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("bytes", Whole, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("filename", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("expires_at", Whole),
    )
    op.create_table(
        "jobs",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("started_at", Whole),
        sa.Column("finished_at", Whole),
        sa.Column("attempt", Whole, nullable=False),
        sa.Column("lease_token", sa.String),
        sa.Column("lease_until", sa.Float),
        sa.Column("error_code", sa.String),
        sa.Column("error_message", sa.String),
        sa.Column("error_param", sa.String),
    )
    op.create_index("jobs_by_status", "jobs", ["status", "seq"])
    op.create_table(
        "job_events",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        _job_id(),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("level", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("data", sa.JSON),
        sa.UniqueConstraint("job_id", "key"),
    )
    op.create_index("events_by_job", "job_events", ["job_id", "seq"])
    op.create_table(
        "tunings",
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("seed", Whole, nullable=False),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("fine_tuned_model", sa.String),
        sa.Column("trained_tokens", Whole),
        sa.Column("result_file", sa.String),
        sa.Column("estimated_finish", Whole),
    )
    op.create_table(
        "checkpoints",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        _job_id(),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("step", Whole, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.UniqueConstraint("job_id", "step"),
    )
    op.create_table(
        "adapters",
        _seq(),
        sa.Column("name", sa.String, unique=True, nullable=False),
        sa.Column("base", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("folder", sa.String, nullable=False),
    )
    op.create_table(
        "outbox",
        _seq(),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("attempts", Whole, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("delivered_at", Whole),
        sa.Column("last_error", sa.String),
    )
    op.create_table(
        "api_keys",
        _seq(),
        sa.Column("sha256", sa.String, unique=True, nullable=False),
        sa.Column("hint", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
    )
