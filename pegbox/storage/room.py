"""How much more may be stored: what the disk has, less what is kept free, and no more than the quota."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pegbox.errors import StorageFull


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes, at one moment."""

    free: int  # that the disk has for us
    kept_free: int  # of it, to be left alone
    quota: int  # most that the data directory may hold; 0 where there is no limit
    used: int  # that it holds; 0 where there is no quota, because counting takes a walk

    @property
    def left(self) -> int:
        """What may still be stored."""
        on_disk = max(0, self.free - self.kept_free)
        return min(on_disk, max(0, self.quota - self.used)) if self.quota else on_disk

    def __str__(self) -> str:
        text = f"{mib(self.free)} free on the disk, of which {mib(self.kept_free)} are kept free"
        return f"{text}; {mib(self.used)} of the quota of {mib(self.quota)} are used" if self.quota else text


def look(root: Path, *, kept_free: int, quota: int) -> Room:
    free = shutil.disk_usage(root).free
    return Room(free, kept_free, quota, stored(root) if quota else 0)


def claim(room: Room, needed: int, what: str) -> None:
    """Raises StorageFull, with the numbers, where `needed` bytes are more than may be stored."""
    if needed > room.left:
        raise StorageFull(
            f"There is no room for {what} of {mib(needed)}: {room}. Delete files or models that nobody needs, "
            "run `pegbox collect`, or give the server more room.",
            code="insufficient_storage",
        )


def stored(root: Path) -> int:
    """Bytes of all files below a folder; those that go away meanwhile don't count."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - a Path each doubles the time
            except FileNotFoundError:
                continue
    return total


def mib(size: int) -> str:
    """`12.3 MiB`."""
    return f"{size / 2**20:,.1f} MiB"
