"""Which base models have an engine process. Started at the first question, started anew if it died."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pegbox.engines.hosted import HostedEngine
from pegbox.errors import EngineError, Overloaded


@dataclass(frozen=True, slots=True)
class PoolSettings:
    threads: int
    loaded_adapters: int
    concurrent_generations: int
    log_folder: Path


class EnginePool:
    """One engine a base model."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._engines: dict[str, HostedEngine] = {}
        self._wanted: set[str] = set()  # bases that somebody wants to stay
        self._starting = threading.Lock()
        self._closed = False
        self.slots = Slots(settings.concurrent_generations)

    def get(self, base: str, folder: Path) -> HostedEngine:
        """The engine of a base model. The first call for a base loads it, which takes seconds."""
        with self._starting:
            self._wanted.add(base)
            return self._start(base, folder)

    @contextmanager
    def borrow(self, base: str, folder: Path) -> Iterator[HostedEngine]:
        """The engine of a base model for a while. One that was started for this, and that nobody has asked for in the
        meantime, is ended afterwards: its memory belongs to the next job."""
        with self._starting:
            engine = self._start(base, folder)
        try:
            yield engine
        finally:
            with self._starting:
                if base not in self._wanted and self._engines.get(base) is engine:
                    del self._engines[base]
                    engine.close()

    def _start(self, base: str, folder: Path) -> HostedEngine:
        if self._closed:
            raise EngineError("the server is shutting down")
        engine = self._engines.get(base)
        if engine is None or not engine.alive:
            engine = HostedEngine(
                folder,
                self._settings.log_folder / f"engine-{folder.name}.txt",
                threads=self._settings.threads,
                loaded_adapters=self._settings.loaded_adapters,
            )
            self._engines[base] = engine
        return engine

    def unload(self, base: str, adapter: str) -> None:
        engine = self._engines.get(base)
        if engine is not None:
            engine.unload(adapter)

    def close(self) -> None:
        """End every process. Only loading waits for this lock, so a server stopping mid-load waits seconds."""
        with self._starting:
            self._closed = True
            for engine in self._engines.values():
                engine.close()


class Slots:
    """How many generations may be open; more are refused at once instead of queued without end."""

    def __init__(self, total: int) -> None:
        self._free = threading.BoundedSemaphore(total)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise Overloaded("Too many answers are being generated; try again in a moment.", code="engine_overloaded")

    def __exit__(self, *_: object) -> None:
        self._free.release()
