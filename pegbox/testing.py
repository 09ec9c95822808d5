"""A real server in a process of its own, for tests, the demo and benchmarks: start, kill and start again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

START_SECONDS = 60
STOP_SECONDS = 60


@dataclass
class ServerProcess:
    """`pegbox serve` on the loopback address, with its own data directory and key.

    Settings and keys of the surrounding environment don't count, but for the models directory; `settings` are
    PEGBOX_* variables. The port is a free one, found at the first start and kept.
    """

    data_dir: Path
    key: str
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        return self.data_dir.parent / "server.log"

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.root_url}/v1"

    def start(self) -> None:
        """Return once it answers. Raises RuntimeError, with the log, if it doesn't."""
        self.port = self.port or free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PEGBOX_", "OPENAI_"))}
        if "PEGBOX_MODELS_DIR" in os.environ:
            kept["PEGBOX_MODELS_DIR"] = os.environ["PEGBOX_MODELS_DIR"]
        command = [sys.executable, "-m", "pegbox.cli.main", "serve"]
        command += ["--data-dir", str(self.data_dir), "--host", "127.0.0.1", "--port", str(self.port)]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            env = {**kept, "PEGBOX_API_KEY": self.key, **self.settings}
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.root_url}/healthz", timeout=2, trust_env=False).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text('utf-8', 'replace')}")

    def kill(self) -> None:
        """As a power cut would: no goodbye."""
        assert self.process is not None, "not started"
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """In order, or by force where that takes too long. Does nothing if it is not running."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
