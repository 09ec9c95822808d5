"""Every change of the tables, oldest first; Alembic applies what a database lacks."""
