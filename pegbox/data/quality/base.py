"""What a check is given, and what it must be."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pegbox.data.quality.findings import Finding
from pegbox.data.quality.items import Item
from pegbox.data.template import Template

if TYPE_CHECKING:
    from pegbox.data.quality.corpus import Corpus


@dataclass(frozen=True, slots=True)
class Deadline:
    """When to stop looking. Checks that take long ask now and then."""

    ends: float = float("inf")  # on time.monotonic's clock

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends


@dataclass(frozen=True, slots=True)
class Context:
    """All that checks may depend on, besides the rows."""

    template: Template | None = None  # of the base model, where one is named
    base_folder: Path | None = None  # its folder in hub layout, for its token embeddings
    limit: int = 0  # tokens an example; 0: unknown
    expected_refusals: float | None = None  # the share of refusals that is wanted in production
    deadline: Deadline = field(default_factory=Deadline)


class Check(Protocol):
    """Sees every good row of one file, in order; then says what it found.

    Memory must not grow with the file, but for counters with a cap and Columns. `found` may read rows again through
    the corpus. Excerpts are made by `text.excerpt`, which redacts.
    """

    @property
    def codes(self) -> tuple[str, ...]: ...

    def __init__(self, context: Context) -> None: ...

    def see(self, item: Item) -> None: ...

    def found(self, corpus: "Corpus") -> Iterator[Finding]: ...
