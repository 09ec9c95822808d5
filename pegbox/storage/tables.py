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
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from pegbox.storage.db import Whole

metadata = MetaData()
DEFAULT_PROJECT = "proj_default"  # the one that is always there, and that all older rows belong to


def _seq() -> Column[int]:
    return Column("seq", Whole, primary_key=True, autoincrement=True)


def _project() -> Column[str]:
    """Whose row it is. The default is for rows that are older than projects; `storage.scope` fills it in."""
    return Column("project_id", String, nullable=False, server_default=DEFAULT_PROJECT)


files = Table(
    "files",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("bytes", Whole, nullable=False),
    Column("created_at", Whole, nullable=False),  # unix seconds
    Column("filename", String, nullable=False),  # as the client named it; never used as a path
    Column("purpose", String, nullable=False),
    Column("sha256", String, nullable=False),  # of the content, hexadecimal
    Column("expires_at", Whole),  # unix seconds
    Column("status_details", String),  # what the first look found wrong with it, for the user
    _project(),
    Index("files_by_project", "project_id", "seq"),
)

# What the queue needs to know of a job, whatever the job does.
jobs = Table(
    "jobs",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("status", String, nullable=False),  # a value of queue.states.Status
    Column("created_at", Whole, nullable=False),
    Column("started_at", Whole),
    Column("finished_at", Whole),
    Column("attempt", Whole, nullable=False, default=0),  # +1 at each claim
    Column("lease_token", String),  # random per claim; every write of a worker carries it
    Column("lease_until", Float),  # unix seconds, by the database's clock
    Column("error_code", String),
    Column("error_message", String),
    Column("error_param", String),
    _project(),
    Column("turn", Whole, nullable=False, server_default="0"),  # its place in the queue: see queue/turns.py
    Column("lease_owner", String),  # the process that works on it: storage/lock.py
    Column("setbacks", Whole, nullable=False, server_default="0"),  # how often in a row work on it broke off
    Column("not_before", Float),  # unix seconds; it may not be claimed earlier
    Index("jobs_by_turn", "status", "turn", "seq"),
    Index("jobs_by_project", "project_id", "seq"),
    Index("jobs_by_project_turn", "project_id", "turn"),
)

events = Table(
    "job_events",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    # Names the event within its job ("step:12"), so that what is read twice is stored once.
    Column("key", String, nullable=False),
    Column("created_at", Whole, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", String, nullable=False),
    Column("data", JSON),
    _project(),
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
    Column("seed", Whole, nullable=False),
    Column("hyperparameters", JSON, nullable=False),  # "auto" until the worker has resolved them
    Column("fine_tuned_model", String),
    Column("trained_tokens", Whole),
    Column("result_file", String),
    Column("estimated_finish", Whole),  # unix seconds
    Column("created_by", String),  # the API key's id
    Column("request_sha256", String),  # of the body: a repeated call is found by it
    Index("tunings_by_request", "request_sha256"),
)

# Create calls that came with an Idempotency-Key: written with the job they made, kept for a day.
idempotency = Table(
    "idempotency",
    metadata,
    Column("project_id", String, primary_key=True),
    Column("key", String, primary_key=True),  # the client's own word
    Column("request_sha256", String, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),  # the answer is this job
    Column("created_at", Whole, nullable=False),
    Index("idempotency_by_age", "created_at"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Whole, nullable=False),
    Column("step", Whole, nullable=False),
    Column("model", String, nullable=False),  # its own ft:… name, a row of `adapters`
    Column("metrics", JSON, nullable=False),
    _project(),
    UniqueConstraint("job_id", "step"),
)

adapters = Table(
    "adapters",
    metadata,
    _seq(),
    Column("name", String, unique=True, nullable=False),  # ft:BASE:ORG:SUFFIX:ID[:ckpt-step-N]
    Column("base", String, nullable=False),
    Column("created_at", Whole, nullable=False),
    Column("job_id", String, nullable=False),
    Column("format", String, nullable=False),  # "chat" or "completion": what it was trained to answer
    Column("folder", String, nullable=False),  # below the data directory; PEFT format, or a whole model
    _project(),
    # The folder of the whole model that computes: the row's own, or that of the model its adapter lies over. None: the
    # base's, in the catalogue.
    Column("model_folder", String),
    Index("adapters_by_project", "project_id", "seq"),
)

# What is to be told: written in the transaction that ends a job, so that no ending goes untold. Who is told of it, by
# mail or by webhook, is a row of `deliveries` for each.
outbox = Table(
    "outbox",
    metadata,
    _seq(),
    Column("event_id", String, unique=True, nullable=False),  # evt_…, as receivers see it
    Column("job_id", String, nullable=False),
    Column("kind", String, nullable=False),  # the job's final status
    Column("created_at", Whole, nullable=False),
    Column("routed_at", Whole),  # when its deliveries were written; null = not yet
    Index("outbox_unrouted", "routed_at", "seq"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    _project(),
    Column("name", String, nullable=False),
    Column("url", String, nullable=False),
    Column("event_types", JSON, nullable=False),
    Column("secret", String, nullable=False),  # whsec_…; signing needs it as it is, so it can't be a hash
    Column("old_secret", String),  # signs as well until …
    Column("old_secret_until", Float),  # … unix seconds
    Column("created_at", Whole, nullable=False),
    Column("updated_at", Whole, nullable=False),
    Column("disabled_at", Whole),  # null = events are sent to it
)

# One thing to tell to one receiver.
deliveries = Table(
    "deliveries",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("outbox_seq", Whole, ForeignKey("outbox.seq", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", String, ForeignKey("webhook_endpoints.id", ondelete="CASCADE")),  # null = mail
    Column("attempts", Whole, nullable=False, default=0),
    Column("not_before", Float),  # unix seconds of the next attempt; null = there is none, it is over
    Column("delivered_at", Whole),
    Index("deliveries_due", "not_before"),
    Index("deliveries_of_endpoint", "endpoint_id", "seq"),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    _seq(),
    Column("delivery_id", String, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Whole, nullable=False),
    Column("milliseconds", Whole, nullable=False),
    Column("status_code", Whole),  # of the receiver's answer, if there was one
    Column("error", String),  # null = delivered
    Index("attempts_of_delivery", "delivery_id", "seq"),
)

projects = Table(
    "projects",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Whole, nullable=False),
    Column("archived_at", Whole),
)

api_keys = Table(
    "api_keys",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("access", String, nullable=False),  # a value of auth.keys.Access
    Column("sha256", String, unique=True, nullable=False),  # of the key; the key itself is never stored
    Column("prefix", String, nullable=False),  # the first characters, to tell keys apart
    Column("hint", String, nullable=False),  # the last four
    Column("source", String, nullable=False),  # "settings" or "minted"
    Column("created_at", Whole, nullable=False),
    Column("expires_at", Whole),
    Column("revoked_at", Whole),
    Column("last_used_at", Whole),  # true to the minute
    Index("keys_by_project", "project_id", "seq"),
)

# Who changed keys and projects: written in the transaction of the change, and never altered.
audit = Table(
    "audit",
    metadata,
    _seq(),
    Column("id", String, unique=True, nullable=False),
    Column("type", String, nullable=False),
    Column("effective_at", Whole, nullable=False),
    Column("actor_key", String),  # a key's id; the server itself where there is none
    Column("project_id", String, nullable=False),
    Column("target_id", String, nullable=False),
    Column("details", JSON, nullable=False),
    Index("audit_by_project", "project_id", "seq"),
)
