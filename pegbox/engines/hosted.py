"""The server's end of the pipe to an engine process. Speaks the Engine protocol; imports no torch."""

import json
import logging
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path

from pegbox import programs
from pegbox.engines.base import AdapterRef, Delta, Generation, TokenScore
from pegbox.errors import EngineError, FormError

log = logging.getLogger(__name__)
_START_SECONDS = 300

# All of the server's environment that a process with torch in it gets to see. What isn't here is kept from it: keys,
# passwords and addresses have too many names to list.
_KEPT = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
         "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "PYTHONWARNINGS", "XDG_CACHE_HOME"}  # fmt: skip
_KEPT_FAMILIES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "HSA_", "TORCH_", "PYTORCH_", "TORCHINDUCTOR_",
                  "TRITON_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_")  # fmt: skip

Message = dict[str, object]


class HostedEngine:
    """A child process that holds one base model. Safe to use from many threads."""

    def __init__(self, folder: Path, log_file: Path, *, threads: int, loaded_adapters: int) -> None:
        command = programs.command("pegbox.engines.host", str(folder), str(threads), str(loaded_adapters))
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=child_environment(), text=True, encoding="utf-8",
            )  # fmt: skip
        self._log_file = log_file
        self._sending = threading.Lock()
        self._waiting: dict[str, queue.Queue[Message]] = {"ready": queue.Queue()}
        self._ids = count(1)
        self._replies = threading.Thread(target=self._receive, name="engine-replies", daemon=True)
        self._replies.start()
        try:
            self._take(self._waiting["ready"], timeout=_START_SECONDS)
        except EngineError:
            self.close()
            raise
        del self._waiting["ready"]

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def stream(self, generation: Generation) -> Iterator[Delta]:
        key, replies = self._ask({"op": "stream", "generation": _plain(generation)})
        finished = False
        try:
            while not finished:
                delta = _delta(self._take(replies)["delta"])  # type: ignore[arg-type]
                finished = delta.finish is not None
                yield delta
        finally:
            self._waiting.pop(key, None)
            if not finished and self.alive:
                self._send({"op": "cancel", "id": key})

    def score(self, tokens: Sequence[int], adapter: AdapterRef | None, top: int = 0) -> list[TokenScore | None]:
        ref = asdict(adapter) if adapter else None
        key, replies = self._ask({"op": "score", "tokens": list(tokens), "adapter": ref, "top": top})
        try:
            scores: list[Message | None] = self._take(replies)["scores"]  # type: ignore[assignment]
        finally:
            self._waiting.pop(key, None)
        return [_token_score(score) for score in scores]

    def unload(self, adapter: str) -> None:
        if self.alive:
            self._send({"op": "unload", "id": "", "adapter": adapter})

    def close(self) -> None:
        """End the process; what it was generating is lost."""
        self._process.kill()
        self._replies.join()
        with self._sending, suppress(OSError):  # what was buffered for a dead process can't be flushed
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _ask(self, message: Message) -> tuple[str, "queue.Queue[Message]"]:
        key = str(next(self._ids))
        replies: queue.Queue[Message] = queue.Queue()
        self._waiting[key] = replies
        self._send({**message, "id": key})
        return key, replies

    def _send(self, message: Message) -> None:
        assert self._process.stdin is not None
        try:
            with self._sending:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
        except (OSError, ValueError):
            raise EngineError(self._obituary()) from None

    def _take(self, replies: "queue.Queue[Message]", timeout: float | None = None) -> Message:
        try:
            reply = replies.get(timeout=timeout)
        except queue.Empty:
            raise EngineError(f"the engine did not answer within {timeout:.0f} s") from None
        if "error" in reply:
            kind = FormError if reply.get("of_form") else EngineError
            raise kind(str(reply["error"]))
        return reply

    def _receive(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                reply = json.loads(line)
                if waiting := self._waiting.get(reply["id"]):  # else: cancelled meanwhile
                    waiting.put(reply)
        self._process.wait()
        for waiting in list(self._waiting.values()):
            waiting.put({"error": self._obituary()})

    def _obituary(self) -> str:
        status = self._process.poll()
        hint = " (out of memory?)" if status == -9 else ""
        return f"the engine process ended with status {status}{hint}; its log is {self._log_file.name}"


def child_environment() -> dict[str, str]:
    """What a process with torch in it gets to see: no secrets, no hub; an allocator that keeps the large buffers
    it will need again at once (measured: 10 % of a training step's time on a CPU); and threads that spin only a
    little when they wait for one another. With libgomp's own patience an answer beside two busy processes took
    21 s instead of 3; with none at all, training took 1.4 times as long.
    """
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.startswith(_KEPT_FAMILIES)}
    return kept | {
        "PYTHONPATH": programs.import_path(),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "GOMP_SPINCOUNT": "10000",
        "MALLOC_TOP_PAD_": str(256 * 2**20),
        "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
        "MALLOC_TRIM_THRESHOLD_": str(8 * 2**30),
    }


def _plain(generation: Generation) -> Message:
    return {**asdict(generation), "stop_ids": sorted(generation.stop_ids)}


def _delta(values: Message) -> Delta:
    score = _token_score(values.pop("score"))  # type: ignore[arg-type]
    return Delta(score=score, **values)  # type: ignore[arg-type]


def _token_score(values: Message | None) -> TokenScore | None:
    if values is None:
        return None
    top: list[tuple[int, float]] = values["top"]  # type: ignore[assignment]
    return TokenScore(float(values["logprob"]), tuple((token, logprob) for token, logprob in top))  # type: ignore[arg-type]
