"""Run the trainer as a child process of this machine."""

import os
import signal
import subprocess
import sys
import time

from pegbox.durable import crash_environment
from pegbox.engines.hosted import child_environment
from pegbox.train.rundir import RunDir

_NICE = 5  # answering a chat goes before training


class LocalRun:
    """One `python -m pegbox.train RUNDIR`, in a process group of its own."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        env = {**child_environment(), **crash_environment(), "PEGBOX_PARENT": str(os.getpid())}
        with run.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pegbox.train", str(run.path)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, process_group=0,
            )  # fmt: skip
        os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, or None while it works."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """It saves where it stands after the step in hand, and ends."""
        self._run.request_stop()

    def stop(self, grace_seconds: float) -> None:
        """Ask, then kill. Returns when the process is gone and its memory with it."""
        self.ask_to_stop()
        deadline = time.monotonic() + grace_seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
