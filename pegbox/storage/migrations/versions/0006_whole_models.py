"""Tuned models that are whole, and adapters that lie over one."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("adapters", sa.Column("model_folder", sa.String))


def downgrade() -> None:
    op.drop_column("adapters", "model_folder")
