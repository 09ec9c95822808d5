"""Chat templates rendered in processes of their own, which may be killed. A template is a program of the model's
author: Jinja's sandbox keeps it from reaching anything, but not from running for ever or filling the memory.

A process is started at the first rendering and kept. It ends with this one, and when a template goes beyond its limits.
"""

import os
import select
import signal
import subprocess
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from json import dumps
from typing import BinaryIO, cast

from pegbox import programs
from pegbox.data.opaque import LookedIntoError, Opaque
from pegbox.errors import RenderError

CPU_SECONDS = 5  # of processor time for one rendering
MEMORY_BYTES = 2**30  # of address space
TEXT_BYTES = 32 * 2**20  # of what a template writes; a line of a training file has 8 MiB at most
_WALL_SECONDS = 120  # where the processor is not to be had, or the process was stopped
_PROCESSES = 4  # more renderings at a time wait for one another

# Of the environment only what Python needs to start, and what time it is here.
_KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")


def render(source: str, messages: list[dict[str, object]], given: Mapping[str, object]) -> str:
    """What a template writes of messages, and of what else it is given by name.

    Raises RenderError where the template refuses the messages, is wrong, or goes beyond a limit; LookedIntoError where
    it looked into an `Opaque`.
    """
    opaque = [i for i, message in enumerate(messages) if isinstance(message.get("content"), Opaque)]
    request = dumps({"source": source, "messages": messages, "given": given, "opaque": opaque}).encode()
    with _places:
        try:
            process = _idle.pop()
        except IndexError:
            process = _Process()
        kind, text = process.ask(request)
        _idle.append(process)  # if it did not fail
    if kind == "L":
        raise LookedIntoError
    if kind == "E":
        raise RenderError(text)
    return text


class _Process:
    """One `confined_child`. Not for two threads at a time."""

    def __init__(self) -> None:
        limits = map(str, (CPU_SECONDS, MEMORY_BYTES, TEXT_BYTES))
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            programs.command("pegbox.data.confined_child", *limits), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={**kept, "PYTHONPATH": programs.import_path()}, cwd="/",
        )  # fmt: skip
        self._close = weakref.finalize(self, _end, self._process)

    def ask(self, request: bytes) -> tuple[str, str]:
        """The letter and the text of its answer. Raises RenderError where it dies of the question."""
        inbox, out = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)
        try:
            inbox.write(f"{len(request)}\n".encode() + request)
            inbox.flush()
            if head := self._first_line(out):
                size = int(head[1:])
                if size <= TEXT_BYTES:
                    return chr(head[0]), out.read(size).decode()
        except (OSError, ValueError):
            pass  # it died, or speaks as no child of ours would
        raise RenderError(self._obituary())

    def _first_line(self, out: BinaryIO) -> bytes:
        """Empty where it died or does not answer."""
        poll = select.poll()
        poll.register(out, select.POLLIN)
        return out.readline(32) if poll.poll(_WALL_SECONDS * 1000) else b""

    def _obituary(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.returncode
        self._close()
        if status == -signal.SIGXCPU:
            return (
                f"the model's chat template takes more than {CPU_SECONDS} s of processor time for these messages; "
                "shorten them, or use another base model"
            )
        why = f"ended with status {status}" if status is not None else f"gave no answer within {_WALL_SECONDS} s"
        return f"the process of the model's chat template {why}; shorten the messages, or use another base model"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was buffered for a dead process can't be flushed
                pipe.close()


_places = threading.BoundedSemaphore(_PROCESSES)
_idle: list[_Process] = []
