"""Power cuts on paper: record what a piece of work does to a folder, then make every state that a disk may legally be in
if the power fails meanwhile.

What counts is POSIX's word and no more. `fsync` of a file brings its bytes to the disk and not its name; `fsync` of a
folder brings the names in it and not the bytes behind them. What was not yet brought there may be on the disk or not, in
any combination: bytes as they were, as they are, cut short or zeros; a name added, changed or taken away, or not yet. A
rename is one change. The database keeps its own promise (a transaction is there, whole, when its commit returns), which
SQLite's authors test; it is copied as it is at each moment.

The recorder compares the folder with what it was at each flush, so that it sees what was written by whom ever.
"""

import itertools
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pegbox import durable

_MOST = 24  # states of one moment that are tried; where there are more, some are drawn at random
DATABASE = ("pegbox.db", "pegbox.db-wal", "pegbox.db-shm")


@dataclass(frozen=True)
class Node:
    """A file's bytes or a folder's names."""

    content: bytes | None = None
    names: dict[str, int] | None = None


@dataclass
class Disk:
    """By inode: how it surely is, and how it is in memory."""

    root: int
    sure: dict[int, Node] = field(default_factory=dict)
    now: dict[int, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """The power fails here."""

    done: str  # what was done last
    root: int
    sure: dict[int, Node]
    now: dict[int, Node]
    database: dict[str, bytes]

    def states(self) -> Iterator[dict[str, bytes | None]]:
        """Every legal content of the folder: path → bytes, or None for a folder."""
        seen = set()
        for combined in self._combined():
            state = combined | self.database
            key = tuple(sorted(state.items(), key=lambda item: item[0]))
            if key not in seen:
                seen.add(key)
                yield state

    def _combined(self) -> Iterator[dict[str, bytes | None]]:
        choices = [*self._bytes(), *self._names()]
        total = 1
        for _, options in choices:
            total *= len(options)
        if total <= _MOST:
            picks = itertools.product(*(range(len(options)) for _, options in choices))
        else:
            draw = random.Random(self.done)
            corners = [[0] * len(choices), [len(options) - 1 for _, options in choices]]
            alone = [[j == i for j in range(len(choices))] for i in range(len(choices))]
            random_ = ([draw.randrange(len(options)) for _, options in choices] for _ in range(_MOST))
            picks = itertools.chain(corners, alone, [[not one for one in row] for row in alone], random_)
        for pick in picks:
            yield self._laid_out({what: options[int(i)] for (what, options), i in zip(choices, pick, strict=True)})

    def _bytes(self) -> list[tuple[object, list[bytes]]]:
        """Of each file whose bytes are not sure: what may be there."""
        found: list[tuple[object, list[bytes]]] = []
        for inode, node in self.now.items():
            old = self.sure.get(inode, Node(content=b"")).content
            if node.content is None or node.content == old:
                continue
            new = node.content
            pairs = enumerate(zip(old, new, strict=False))
            kept = next((i for i, (one, other) in pairs if one != other), min(len(old), len(new)))
            torn = new[: kept + (len(new) - kept) // 2]
            found.append((inode, [old, new, torn, new[:kept] + bytes(len(new) - kept)]))
        return found

    def _names(self) -> list[tuple[object, list[bool]]]:
        """Of each change of names that is not sure: whether it is on the disk. A move is one change."""
        return [(change, [False, True]) for change in self._changes()]

    def _changes(self) -> list[tuple[tuple[int, str], ...]]:
        changed = []
        for inode, node in self.now.items():
            if node.names is None:
                continue
            old = self.sure.get(inode, Node(names={})).names or {}
            changed += [
                (inode, name)
                for name in sorted(old.keys() | node.names.keys())
                if old.get(name) != node.names.get(name)
            ]
        gone = {self._old(change): change for change in changed if self._new(change) != self._old(change)}
        groups: list[tuple[tuple[int, str], ...]] = []
        moved = set()
        for change in changed:
            source = gone.get(self._new(change)) if self._new(change) is not None else None
            if source is not None and source != change and self._new(source) is None:
                groups.append((source, change))
                moved |= {source, change}
        return [*groups, *((change,) for change in changed if change not in moved)]

    def _old(self, change: tuple[int, str]) -> int | None:
        return (self.sure.get(change[0], Node(names={})).names or {}).get(change[1])

    def _new(self, change: tuple[int, str]) -> int | None:
        return (self.now[change[0]].names or {}).get(change[1])

    def _laid_out(self, picked: dict[object, object]) -> dict[str, bytes | None]:
        names: dict[int, dict[str, int]] = {}
        for inode in self.sure.keys() | self.now.keys():
            names[inode] = dict(self.sure.get(inode, Node(names={})).names or {})
        for change, done in picked.items():
            if isinstance(change, tuple) and done:
                for inode, name in change:
                    new = self._new((inode, name))
                    names[inode].pop(name, None)
                    if new is not None:
                        names[inode][name] = new
        state: dict[str, bytes | None] = {}

        def walk(inode: int, path: str) -> None:
            for name, child in names[inode].items():
                here = f"{path}{name}"
                node = self.now.get(child) or self.sure.get(child) or Node(content=b"")  # written, and never flushed
                if node.names is not None:
                    state[here] = None
                    walk(child, f"{here}/")
                else:
                    kept = self.sure.get(child, node)
                    state[here] = picked.get(child, kept.content if child in self.sure else node.content)  # type: ignore[assignment]

        walk(self.root, "")
        return state


class Recorder:
    """Watches a folder while something works in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[int, int] = {}  # open descriptors, so that no inode's number is used again
        found = self._look()
        self._disk = Disk(root.stat().st_ino, sure=dict(found), now=found)
        self.moments: list[Moment] = []

    def flushed(self, path: Path) -> None:
        """Before `path` is flushed the power may fail; after it that much is sure."""
        self.cut(f"before the flush of {path.name}")
        if path.exists():
            inode = path.stat().st_ino
            if inode in self._disk.now:
                self._disk.sure[inode] = self._disk.now[inode]

    def cut(self, done: str) -> None:
        self._disk.now = self._look()
        database = {name: (self._root / name).read_bytes() for name in DATABASE if (self._root / name).exists()}
        self.moments.append(Moment(done, self._disk.root, dict(self._disk.sure), self._disk.now, database))

    def _look(self) -> dict[int, Node]:
        found: dict[int, Node] = {}
        for folder, below, files in os.walk(self._root):
            names = {}
            for name in [*below, *files]:
                path = Path(folder, name)
                if name in DATABASE or name.endswith(".lock"):
                    continue
                at = path.stat()
                names[name] = at.st_ino
                if at.st_ino not in self._held:
                    self._held[at.st_ino] = os.open(path, os.O_PATH)
                if stat.S_ISREG(at.st_mode):
                    found[at.st_ino] = Node(content=path.read_bytes())
            found[Path(folder).stat().st_ino] = Node(names=names)
        return found

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


@contextmanager
def recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Whatever this process flushes below `root`, and each commit of its database, is a moment at which to cut."""
    recorder = Recorder(root)
    flush, step = os.fsync, durable.step

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        recorder.flushed(path)
        flush(descriptor)

    def passed(name: str) -> None:
        recorder.cut(f"at {name}")
        step(name)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", watched)
        patched.setattr(durable, "step", passed)
        yield recorder
    recorder.cut("at the end")
    recorder.close()


def replay(moments: list[Moment], scratch: Path, check: Callable[[Path, Moment], None]) -> int:
    """Lay out every state of every moment and let `check` recover from it, the last moment first: what was promised by
    then is most, so a state that comes up again need not be checked again. Returns how many states there were."""
    count, seen = 0, set()
    for moment in reversed(moments):
        for state in moment.states():
            key = hash(tuple(sorted(state.items(), key=lambda item: item[0])))
            if key in seen:
                continue
            seen.add(key)
            root = scratch / "disk"
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir(parents=True)
            for name, content in sorted(state.items()):
                if content is None:
                    (root / name).mkdir(parents=True, exist_ok=True)
                else:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(content)
            count += 1
            check(root, moment)
    return count
