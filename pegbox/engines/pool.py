"""Which base models have an engine process. Started at the first question, started anew if it died."""

import threading
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
        self._starting = threading.Lock()
        self._closed = False
        self.slots = Slots(settings.concurrent_generations)

    def get(self, base: str, folder: Path) -> HostedEngine:
        """The engine of a base model. The first call for a base loads it, which takes seconds."""
        with self._starting:
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
