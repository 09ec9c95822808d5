"""The statuses of a job and the moves between them. Pure; the diagram in ARCHITECTURE.md is made from MOVES."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The API's own six words, and two that a job shows only after somebody paused it (docs/decisions/0009)."""

    VALIDATING = "validating_files"  # created; its files are yet to be checked
    QUEUED = "queued"  # checked; waits for a free runner
    RUNNING = "running"  # a child process trains
    PAUSING = "pausing"  # it was asked to save where it stands and to end
    PAUSED = "paused"  # no process, no memory; waits for somebody to resume it
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: Mapping[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset({Status.QUEUED, Status.PAUSED, Status.FAILED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.PAUSING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.PAUSING: frozenset({Status.PAUSED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.PAUSED: frozenset({Status.VALIDATING, Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


def is_final(status: Status) -> bool:
    return not MOVES[status]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed, as its `error` shows it."""

    code: str
    message: str
    param: str | None


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A row of `jobs`."""

    id: str
    status: Status
    created_at: int
    started_at: int | None
    finished_at: int | None
    attempt: int
    lease_token: str | None
    lease_until: float | None
    failure: Failure | None
    project_id: str
    turn: int = 0  # its place in the queue: the smaller, the sooner
    setbacks: int = 0  # how often in a row work on it broke off without getting further


def diagram() -> str:
    """MOVES as a mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.VALIDATING}"]
    for status, targets in MOVES.items():
        lines += [f"    {status} --> {target}" for target in Status if target in targets]
        if not targets:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines)
