"""The end of a server, as requests see it: what is in flight may finish, for a while."""

import time


class Drain:
    """Begun when the server is told to end; over when even the last answer has had its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None

    def begin(self) -> None:
        if self._until is None:
            self._until = time.monotonic() + self._seconds

    @property
    def begun(self) -> bool:
        return self._until is not None

    @property
    def over(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until
