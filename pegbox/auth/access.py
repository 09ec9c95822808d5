"""What a key may do, and who is asking."""

from dataclasses import dataclass
from enum import StrEnum

from pegbox.storage.scope import DEFAULT, Scope


class Access(StrEnum):
    """Each of them includes those before it."""

    READ = "read"  # look: nothing changes and nothing is computed
    WRITE = "write"  # upload, train, chat, delete
    ADMIN = "admin"  # keys and projects, too

    def covers(self, needed: "Access") -> bool:
        levels = list(Access)
        return levels.index(self) >= levels.index(needed)


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that was checked; all that routes know of whoever asks."""

    key_id: str
    scope: Scope
    access: Access

    @property
    def runs_the_server(self) -> bool:
        """Admin keys of the default project look after all projects; those of others after their own."""
        return self.access == Access.ADMIN and self.scope == DEFAULT
