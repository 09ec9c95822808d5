"""Token buckets: so many requests a minute for each name, saved up to one minute's worth. In memory, per process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

_MOST_NAMES = 10_000


@dataclass(frozen=True, slots=True)
class Left:
    """What a bucket holds after it was asked. Times are in seconds."""

    granted: bool
    limit: int
    remaining: int
    wait: float  # until the next request is granted
    reset: float  # until the bucket is full again


class Buckets:
    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        """None of them ever runs out where `per_minute` is 0."""
        self._per_minute = per_minute
        self._now = now
        self._tokens: dict[str, tuple[float, float]] = {}  # name → tokens, and when that was so
        self._lock = Lock()

    @property
    def are_limited(self) -> bool:
        return self._per_minute > 0

    def take(self, name: str) -> Left:
        """Take one token for that name, if it has one."""
        if not self.are_limited:
            return Left(granted=True, limit=0, remaining=0, wait=0.0, reset=0.0)
        rate = self._per_minute / 60
        with self._lock:
            now = self._now()
            tokens = self._held(name, now)
            granted = tokens >= 1
            tokens -= granted
            self._tokens[name] = (tokens, now)
            if len(self._tokens) > _MOST_NAMES:
                self._forget_full(now)
        return Left(
            granted=granted,
            limit=self._per_minute,
            remaining=int(tokens),
            wait=max(0.0, (1 - tokens) / rate),
            reset=(self._per_minute - tokens) / rate,
        )

    def _held(self, name: str, now: float) -> float:
        tokens, at = self._tokens.get(name, (float(self._per_minute), now))
        return min(self._per_minute, tokens + (now - at) * self._per_minute / 60)

    def _forget_full(self, now: float) -> None:
        """A bucket that is full says no more than none. Where too few are, an address may start afresh."""
        kept = {name: held for name, held in self._tokens.items() if self._held(name, now) < self._per_minute}
        self._tokens = kept if len(kept) <= _MOST_NAMES // 2 else dict(list(kept.items())[-_MOST_NAMES // 2 :])
