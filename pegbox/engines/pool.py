"""Which models have an engine process. Started at the first question, started anew if it died.

Base models keep theirs. Tuned models that are whole have one each while they are asked; there are few, and the one that
was asked longest ago makes room for the next.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pegbox.engines.base import AdapterRef, Delta, Generation, TokenScore
from pegbox.engines.hosted import HostedEngine
from pegbox.errors import EngineError, Overloaded


@dataclass(frozen=True, slots=True)
class PoolSettings:
    threads: int
    loaded_adapters: int
    loaded_models: int  # tuned ones that are whole
    concurrent_generations: int
    log_folder: Path


class EnginePool:
    """One engine a base model, and one each of the few whole tuned models that were asked last."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._engines: dict[str, HostedEngine] = {}
        self._wanted: set[str] = set()  # bases that somebody wants to stay
        self._tuned: list[str] = []  # of the engines those of whole tuned models, longest unasked first
        self._asked: Counter[str] = Counter()  # by engine: who is using it now; of bases only borrowers
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
            self._asked[base] += 1
        try:
            yield engine
        finally:
            with self._starting:
                self._asked[base] -= 1
                if base not in self._wanted and not self._asked[base] and self._engines.get(base) is engine:
                    del self._engines[base]
                    engine.close()

    def tuned(self, key: str, folder: Path) -> "TunedEngine":
        """The engine of a whole tuned model, by the key of its folder. It is loaded when it is asked."""
        return TunedEngine(self, key, folder)

    @contextmanager
    def asking(self, key: str, folder: Path) -> Iterator[HostedEngine]:
        """A whole tuned model's engine, which stays until the question is answered. Raises Overloaded where as many
        as may be loaded are all answering."""
        with self._starting:
            if key not in self._tuned or not self._alive(key):
                self._make_room(key)
            engine = self._start(key, folder)
            self._tuned = [*(one for one in self._tuned if one != key), key]
            self._wanted.add(key)
            self._asked[key] += 1
        try:
            yield engine
        finally:
            with self._starting:
                self._asked[key] -= 1
                if key not in self._wanted:  # deleted meanwhile
                    self._drop(key)

    def forget(self, key: str) -> None:
        """A whole tuned model is gone: end its engine, or let it end with its last answer."""
        with self._starting:
            self._wanted.discard(key)
            self._drop(key)

    def _make_room(self, key: str) -> None:
        for one in [one for one in self._tuned if one != key]:
            if len(set(self._tuned) - {key}) < self._settings.loaded_models:
                return
            self._drop(one)
        if len(set(self._tuned) - {key}) >= self._settings.loaded_models:
            raise Overloaded(
                "As many tuned models as this server keeps in memory are answering; try again in a moment.",
                code="engine_overloaded",
            )

    def _drop(self, key: str) -> None:
        """End the engine of a whole tuned model that nobody is asking."""
        if self._asked[key]:
            return
        self._wanted.discard(key)
        self._tuned = [one for one in self._tuned if one != key]
        if engine := self._engines.pop(key, None):
            engine.close()

    def _alive(self, key: str) -> bool:
        engine = self._engines.get(key)
        return engine is not None and engine.alive

    def _start(self, base: str, folder: Path) -> HostedEngine:
        if self._closed:
            raise EngineError("the server is shutting down")
        engine = self._engines.get(base)
        if engine is None or not engine.alive:
            engine = HostedEngine(
                folder,
                self._settings.log_folder / f"engine-{_log_name(base, folder)}.txt",
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


@dataclass(frozen=True, slots=True)
class TunedEngine:
    """A whole tuned model as an Engine: its process is there when it is asked."""

    pool: EnginePool
    key: str
    folder: Path

    def stream(self, generation: Generation) -> Iterator[Delta]:
        with (
            self.pool.asking(self.key, self.folder) as engine,
            closing(engine.stream(generation)) as deltas,  # type: ignore[type-var]
        ):
            yield from deltas

    def score(self, tokens: Sequence[int], adapter: AdapterRef | None, top: int = 0) -> list[TokenScore | None]:
        with self.pool.asking(self.key, self.folder) as engine:
            return engine.score(tokens, adapter, top)

    def unload(self, adapter: str) -> None:
        self.pool.unload(self.key, adapter)

    def close(self) -> None:
        self.pool.forget(self.key)


def _log_name(key: str, folder: Path) -> str:
    """Of a base its folder's; of a whole tuned model its job's, too."""
    under = f"{folder.parent.name}/{folder.name}"
    return under.replace("/", "-") if key.endswith(under) else folder.name


class Slots:
    """How many generations may be open; more are refused at once instead of queued without end."""

    def __init__(self, total: int) -> None:
        self._free = threading.BoundedSemaphore(total)

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise Overloaded("Too many answers are being generated; try again in a moment.", code="engine_overloaded")

    def __exit__(self, *_: object) -> None:
        self._free.release()
