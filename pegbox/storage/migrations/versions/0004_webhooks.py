"""Webhook endpoints; what is told, apart from the deliveries of it."""

import secrets

import sqlalchemy as sa
from alembic import op

from pegbox.storage.db import Whole

revision = "0004"
down_revision = "0003"
_NEVER = 1e11  # what stood in `not_before` of a mail that was given up lies beyond


def _seq() -> "sa.Column[int]":
    return sa.Column("seq", Whole, primary_key=True, autoincrement=True)


def upgrade() -> None:
    _split_outbox()
    op.create_table(
        "webhook_endpoints",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("project_id", sa.String, nullable=False, server_default="proj_default"),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("event_types", sa.JSON, nullable=False),
        sa.Column("secret", sa.String, nullable=False),
        sa.Column("old_secret", sa.String),
        sa.Column("old_secret_until", sa.Float),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("updated_at", Whole, nullable=False),
        sa.Column("disabled_at", Whole),
    )
    op.create_table(
        "deliveries",
        _seq(),
        sa.Column("id", sa.String, unique=True, nullable=False),
        sa.Column("outbox_seq", Whole, sa.ForeignKey("outbox.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("endpoint_id", sa.String, sa.ForeignKey("webhook_endpoints.id", ondelete="CASCADE")),
        sa.Column("attempts", Whole, nullable=False),
        sa.Column("not_before", sa.Float),
        sa.Column("delivered_at", Whole),
    )
    op.create_index("deliveries_due", "deliveries", ["not_before"])
    op.create_index("deliveries_of_endpoint", "deliveries", ["endpoint_id", "seq"])
    op.create_table(
        "delivery_attempts",
        _seq(),
        sa.Column("delivery_id", sa.String, sa.ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("milliseconds", Whole, nullable=False),
        sa.Column("status_code", Whole),
        sa.Column("error", sa.String),
    )
    op.create_index("attempts_of_delivery", "delivery_attempts", ["delivery_id", "seq"])


def _split_outbox() -> None:
    """What was mailed, or given up, is over; what waits for its mail is routed anew, and mailed as before."""
    op.rename_table("outbox", "old_outbox")
    op.create_table(
        "outbox",
        _seq(),
        sa.Column("event_id", sa.String, unique=True, nullable=False),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("created_at", Whole, nullable=False),
        sa.Column("routed_at", Whole),
    )
    op.create_index("outbox_unrouted", "outbox", ["routed_at", "seq"])
    old = sa.table("old_outbox", *map(sa.column, ("seq", "job_id", "kind", "not_before", "delivered_at")))
    new = sa.table("outbox", *map(sa.column, ("event_id", "job_id", "kind", "created_at", "routed_at")))
    jobs = sa.table("jobs", sa.column("id"), sa.column("finished_at"))
    tx = op.get_bind()
    ended = {row.id: row.finished_at for row in tx.execute(sa.select(jobs.c.id, jobs.c.finished_at))}
    for row in tx.execute(sa.select(old).order_by(old.c.seq)).all():
        over = row.delivered_at is not None or row.not_before > _NEVER
        created = ended.get(row.job_id) or row.delivered_at or 0
        values = {"event_id": f"evt_{secrets.token_hex(12)}", "job_id": row.job_id, "kind": row.kind}
        tx.execute(sa.insert(new).values(**values, created_at=created, routed_at=created if over else None))
    op.drop_table("old_outbox")


def downgrade() -> None:
    """What was not routed yet waits for its mail; all else counts as mailed."""
    for table in ("delivery_attempts", "deliveries", "webhook_endpoints"):
        op.drop_table(table)
    op.drop_index("outbox_unrouted", "outbox")
    op.rename_table("outbox", "new_outbox")
    old = op.create_table(
        "outbox",
        _seq(),
        sa.Column("job_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("attempts", Whole, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("delivered_at", Whole),
        sa.Column("last_error", sa.String),
    )
    new = sa.table("new_outbox", *map(sa.column, ("seq", "job_id", "kind", "created_at", "routed_at")))
    tx = op.get_bind()
    for row in tx.execute(sa.select(new).order_by(new.c.seq)).all():
        delivered = None if row.routed_at is None else row.created_at
        values = {"job_id": row.job_id, "kind": row.kind, "attempts": 0, "not_before": 0.0}
        tx.execute(sa.insert(old).values(**values, delivered_at=delivered))
    op.drop_table("new_outbox")
