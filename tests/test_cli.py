"""The command line as people run it: a process of its own against a real server, and one against a hostile one."""

import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
from conftest import KEY, SMOLLM2, Server, chat_row, finished, free_port, rows, write_jsonl
from openai import OpenAI

CLI = [sys.executable, "-m", "pegbox.cli.main"]
BELL_AND_COLOUR = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\x9b2J\u202eback"
STRIPPED = "]0;owned[31mred[0m2Jback"


def environment(base_url: str | None, key: str | None, **more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PEGBOX_", "OPENAI_", "COLUMNS"))}
    if base_url is not None:
        env["PEGBOX_BASE_URL"] = base_url
    if key is not None:
        env["PEGBOX_API_KEY"] = key
    return {**env, **more}


def run(*args: str | Path, base_url: str | None = None, key: str | None = KEY, stdin: str = "", **env: str):
    """The finished process. Whatever happens, nobody is shown a traceback."""
    done = subprocess.run(
        [*CLI, *map(str, args)], env=environment(base_url, key, **env), input=stdin.encode(), capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in done.stderr, done.stderr
    return done


def works(server: Server, *args: str | Path, **options: str) -> str:
    done = run(*args, base_url=server.base_url, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(*args: str | Path, **options: str | None) -> str:
    """What a failing command says: all of it on the error stream, status 1."""
    done = run(*args, **options)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert done.stderr.startswith("pegbox: ") or "\npegbox: " in done.stderr, done.stderr
    return done.stderr


def on_terminal(server: Server, *args: str, typed: tuple[bytes, ...] = ()) -> tuple[int, str]:
    """Exit status and everything shown, with a terminal of 100 columns at all three ends.

    At each prompt the next piece of `typed` is typed."""
    import fcntl
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    env = environment(server.base_url, KEY, TERM="xterm")
    process = subprocess.Popen([*CLI, *args], env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    shown, left = b"", list(typed)
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other end is gone
            break
        if not piece:
            break
        shown += piece
        if left and re.search(rb"> (\x1b\[[?0-9;]*[a-z])*$", shown):
            os.write(master, left.pop(0))
    os.close(master)
    return process.wait(timeout=60), shown.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("cli") / "train.jsonl", rows(12))


@pytest.fixture(scope="module")
def followed(server: Server, train: Path) -> str:
    """What `jobs create --follow` writes into a pipe."""
    valid = write_jsonl(train.parent / "valid.jsonl", rows(4))
    return works(
        server, "jobs", "create", train, "--valid", valid, "--model", "gpt-4o-mini", "--suffix", "cli", "--epochs", "2",
        "--batch-size", "4", "--lr-multiplier", "0.5", "--seed", "3", "--follow",
    )  # fmt: skip


@pytest.fixture(scope="module")
def job_id(followed: str) -> str:
    return followed.splitlines()[0]


@pytest.fixture(scope="module")
def tuned(followed: str) -> str:
    return re.search(r"^Tuned model: (ft:\S+)$", followed, re.MULTILINE)[1]


# --- start ---------------------------------------------------------------------------------------------------


def test_nothing_heavy_is_loaded_at_start() -> None:
    code = "import sys, pegbox.cli.main; print({'torch', 'transformers', 'matplotlib', 'numpy', 'openai', 'fastapi'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "set()"


def test_help_names_every_part() -> None:
    shown = run("--help").stdout
    for part in (
        "serve",
        "models",
        "files",
        "jobs",
        "chat",
        "compare",
        "--base-url",
        "PEGBOX_API_KEY",
        "OPENAI_BASE_URL",
    ):
        assert part in shown
    assert KEY not in shown


# --- errors --------------------------------------------------------------------------------------------------


def test_no_server() -> None:
    said = fails("jobs", "list", base_url=f"http://127.0.0.1:{free_port()}/v1")
    assert "no server answers" in said
    assert "pegbox serve" in said


def test_no_key_and_wrong_key(server: Server) -> None:
    said = fails("files", "list", base_url=server.base_url, key=None)
    assert "no API key" in said
    assert "PEGBOX_API_KEY" in said
    said = fails("files", "list", base_url=server.base_url, key="sk-wrong-key-0123456789")
    assert "Incorrect API key" in said
    assert "PEGBOX_API_KEY" in said
    assert "sk-wrong-key-0123456789" not in said
    assert "no key has" in fails("files", "list", base_url=server.base_url, key="sk-ключ")


def test_the_key_and_address_of_openai_scripts_count(server: Server) -> None:
    assert run("jobs", "list", key=None, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY=KEY).returncode == 0
    # an option wins over either
    done = run(
        "--base-url", server.base_url, "--api-key", KEY, "jobs", "list", key="no", base_url="http://127.0.0.1:1/v1"
    )
    assert done.returncode == 0


def test_an_address_that_is_none() -> None:
    from pegbox.cli.address import Address
    from pegbox.cli.client import Api
    from pegbox.errors import CommandFailed

    assert "no address of a server" in fails("jobs", "list", base_url="localhost:8000")
    for url in ("ftp://x/v1", "http://", "nonsense", "http://a:b"):
        with pytest.raises(CommandFailed, match="no address of a server"):
            Api(Address(url, KEY))


def test_an_address_without_v1(server: Server) -> None:
    said = fails("jobs", "list", base_url=server.base_url.removesuffix("/v1"))
    assert "does not end in /v1" in said


def test_the_server_s_refusal_is_shown_with_its_parameter(server: Server, train: Path) -> None:
    said = fails("jobs", "create", train, "--epochs", "0", base_url=server.base_url)
    assert "n_epochs" in said
    assert "parameter: method.supervised.hyperparameters.n_epochs" in said
    said = fails("jobs", "create", train, "--model", "no-such-model", base_url=server.base_url)
    assert "no-such-model is not available" in said
    assert "(parameter: model)" in said
    assert "not finite" in fails("jobs", "create", train, "--lr-multiplier", "nan", base_url=server.base_url)
    assert "Could not find fine tune: ftjob-x" in fails("jobs", "get", "ftjob-x", base_url=server.base_url)


def test_files_that_are_not_there(server: Server, tmp_path: Path) -> None:
    url = server.base_url
    assert "there is no file missing.jsonl" in fails("jobs", "create", "missing.jsonl", base_url=url)
    assert "there is no file" in fails("files", "upload", tmp_path / "none.jsonl", base_url=url)
    assert "is a folder" in fails("files", "upload", tmp_path, base_url=url)
    assert "there is no file" in fails("compare", "a", "b", "--file", tmp_path / "none.jsonl", base_url=url)
    assert "file-nope" in fails("files", "get", "file-nope", base_url=url)
    assert "file-nope" in fails("jobs", "create", "file-nope", base_url=url)


def test_a_setting_that_can_not_be() -> None:
    said = fails("models", "list", PEGBOX_PORT="many")
    assert "PEGBOX_PORT" in said
    said = fails("serve", PEGBOX_CONCURRENT_JOBS="0")
    assert "PEGBOX_CONCURRENT_JOBS" in said


# --- models --------------------------------------------------------------------------------------------------


def test_models_on_this_machine(tiny_catalog: Path, tmp_path: Path) -> None:
    shown = run("models", "list", key=None, PEGBOX_MODELS_DIR=str(tiny_catalog)).stdout
    assert f"{SMOLLM2}\t1\t512\tchat, completion\tfree\tApache-2.0\ttests" in shown
    assert f"gpt-4o-mini\t{SMOLLM2}\tchat\t512" in shown
    assert f"babbage-002\t{SMOLLM2}\tcompletion\t512" in shown
    empty = run("models", "list", key=None, PEGBOX_MODELS_DIR=str(tmp_path))
    assert empty.returncode == 0
    assert "pegbox models pull" in empty.stderr


def test_add_list_remove(tiny_model: Path, tmp_path: Path) -> None:
    env = {"PEGBOX_MODELS_DIR": str(tmp_path / "models"), "key": None}
    done = run("models", "add", tiny_model, "--name", "my-tiny", "--price", "2.5", **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("my-tiny: ")
    assert "checking" in done.stderr
    assert re.search(r"^my-tiny\t.*\t2\.5\t", run("models", "list", **env).stdout, re.MULTILINE)
    assert "my-tiny is removed" in run("models", "remove", "my-tiny", **env).stdout
    assert 'no base model "my-tiny"' in fails("models", "remove", "my-tiny", **env)
    assert (tiny_model / "config.json").exists()


def test_a_name_that_means_another_base(tiny_model: Path, tmp_path: Path) -> None:
    env = {"PEGBOX_MODELS_DIR": str(tmp_path / "models"), "key": None}
    run("models", "add", tiny_model, "--name", "my-tiny", **env)
    assert "gpt-4o-mini means my-tiny from now on" in run("models", "alias", "gpt-4o-mini", "my-tiny", **env).stdout
    assert "gpt-4o-mini\tmy-tiny\tchat" in run("models", "list", **env).stdout
    assert "is an alias already" in fails("models", "add", tiny_model, "--name", "gpt-4o-mini", **env)
    assert "means nothing any more" in run("models", "alias", "gpt-4o-mini", "--forget", **env).stdout
    assert "is no alias that was set here" in fails("models", "alias", "gpt-4o-mini", "--forget", **env)
    assert "name a base model, or say --forget" in fails("models", "alias", "gpt-4o-mini", **env)


def test_models_that_can_not_be_had(tmp_path: Path) -> None:
    env = {"PEGBOX_MODELS_DIR": str(tmp_path / "models"), "key": None}
    assert "is not in the table" in fails("models", "pull", "no-such", **env)
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in fails("models", "add", tmp_path / "empty", **env)
    assert "--price" in run("models", "add", tmp_path, "--price", "-1", **env).stderr


def test_pull_of_what_is_here_does_nothing(tiny_catalog: Path) -> None:
    done = run("models", "pull", SMOLLM2, key=None, PEGBOX_MODELS_DIR=str(tiny_catalog))
    assert done.returncode == 0
    assert "here already" in done.stderr


# --- files ---------------------------------------------------------------------------------------------------


def test_a_file_s_life(server: Server, train: Path, tmp_path: Path) -> None:
    file_id = works(server, "files", "upload", train).strip()
    assert re.fullmatch(r"file-\w{24}", file_id), "nothing but the id on standard output"
    assert file_id in works(server, "files", "list")
    shown = works(server, "files", "get", file_id)
    assert "train.jsonl" in shown
    assert f"{train.stat().st_size:,} bytes" in shown
    assert works(server, "files", "content", file_id) == train.read_text("utf-8")
    works(server, "files", "content", file_id, "--output", tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_bytes() == train.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["back.jsonl"]
    works(server, "files", "delete", file_id)
    assert file_id in fails("files", "content", file_id, "--output", tmp_path / "x", base_url=server.base_url)
    assert not (tmp_path / "x").exists()


def test_output_that_can_not_be_written(server: Server, train: Path, tmp_path: Path) -> None:
    file_id = works(server, "files", "upload", train).strip()
    said = fails("files", "content", file_id, "--output", tmp_path / "no" / "such" / "place", base_url=server.base_url)
    assert "can't be read or written" in said
    works(server, "files", "delete", file_id)


def test_memory_stays_flat_while_a_large_file_is_sent(server: Server, tmp_path: Path) -> None:
    def peak_kib(n: int) -> int:
        large = tmp_path / f"{n}.bin"
        with large.open("wb") as out:
            out.truncate(n)
        code = (
            "import atexit, sys; from pegbox.cli.main import app\n"
            "atexit.register(lambda: print(open('/proc/self/status').read(), file=sys.stderr)); app()"
        )
        command = [sys.executable, "-c", code, "files", "upload", str(large), "--purpose", "user_data"]
        done = subprocess.run(
            command, env=environment(server.base_url, KEY), capture_output=True, text=True, check=True
        )
        works(server, "files", "delete", done.stdout.strip())
        return int(re.search(r"VmHWM:\s+(\d+)", done.stderr)[1])

    assert peak_kib(128 << 20) - peak_kib(1 << 10) < 20 << 10


# --- jobs ----------------------------------------------------------------------------------------------------


def test_create_and_follow_in_a_pipe(followed: str, job_id: str, tuned: str) -> None:
    assert re.fullmatch(r"ftjob-\w{24}", job_id)
    lines = followed.splitlines()
    assert any("Step 6/6: training loss=" in line for line in lines)
    assert lines[-1] == f"Talk to it:  pegbox chat {tuned}"
    assert lines[-3] == f"{job_id} has succeeded."
    told = [line.split("  ", 1)[1] for line in lines[1:-3]]
    assert len(told) == len(set(told)), "every event once"
    assert "\x1b" not in followed
    assert ":cli:" in tuned


def test_what_was_asked_for_is_what_the_job_shows(server: Server, job_id: str, tuned: str) -> None:
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in works(server, "jobs", "get", job_id).splitlines())
    assert shown["status"] == "succeeded"
    assert shown["tuned model"] == tuned
    assert (shown["epochs"], shown["batch size"], shown["lr multiplier"], shown["seed"]) == ("2", "4", "0.5", "3")
    assert shown["validation file"].startswith("file-")


def test_lists(server: Server, job_id: str, tuned: str) -> None:
    assert re.search(rf"^{job_id}\tsucceeded\t{SMOLLM2}\t{tuned}\t", works(server, "jobs", "list"), re.MULTILINE)
    assert tuned in works(server, "models", "tuned")
    checkpoints = works(server, "jobs", "checkpoints", job_id).splitlines()
    assert [line.split("\t")[0] for line in checkpoints] == ["step", "6", "3"]
    assert len(works(server, "jobs", "list", "--limit", "1").splitlines()) == 2


def test_events_oldest_first(server: Server, job_id: str) -> None:
    told = works(server, "jobs", "events", job_id).splitlines()
    assert f"Created fine-tuning job: {job_id}" in told[0]
    assert "successfully completed" in told[-1]


def heed_interrupts() -> None:
    """A test run in the background of a shell ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_job_can_start_from_an_uploaded_file(server: Server, tmp_path: Path) -> None:
    """Also: Ctrl-C ends the watching, not the job; cancel ends the job, which would go on for thousands of steps."""
    many = write_jsonl(tmp_path / "many.jsonl", rows(190))
    file_id = works(server, "files", "upload", many).strip()
    job_id = works(server, "jobs", "create", file_id, "--epochs", "50", "--batch-size", "1").strip()
    command = [*CLI, "jobs", "events", job_id, "--follow"]
    with subprocess.Popen(
        command, env=environment(server.base_url, KEY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - one call, before anything else runs
    ) as watching:  # fmt: skip
        try:
            for line in watching.stdout:
                if "Step 1/" in line:
                    break
            watching.send_signal(signal.SIGINT)
            _, said = watching.communicate(timeout=30)
        finally:
            watching.kill()
    assert watching.returncode == 130
    assert "The job goes on" in said
    assert "Traceback" not in said
    assert works(server, "jobs", "cancel", job_id).strip() == f"{job_id} is cancelled."
    assert "already completed" in fails("jobs", "cancel", job_id, base_url=server.base_url)
    assert "there is no tuned model" in fails("jobs", "events", job_id, "--follow", base_url=server.base_url)


def test_a_job_is_paused_and_resumed_while_somebody_follows(server: Server, train: Path) -> None:
    job_id = works(server, "jobs", "create", train, "--epochs", "50", "--batch-size", "1").strip()
    command = [*CLI, "jobs", "events", job_id, "--follow"]
    with subprocess.Popen(
        command, env=environment(server.base_url, KEY), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        try:
            until_line(watching.stdout, "Step 1/")
            asked = run("jobs", "pause", job_id, base_url=server.base_url)
            assert asked.stdout.strip() == f"{job_id} is pausing."
            assert f"Resume it with `pegbox jobs resume {job_id}`." in asked.stderr
            until_line(watching.stdout, "Job paused at step ")
            said = until_line(watching.stderr, "The job is paused")
            assert said.strip().endswith(f"Resume it with `pegbox jobs resume {job_id}`.")
            assert re.search(rf"^{job_id}\tpaused\t", works(server, "jobs", "list"), re.MULTILINE)
            assert works(server, "jobs", "pause", job_id).strip() == f"{job_id} is paused."
            assert works(server, "jobs", "resume", job_id).strip() == f"{job_id} is queued."
            until_line(watching.stdout, "Training resumed after step ")
            works(server, "jobs", "cancel", job_id)
            _, said = watching.communicate(timeout=60)
        finally:
            watching.kill()
    assert watching.returncode == 1
    assert "is cancelled, so there is no tuned model" in said
    assert "The job is paused" not in said, "once a pause"
    for verb in ("pause", "resume"):
        assert "already completed" in fails("jobs", verb, job_id, base_url=server.base_url)


def until_line(stream: IO[str], text: str) -> str:
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"the stream ended without {text!r}")


def test_a_preference_job(server: Server, client: OpenAI) -> None:
    pairs = Path(__file__).parents[1] / "examples" / "preferences" / "train.jsonl"
    asked = ("--model", "tiny", "--method", "dpo", "--beta", "0.2", "--epochs", "2", "--batch-size", "20")
    job_id = works(server, "jobs", "create", pairs, *asked).strip()
    shown = works(server, "jobs", "get", job_id)
    assert re.search(r"^method +dpo$", shown, re.MULTILINE)
    assert re.search(r"^beta +0.2$", shown, re.MULTILINE)
    hyperparameters = client.fine_tuning.jobs.retrieve(job_id).method.dpo.hyperparameters
    assert (hyperparameters.beta, hyperparameters.n_epochs, hyperparameters.batch_size) == (0.2, 2, 20)
    said = fails("jobs", "create", pairs, "--beta", "0.2", base_url=server.base_url)
    assert "--beta belongs to preference tuning; add --method dpo" in said
    said = fails("jobs", "create", pairs, "--method", "magic", base_url=server.base_url)
    assert "tuned by supervised or dpo, not by magic" in said
    plain = works(server, "jobs", "create", pairs, "--model", "tiny", "--method", "dpo").strip()
    assert client.fine_tuning.jobs.retrieve(plain).method.type == "dpo"
    for made in (job_id, plain):
        finished(client, made)


def test_a_job_that_fails_says_why(server: Server, tmp_path: Path) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [*rows(11), {"messages": []}])
    said = fails("jobs", "create", bad, "--follow", base_url=server.base_url)
    assert "failed: " in said
    assert "12" in said, "names the example"


def test_follow_on_a_terminal_draws_a_bar(server: Server, job_id: str, tuned: str) -> None:
    status, shown = on_terminal(server, "jobs", "events", job_id, "--follow")
    assert status == 0
    assert re.search(r"step 6/6 +loss \d\.\d+ +accuracy +\d+%", shown)
    assert "New fine-tuned model created" in shown
    assert f"pegbox chat {tuned}" in shown


# --- chat ----------------------------------------------------------------------------------------------------


def answer(client: OpenAI, model: str, question: str, most: int = 8) -> str:
    said = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=most
    )
    return said.choices[0].message.content or ""


def test_one_question(server: Server, client: OpenAI, tuned: str) -> None:
    from pegbox.cli.screen import clean

    expected = clean(answer(client, tuned, "Colour?")) + "\n"
    short = ("--max-tokens", "8", "--temperature", "0")
    assert works(server, "chat", tuned, "Colour?", *short) == expected
    assert works(server, "chat", tuned, *short, stdin="Colour?") == expected
    assert "no-model" in fails("chat", "no-model", "Hello", base_url=server.base_url)


def test_a_conversation(server: Server, tuned: str) -> None:
    status, shown = on_terminal(
        server,
        "chat",
        tuned,
        "--max-tokens",
        "4",
        "--temperature",
        "0",
        "--system",
        "Be brief.",
        typed=(b"Colour?\n", b"\n", b"And now?\n", b"\x04"),
    )
    assert status == 0
    assert shown.count("> ") >= 4, "two questions, an empty line, the end"
    assert "Traceback" not in shown


# --- compare -------------------------------------------------------------------------------------------------


def test_compare(server: Server, client: OpenAI, tuned: str, job_id: str, tmp_path: Path) -> None:
    questions = [f"Question {i}?" for i in range(4)]
    base_says = [answer(client, SMOLLM2, q) for q in questions]
    tuned_says = [answer(client, tuned, q) for q in questions]
    expected = [f" {tuned_says[0]}\n", base_says[1], "neither says this", tuned_says[3]]
    file = write_jsonl(
        tmp_path / "rows.jsonl",
        [
            *(chat_row(q, a, system=None) for q, a in zip(questions, expected, strict=True)),
            {"messages": [{"role": "user", "content": "No answer is known."}]},
        ],
    )
    out = tmp_path / "out"
    shown = works(server, "compare", SMOLLM2, tuned, "--file", file, "--max-tokens", "8", "--output", out)
    base_right = sum(a.strip() == e.strip() for a, e in zip(base_says, expected, strict=True))
    tuned_right = sum(a.strip() == e.strip() for a, e in zip(tuned_says, expected, strict=True))
    assert base_right >= 1
    assert tuned_right >= 2
    assert f"exact matches of 4 rows: base {base_right} ({base_right / 4:.0%}), tuned {tuned_right}" in shown
    assert str(out / "curves.png") in shown
    assert str(out / "compare.json") in shown

    report = json.loads((out / "compare.json").read_text("utf-8"))
    assert report["score"] == {
        "rows": 4, "base_right": base_right, "tuned_right": tuned_right, "base": base_right / 4, "tuned": tuned_right / 4
    }  # fmt: skip
    assert [a["base"] for a in report["answers"][:4]] == base_says
    assert [a["tuned"] for a in report["answers"][:4]] == tuned_says
    assert report["answers"][0]["tuned_right"] is True
    assert report["answers"][2]["tuned_right"] is False
    assert "tuned_right" not in report["answers"][4]
    assert report["job"] == job_id
    check_picture(out / "curves.png")


def test_compare_a_checkpoint_and_rows_that_are_none(server: Server, job_id: str, tmp_path: Path) -> None:
    checkpoint = works(server, "jobs", "checkpoints", job_id).splitlines()[-1].split("\t")[1]
    assert checkpoint.endswith(":ckpt-step-3")
    file = write_jsonl(tmp_path / "rows.jsonl", rows(3))
    out = tmp_path / "out"
    works(server, "compare", SMOLLM2, checkpoint, "--file", file, "--limit", "1", "--max-tokens", "2", "--output", out)
    check_picture(out / "curves.png")
    # a model that no job made: answers, and no curves
    done = run(
        "compare",
        "tiny",
        SMOLLM2,
        "--file",
        file,
        "--limit",
        "1",
        "--max-tokens",
        "2",
        "--output",
        tmp_path / "b",
        base_url=server.base_url,
    )
    assert done.returncode == 0
    assert "No curves" in done.stderr
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["compare.json"]

    for line, says in (
        ("{", "line 2: not valid JSON"),
        ('{"prompt": "x"}', "line 2 is no chat row"),
        ('{"messages": []}', "asks nothing"),
    ):
        file.write_text(json.dumps(chat_row("a", "b")) + "\n" + line + "\n", "utf-8")
        assert says in fails("compare", "a", "b", "--file", file, base_url=server.base_url)
    file.write_text("\n", "utf-8")
    assert "holds no rows" in fails("compare", "a", "b", "--file", file, base_url=server.base_url)


def check_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width >= 1000
    assert height >= 400
    assert len(content) > 20_000, "lines and labels, not an empty sheet"


def test_curves_need_no_validation_and_take_one_step(tmp_path: Path) -> None:
    from pegbox.cli.curves import draw
    from pegbox.cli.metrics import curve

    step = {"step": 1, "total_steps": 1, "train_loss": 2.5, "train_mean_token_accuracy": 0.5}
    points = curve([None, {"file": "x"}, step, {**step, "step": "2"}, {**step, "train_loss": 2.0}])
    assert [(p.step, p.train_loss, p.valid_loss) for p in points] == [(1, 2.0, None)]
    draw(tmp_path / "a.png", "a $strange$ \x1b[31mname", points, model_step=1)
    check_picture(tmp_path / "a.png")


# --- a server that means harm --------------------------------------------------------------------------------


class Hostile(BaseHTTPRequestHandler):
    """Answers everything with control characters in every text."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        file = {
            "id": f"file-{BELL_AND_COLOUR}", "object": "file", "bytes": 5, "created_at": 10**30,
            "filename": f"[bold]{BELL_AND_COLOUR}[/] :boom:", "purpose": "fine-tune",
        }  # fmt: skip
        if self.path.startswith("/v1/files?"):
            self.send(200, {"object": "list", "data": [file], "first_id": None, "last_id": None, "has_more": False})
        elif self.path.startswith("/v1/files/get"):
            self.send(200, file)
        elif self.path.startswith("/v1/html"):
            self.send_text(200, "<html>")
        else:
            error = {"message": f"No: {BELL_AND_COLOUR}", "type": "x", "param": BELL_AND_COLOUR, "code": None}
            self.send(404, {"error": error})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": "f"}
        delta = {"choices": [{"index": 0, "delta": {"content": BELL_AND_COLOUR}}]}
        self.send_text(200, f"data: {json.dumps({**chunk, **delta})}\n\ndata: [DONE]\n\n")

    def send(self, status: int, value: object) -> None:
        self.send_text(status, json.dumps(value))

    def send_text(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_control_characters_never_reach_the_screen(hostile: str) -> None:
    for args in (("files", "list"), ("files", "get", "get"), ("jobs", "get", "x"), ("chat", "m", "hello")):
        done = run(*args, base_url=hostile)
        assert STRIPPED in done.stdout + done.stderr, args
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.stdout + done.stderr), args
    listed = run("files", "list", base_url=hostile).stdout
    assert "[bold]" in listed, "markup is text like any other"
    assert ":boom:" in listed


def test_on_a_terminal_neither(hostile: str) -> None:
    fake = Server(Path("unused"), Path("unused"), port=int(hostile.split(":")[2].removesuffix("/v1")))
    for args in (("files", "list"), ("chat", "m", "hello")):
        status, shown = on_terminal(fake, *args)
        assert status == 0
        assert "\x07" not in shown
        assert "\x1b]0" not in shown
        assert "\x1b[31mred" not in shown
        assert "\u202e" not in shown


def test_a_server_that_is_no_pegbox(hostile: str) -> None:
    said = fails("files", "get", "x", base_url=hostile.replace("/v1", "/v1/html"))
    assert "with /v1 at its end" in said


def test_a_server_that_goes_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted server goes on with the job, so watching goes on too; but not for ever."""
    from pegbox.cli import watch
    from pegbox.cli.address import Address
    from pegbox.cli.client import Api, Unreachable

    monkeypatch.setattr(watch, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    started = time.monotonic()
    with (
        Api(Address(f"http://127.0.0.1:{free_port()}/v1", KEY)) as api,
        pytest.raises(Unreachable, match="pegbox serve"),
    ):
        next(watch.watch(api, "ftjob-x"))
    assert 0.3 < time.monotonic() - started < 10
