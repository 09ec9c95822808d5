"""What a receipt says, and how it lies on disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pegbox import durable

Status = Literal["passed", "warned", "failed"]
Figures = Mapping[str, float | int | str | bool | None]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    text: str  # a sentence that a user reads
    figures: Figures = field(default_factory=dict)
    remedy: str = ""  # what to do where it did not pass
    ran: bool = True  # False: it could not be looked at; the text says why, and the status is a warning


@dataclass(frozen=True, slots=True)
class Receipt:
    """All that was found out about a trained model before it was published."""

    job_id: str
    created_at: int  # unix seconds
    base: str
    base_fingerprint: str
    trained_on_from: str | None  # the job whose model this one began with
    method: str
    step: int
    seed: int
    threads: int
    dtype: str
    seconds: float  # that evidence and checks took together
    versions: Mapping[str, str]
    hashes: Mapping[str, str]  # sha256
    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """That of its gravest check."""
        found = {check.status for check in self.checks}
        return "failed" if "failed" in found else "warned" if "warned" in found else "passed"

    def having(self, status: Status) -> list[Check]:
        return [check for check in self.checks if check.status == status]


def save(receipt: Receipt, path: Path) -> None:
    """Whole or not at all."""
    durable.put(path, json.dumps(asdict(receipt), indent=1).encode(), "receipt")


def load(path: Path) -> Receipt | None:
    """None where there is none."""
    if not path.exists():
        return None
    values = json.loads(path.read_text("utf-8"))
    return Receipt(**{**values, "checks": tuple(Check(**check) for check in values["checks"])})
