"""The receipt of a job, and what its rows cost. Not in OpenAI's API."""

from typing import Literal

from pegbox.wire.base import Response

Status = Literal["passed", "warned", "failed"]


class Check(Response):
    name: str
    status: Status
    ran: bool  # false: it could not be looked at, and `text` says why
    text: str
    remedy: str | None
    figures: dict[str, bool | int | float | str | None]


class Receipt(Response):
    object: Literal["fine_tuning.job.receipt"] = "fine_tuning.job.receipt"
    fine_tuning_job_id: str
    created_at: int
    status: Status  # of the gravest check
    base: str
    base_fingerprint: str
    trained_on_from: str | None  # the job whose model this one began with
    method: str
    step: int
    seed: int
    threads: int
    dtype: str
    seconds: float  # that gathering evidence and checking it took
    versions: dict[str, str]
    sha256: dict[str, str]  # of recipe, rows and adapter by file name, and of the chat template
    checks: list[Check]


class JobRow(Response):
    example: int  # the number of the row in the training file, from 1; blank lines don't count
    line: int | None  # in the training file; null where that was deleted
    first: float  # its loss in the first epoch, nats a trained token
    last: float  # in the last epoch
    losses: list[float]  # by epoch
    far: float  # how far the last loss is from the median row's, as a modified z-score
    never_learnt: bool
    looks_mislabelled: bool
    asked: str | None  # an excerpt, redacted
    answer: str | None


class JobRows(Response):
    object: Literal["fine_tuning.job.rows"] = "fine_tuning.job.rows"
    fine_tuning_job_id: str
    epochs: int
    rows: int  # that were trained
    never_learnt: int
    looks_mislabelled: int
    data: list[JobRow]
