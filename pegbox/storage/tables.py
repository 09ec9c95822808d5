"""All tables, in SQLAlchemy Core. The migrations in `migrations/` bring a database to this shape.

`seq` is the order of insertion: lists are paged by it, because two rows may share a second.
Columns of type JSON hold what the wire types of `pegbox.wire` wrote, and are read back through them.
"""

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()


def _seq() -> Column[int]:
    return Column("seq", Integer, primary_key=True, autoincrement=True)


files = Table(
    "files",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created_at", Integer, nullable=False),  # unix seconds
    Column("filename", String, nullable=False),  # as the client named it; never used as a path
    Column("purpose", String, nullable=False),
    Column("sha256", String, nullable=False),  # of the content, hexadecimal
    Column("expires_at", Integer),  # unix seconds
    Column("status_details", String),  # what the first look found wrong with it, for the user
)

# What the queue needs to know of a job, whatever the job does.
jobs = Table(
    "jobs",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("status", String, nullable=False),  # a value of queue.states.Status
    Column("created_at", Integer, nullable=False),
    Column("started_at", Integer),
    Column("finished_at", Integer),
    Column("attempt", Integer, nullable=False, default=0),  # +1 at each claim
    Column("lease_token", String),  # random per claim; every write of a worker carries it
    Column("lease_until", Float),  # unix seconds
    Column("error_code", String),
    Column("error_message", String),
    Column("error_param", String),
    Index("jobs_by_status", "status", "seq"),
)

events = Table(
    "job_events",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    # Names the event within its job ("step:12"), so that what is read twice is stored once.
    Column("key", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", String, nullable=False),
    Column("data", JSON),
    UniqueConstraint("job_id", "key"),
    Index("events_by_job", "job_id", "seq"),
)

# What a fine-tuning job is, beside its row in `jobs`.
tunings = Table(
    "tunings",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("request", JSON, nullable=False),  # the body of the create call: wire.fine_tuning.CreateJob
    Column("model", String, nullable=False),  # the resolved base, or the tuned model trained on from
    Column("seed", Integer, nullable=False),
    Column("hyperparameters", JSON, nullable=False),  # "auto" until the worker has resolved them
    Column("fine_tuned_model", String),
    Column("trained_tokens", Integer),
    Column("result_file", String),
    Column("estimated_finish", Integer),  # unix seconds
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("model", String, nullable=False),  # its own ft:… name, a row of `adapters`
    Column("metrics", JSON, nullable=False),
    UniqueConstraint("job_id", "step"),
)

adapters = Table(
    "adapters",
    metadata,
    _seq(),
    Column("name", String, unique=True, nullable=False),  # ft:BASE:ORG:SUFFIX:ID[:ckpt-step-N]
    Column("base", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("job_id", String, nullable=False),
    Column("format", String, nullable=False),  # "chat" or "completion": what it was trained to answer
    Column("folder", String, nullable=False),  # below the data directory; PEFT format, or a whole model
    # The folder of the whole model that computes: the row's own, or that of the model its adapter lies over. None: the
    # base's, in the catalogue.
    Column("model_folder", String),
)

# Mail to send: written in the transaction that ends a job, so that no ending goes untold.
outbox = Table(
    "outbox",
    metadata,
    _seq(),
    Column("job_id", String, nullable=False),
    Column("kind", String, nullable=False),  # the job's final status
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", Float, nullable=False),  # unix seconds
    Column("delivered_at", Integer),
    Column("last_error", String),
)

api_keys = Table(
    "api_keys",
    metadata,
    _seq(),
    Column("sha256", String, unique=True, nullable=False),  # of the key; the key itself is never stored
    Column("hint", String, nullable=False),  # the last four characters
    Column("source", String, nullable=False),  # "settings" or "minted"
    Column("created_at", Integer, nullable=False),
)
