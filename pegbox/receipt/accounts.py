"""Where the rows of a job's files went: written when they are read, balanced when the job has trained."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

_NAME = "accounts.json"  # in the run directory


@dataclass(frozen=True, slots=True)
class Account:
    """One file of the user's."""

    read: int  # rows
    used: int
    refused: Mapping[str, int] = field(default_factory=dict)  # rows by reason
    held_out: int = 0  # of the used rows: validated on, not trained
    cut: int = 0  # used or refused rows that were longer than the limit
    lost: int = 0  # tokens to learn that were cut off
    trained: int = 0  # tokens to learn in the used rows


@dataclass(frozen=True, slots=True)
class Accounts:
    training: Account
    validation: Account | None = None  # None: no validation file was given

    def save(self, folder: Path) -> None:
        (folder / _NAME).write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Accounts | None":
        """None for a run that was laid out without."""
        path = folder / _NAME
        if not path.exists():
            return None
        values = json.loads(path.read_text("utf-8"))
        other = values["validation"]
        return cls(Account(**values["training"]), Account(**other) if other else None)
