"""Alembic's entry: run the migrations on the connection that `storage.db` hands over."""

from alembic import context

from pegbox.storage.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
