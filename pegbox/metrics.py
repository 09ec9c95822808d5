"""What the server counts about itself, for Prometheus: each room where the thing happens; `GET /metrics` shows it.

Names of what generates text are vLLM's with another prefix, so that its dashboards need one change. No label holds what
a client wrote: routes are the router's own patterns, never paths.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REGISTRY = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=REGISTRY)

_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)

HTTP_REQUESTS = Counter(
    "pegbox_http_requests", "requests answered", ["method", "route", "status"], registry=REGISTRY
)  # fmt: skip
HTTP_SECONDS = Histogram(
    "pegbox_http_request_duration_seconds", "until the last byte of the answer", ["route"],
    buckets=(*_SHORT, 5.0, 10.0, 30.0, 60.0), registry=REGISTRY,
)  # fmt: skip
UPLOAD_BYTES = Counter("pegbox_upload_bytes", "bytes of files that were stored", registry=REGISTRY)

RUNNING = Gauge("pegbox_num_requests_running", "generations that have begun to answer", registry=REGISTRY)
WAITING = Gauge("pegbox_num_requests_waiting", "generations whose first token is not there yet", registry=REGISTRY)
PROMPT_TOKENS = Counter("pegbox_prompt_tokens", "tokens of prompts", registry=REGISTRY)
GENERATION_TOKENS = Counter("pegbox_generation_tokens", "tokens generated", registry=REGISTRY)
FIRST_TOKEN = Histogram(
    "pegbox_time_to_first_token_seconds", "loading the model included", buckets=_LONG, registry=REGISTRY
)
NEXT_TOKEN = Histogram(
    "pegbox_inter_token_latency_seconds", "from a token to the next", buckets=_TOKEN, registry=REGISTRY
)
WHOLE_ANSWER = Histogram(
    "pegbox_e2e_request_latency_seconds", "from the start of a generation to its end", buckets=_LONG, registry=REGISTRY
)
SUCCESS = Counter(
    "pegbox_request_success", "generations that came to their end", ["finished_reason"], registry=REGISTRY
)

STEP_SECONDS = Histogram("pegbox_job_step_seconds", "an optimizer step of a job", buckets=_LONG, registry=REGISTRY)
TRAIN_TOKENS = Counter("pegbox_train_tokens", "tokens that jobs trained on", registry=REGISTRY)
LEASE_LOST = Counter(
    "pegbox_lease_lost", "times a worker lost its job: cancelled, paused, or taken by another", registry=REGISTRY
)
COMMIT_SECONDS = Histogram(
    "pegbox_db_commit_seconds", "committing a transaction that writes", buckets=_SHORT, registry=REGISTRY
)
DELIVERIES = Counter(
    "pegbox_deliveries", "attempts to tell of a job's end", ["by", "outcome"], registry=REGISTRY
)  # fmt: skip
