"""What an upload's first look found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("files", sa.Column("status_details", sa.String))


def downgrade() -> None:
    op.drop_column("files", "status_details")
