"""The child process of a run: what it may, what it sees, and that it never works beside its successor."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from following import wait_for

from pegbox.errors import Setback
from pegbox.runners import local
from pegbox.runners.local import Limits, LocalRun
from pegbox.storage.lock import try_lock
from pegbox.train.rundir import RunDir

Start = Callable[..., LocalRun]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "run" / "control").mkdir(parents=True)
    return RunDir(tmp_path / "run")


@pytest.fixture
def start(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`start(code)`: a run whose trainer is this code; `say(value)` in it writes to said.json."""
    package = tmp_path / "stand-in" / "pegbox"
    (package / "train").mkdir(parents=True)
    here = Path(local.__file__).parents[1]
    for name in ("runners", "engines", "errors.py", "__init__.py"):
        (package / name).symlink_to(here / name)
    (package / "train" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    made: list[LocalRun] = []

    def begin(code: str, limits: Limits | None = None) -> LocalRun:
        head = "import json, os, sys, time\ndef say(value):\n    beside = os.path.join(sys.argv[1], 'beside')\n"
        head += "    json.dump(value, open(beside, 'w')); os.rename(beside, os.path.join(sys.argv[1], 'said.json'))\n"
        (package / "train" / "__main__.py").write_text(head + textwrap.dedent(code), "utf-8")
        made.append(LocalRun(run, limits))
        return made[-1]

    yield begin
    for one in made:
        one.kill()


def said(run: RunDir) -> object:
    path = run.path / "said.json"
    wait_for(path.exists, f"the child to speak: {run.last_words()}", 30)
    return json.loads(path.read_text("utf-8"))


def test_it_sees_no_secret_and_no_other_setting(run: RunDir, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = (
        "PEGBOX_API_KEY",
        "PEGBOX_DATABASE_URL",
        "PEGBOX_SMTP_PASSWORD",
        "OPENAI_API_KEY",
        "PGPASSWORD",
        "A_TOKEN",
    )
    for name in (*secrets, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    start("say(dict(os.environ))")
    seen = said(run)
    assert not set(secrets) & set(seen)
    assert [name for name in seen if name.startswith("PEGBOX_")] == ["PEGBOX_PARENT"]
    assert seen["OMP_NUM_THREADS"] == "7"
    assert seen["PATH"] == os.environ["PATH"]


def test_its_limits(run: RunDir, start: Start) -> None:
    code = """
    import resource
    names = ("CORE", "NOFILE", "AS", "FSIZE")
    said = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names}
    try:
        open(os.path.join(sys.argv[1], "large"), "wb").write(bytes(2 << 20))
    except OSError as error:
        said["large"] = error.strerror
    score = open("/proc/self/oom_score_adj").read()
    say({**said, "umask": os.umask(0), "group": os.getpgid(0) == os.getpid(), "score": int(score)})
    """
    start(code, Limits(memory_bytes=4 << 30, file_bytes=1 << 20))
    seen = said(run)
    assert seen["CORE"] == [0, 0]
    assert max(seen["NOFILE"]) <= 4096
    assert seen["AS"] == [4 << 30] * 2
    assert seen["FSIZE"] == [1 << 20] * 2
    assert seen["large"] == "File too large"
    assert (seen["umask"], seen["group"]) == (0o077, True)
    assert seen["score"] >= 500
    assert run.path.stat().st_mode & 0o777 == 0o700


def test_it_has_no_network(run: RunDir, start: Start) -> None:
    code = """
    import socket
    def made(family):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as one:
                one.settimeout(5)
                one.connect(("127.0.0.1", int(os.path.basename(sys.argv[1]) != "run") or 9))
        except OSError as error:
            return error.strerror
    socket.socketpair()
    say([made(socket.AF_INET), made(socket.AF_INET6)])
    """
    child = start(code)
    answers = said(run)
    if child.exposure() is not None:
        pytest.skip(f"this kernel does not let us: {child.exposure()}")
    assert answers == ["Permission denied"] * 2


def test_of_the_data_directory_it_sees_its_own_folder(tmp_path: Path, start: Start, run: RunDir) -> None:
    """A store with another job's rows, a base model inside it, a folder beside it; `run` lies in the store, too."""
    store, beside = tmp_path / "run" / "..", tmp_path / "run" / ".." / ".." / f"{tmp_path.name}-beside"
    for folder in (tmp_path / "other", tmp_path / "base", tmp_path / "cache", beside.resolve()):
        folder.mkdir()
        (folder / "rows").write_text("a secret", "utf-8")
    (tmp_path / "base" / "linked").symlink_to(tmp_path / "cache" / "rows")
    (tmp_path / "pegbox.db").touch()
    code = f"""
    import tempfile
    here = {str(tmp_path)!r}
    def trying(what, *words):
        try:
            with what(*words):
                return "done"
        except OSError as error:
            return error.strerror
    tempfile.NamedTemporaryFile().close()
    os.rename(tempfile.mkstemp(dir=sys.argv[1])[1], tempfile.mkdtemp() + "/moved")
    try:
        os.kill(os.getppid(), 0)
        signal = "sent"
    except OSError as error:
        signal = error.strerror
    say({{
        "database": trying(open, here + "/pegbox.db"), "other": trying(open, here + "/other/rows"),
        "new": trying(open, here + "/other/new", "w"), "cache": trying(open, here + "/cache/rows"),
        "base": trying(open, here + "/base/rows"), "linked": trying(open, here + "/base/linked"),
        "into base": trying(open, here + "/base/rows", "w"), "signal": signal,
        "beside": trying(open, here + "-beside/rows"), "into beside": trying(open, here + "-beside/rows", "w"),
        "own": trying(open, sys.argv[1] + "/mine", "w"), "null": trying(open, "/dev/null", "w"),
    }})
    """
    child = start(code, Limits(keep_out=store, reads=(tmp_path / "base",)))
    seen = said(run)
    if child.exposure() is not None:
        pytest.skip(f"this kernel does not let us: {child.exposure()}")
    done = {what for what, how in seen.items() if how == "done"}
    assert done == {"base", "linked", "cache", "beside", "own", "null"}  # cache/rows is what the base links to
    assert {how for what, how in seen.items() if what not in done and what != "signal"} == {"Permission denied"}
    assert seen["signal"] in ("Operation not permitted", "sent")  # before Linux 6.12 it can't be kept from that


def test_without_seccomp_a_namespace_and_without_that_the_truth() -> None:
    """In processes of their own, because there is no way back."""
    code = (
        "from pegbox.runners import isolation as i; i._refuse_sockets = lambda _: False; {}print(i.isolate_network())"
    )
    outcomes = []
    for more in ("", "i._leave_network = lambda _: False; "):
        told = subprocess.run([sys.executable, "-c", code.format(more)], capture_output=True, text=True, check=True)
        outcomes.append(told.stdout.strip())
    assert outcomes[0] == "none (a namespace of its own)" or outcomes[0].startswith("not isolated: the kernel refused")
    assert outcomes[1].startswith("not isolated: the kernel refused")


def test_it_is_asked_then_told_then_killed(run: RunDir, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_TERM_SECONDS", 0.2)
    code = """
    import signal
    heard = []
    def note(*_):
        heard.append("told")
        say(heard)
    signal.signal(signal.SIGTERM, note)
    say(heard)
    while True:
        if os.path.exists(os.path.join(sys.argv[1], "control", "stop")) and "asked" not in heard:
            heard.append("asked")
            say(heard)
        time.sleep(0.01)
    """
    child = start(code)
    said(run)
    child.stop(1.0)
    assert child.poll() == -signal.SIGKILL
    assert said(run) == ["asked", "told"]


def test_one_that_ends_when_asked_is_not_told(run: RunDir, start: Start) -> None:
    stop = "os.path.join(sys.argv[1], 'control', 'stop')"
    child = start(f"say(1)\nwhile not os.path.exists({stop}):\n    time.sleep(0.01)\n")
    said(run)
    child.stop(30)
    assert child.poll() == 0


def test_what_it_left_behind_ends_with_it(run: RunDir, start: Start) -> None:
    child = start("import subprocess\nsay(subprocess.Popen(['sleep', '60']).pid)\n")
    left = psutil.Process(said(run))
    wait_for(lambda: child.poll() is not None, "the child to end", 30)
    wait_for(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, "its own child to end", 10)


def test_an_orphan_is_killed_before_its_successor_starts(run: RunDir, start: Start) -> None:
    """A run whose server forgot it, as if the kernel had not told it of the server's end."""
    first = start("say(os.getpid())\ntime.sleep(60)")
    orphan = psutil.Process(said(run))
    (run.path / "said.json").unlink()
    second = start("say(os.getpid())\ntime.sleep(60)")
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert first.poll() == -signal.SIGKILL
    assert said(run) == second.pid


def test_a_folder_that_somebody_else_holds_is_a_setback(
    run: RunDir, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_ORPHAN_SECONDS", 0.2)
    with try_lock(run.path / "lock") as held:
        held.write(str(os.getpid()))  # a process, and not one of the run's: it is left alone
        held.flush()
        with pytest.raises(Setback, match="still in use by an earlier attempt"):
            start("say(1)")
    start("say(1)")
    assert said(run) == 1


def test_it_dies_with_its_server(run: RunDir, start: Start, tmp_path: Path) -> None:
    start("say(1)\ntime.sleep(60)").kill()
    (run.path / "said.json").unlink(missing_ok=True)
    code = "import sys, time; from pathlib import Path; from pegbox.runners.local import LocalRun; from pegbox.train.rundir import RunDir; "
    code += "child = LocalRun(RunDir(Path(sys.argv[1]))); print(child.pid, flush=True); time.sleep(60)"
    paths = os.pathsep.join([str(Path(local.__file__).parents[2])])
    env = {**os.environ, "PYTHONPATH": paths}
    code = f"import os; {code}".replace(
        "child = ", f"os.environ['PYTHONPATH'] = {os.environ['PYTHONPATH']!r}; child = "
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(run.path)], env=env, stdout=subprocess.PIPE, text=True)
    try:
        child = psutil.Process(int(server.stdout.readline()))
        said(run)
    finally:
        server.kill()
        server.communicate()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child to follow", 10)
