"""Run the trainer as a child process of this machine."""

import os
import signal
import site
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pegbox
from pegbox.durable import crash_environment
from pegbox.engines.hosted import child_environment
from pegbox.errors import Setback
from pegbox.storage.lock import try_lock
from pegbox.train.rundir import RunDir

_NICE = 5  # answering a chat goes before training
_TERM_SECONDS = 5.0
_ORPHAN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take, and what it may see; 0 is no limit."""

    memory_bytes: int = 0  # of address space
    file_bytes: int = 0  # of any one file
    keep_out: Path | None = None  # the server's data directory: of that it sees its run directory
    reads: tuple[Path, ...] = ()  # and these


class LocalRun:
    """One `python -m pegbox.train RUNDIR`, in a process group of its own, without network and without secrets.

    It holds a lock on its run directory for as long as any process of it lives. A run that outlived its server is
    killed before this one starts. Raises Setback where the directory stays in use.
    """

    def __init__(self, run: RunDir, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._run = run
        self._walls = run.path / "walls.txt"
        os.chmod(run.path, 0o700)  # noqa: PTH101
        scratch = run.path / "tmp"  # the machine's may lie beside the data directory, and be shared
        scratch.mkdir(exist_ok=True)
        own = {"PYTHONPATH": _import_path(), "PEGBOX_PARENT": str(os.getpid()), "TMPDIR": str(scratch)}
        env = {**child_environment(), **crash_environment(), **own}
        python = [sys.executable, "-P"]  # no module is taken from the folder that it works in
        command = [*python, "-m", "pegbox.runners.child", "--parent", str(os.getpid())]
        command += ["--tell", str(self._walls)]
        if limits.keep_out is not None:
            command += ["--keep-out", str(limits.keep_out), "--writes", str(run.path)]
            command += [word for path in limits.reads for word in ("--reads", str(path))]
        command += ["--memory-bytes", str(limits.memory_bytes), "--file-bytes", str(limits.file_bytes), "--"]
        command += [*python, "-m", "pegbox.train", str(run.path)]
        with _locked(run) as lock, run.log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, process_group=0,
                cwd=run.path,
                pass_fds=(lock.fileno(),),  # the lock is the child's from here on
            )  # fmt: skip
            lock.truncate(0)
            lock.write(str(self._process.pid))
            lock.flush()
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exposure(self) -> str | None:
        """Why the run can reach the network, or what is not its own; None where it can't."""
        said = self._walls.read_text("utf-8") if self._walls.exists() else ""
        return "; ".join(line for line in said.splitlines() if line.startswith("not ")) or None

    def poll(self) -> int | None:
        """The exit status, or None while it works. What it left behind in its group is killed."""
        if self._process.returncode is None and _has_ended(self._process.pid):
            _kill_group(self._process.pid)  # before its number is given back
            self._process.wait()
        return self._process.returncode

    def ask_to_stop(self) -> None:
        """It saves where it stands after the step in hand, and ends."""
        self._run.request_stop()

    def stop(self, grace_seconds: float) -> None:
        """Ask, then tell, then kill. Returns when the process is gone and its memory with it."""
        self.ask_to_stop()
        if not self._ends_within(grace_seconds):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._ends_within(_TERM_SECONDS)
        self.kill()

    def kill(self) -> None:
        """From any thread, at any time."""
        if self.poll() is None:
            _kill_group(self._process.pid)
            self._process.wait()

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.poll() is not None


def _import_path() -> str:
    """As the server's own; and where pegbox is, if it was found without, as in a checkout."""
    given = os.environ.get("PYTHONPATH", "")
    root = str(Path(pegbox.__file__).resolve().parents[1])
    known = root in site.getsitepackages() or root in given.split(os.pathsep)
    return given if known else os.pathsep.join(filter(None, (given, root)))


def _locked(run: RunDir) -> IO[str]:
    """The run directory's lock. Whoever has it, and is a run of this machine, is killed: its server is gone, or has
    lost the job."""
    path = run.path / "lock"
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while (lock := try_lock(path)) is None:
        orphan = _orphan(path, run)
        if orphan is not None:
            _kill_group(orphan)
        if time.monotonic() > deadline:
            raise Setback("The folder of the run is still in use by an earlier attempt, on another machine perhaps.")
        time.sleep(0.05)
    return lock


def _orphan(lock: Path, run: RunDir) -> int | None:
    """The process group that holds the lock, if that can be told for certain."""
    try:
        pid = int(lock.read_text("ascii"))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if pid > 1 and os.fsencode(run.path) in words else None


def _has_ended(pid: int) -> bool:
    """Without taking its exit status, so that its number stays its own."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # another thread took it a moment ago
        return True


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
