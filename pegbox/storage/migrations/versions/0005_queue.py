"""The queue's own order, whose job it is, who works on it, and how often that broke off."""

import sqlalchemy as sa
from alembic import op

from pegbox.storage.db import Whole

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("turn", Whole, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("lease_owner", sa.String))
    op.add_column("jobs", sa.Column("setbacks", Whole, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("not_before", sa.Float))
    op.execute("UPDATE jobs SET turn = seq")  # they were taken in the order of their numbers
    op.drop_index("jobs_by_status", "jobs")
    op.create_index("jobs_by_turn", "jobs", ["status", "turn", "seq"])
    op.create_index("jobs_by_project_turn", "jobs", ["project_id", "turn"])


def downgrade() -> None:
    op.drop_index("jobs_by_project_turn", "jobs")
    op.drop_index("jobs_by_turn", "jobs")
    op.create_index("jobs_by_status", "jobs", ["status", "seq"])
    for name in ("not_before", "setbacks", "lease_owner", "turn"):
        op.drop_column("jobs", name)
