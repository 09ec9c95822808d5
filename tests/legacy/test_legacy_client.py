"""The `openai` clients of 2023 in their own interpreter, their command line, and what clients of that time sent.

0.28.1 is the last of its kind; 0.27.0, of March 2023, knows fine-tuning only as it was before August of that year.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from conftest import KEY, Server, rows, write_jsonl

HERE = Path(__file__).parent
INTERPRETER = Path(os.environ.get("PEGBOX_LEGACY_PYTHON") or HERE.parents[1] / ".venv-legacy" / "bin" / "python")
OLDER = INTERPRETER.parents[1] / "openai-0.27"  # the package alone; it needs what the other one needs
Run = Callable[..., str]


@pytest.fixture(scope="module")
def running(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not INTERPRETER.exists():
        pytest.skip(f"openai 0.28 needs an environment of its own, and {INTERPRETER} is not there: run `make test`")
    settings = {"PEGBOX_THREADS": "1", "PEGBOX_CONCURRENT_JOBS": "2"}
    server = Server(tmp_path_factory.mktemp("legacy") / "data", tiny_catalog, settings).start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def run(running: Server) -> Run:
    """Run a program of that environment; what it prints."""
    return runner(running)


@pytest.fixture(params=["0.28.1", "0.27.0"])
def run_both(request: pytest.FixtureRequest, running: Server) -> Run:
    """The same, with one client and the other."""
    if request.param == "0.28.1":
        return runner(running)
    if not OLDER.exists():
        pytest.skip(f"{OLDER} is not there: run `make test`")
    older = {"PYTHONPATH": str(OLDER)}
    found = runner(running, **older)("python", "-c", "import openai; print(openai.version.VERSION)")
    assert found.strip() == request.param
    return runner(running, **older)


def runner(running: Server, **always: str) -> Run:
    def run(*command: str, status: int = 0, stdin: str = "", **env: str) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PEGBOX_", "PYTHON"))}
        env = {**kept, "OPENAI_API_KEY": KEY, "OPENAI_API_BASE": running.base_url, **always, **env}
        ended = subprocess.run(
            [str(INTERPRETER.parent / command[0]), *command[1:]], env=env, input=stdin, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert ended.returncode == status, f"{command}:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
        return ended.stdout + (ended.stderr if status else "")

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    write_jsonl(folder / "chat.jsonl", rows(10))
    plain = [{"prompt": f"Number {i}:", "completion": " odd" if i % 2 else " even"} for i in range(10)]
    write_jsonl(folder / "plain.jsonl", plain)
    return folder


@pytest.fixture(scope="module")
def guide(run: Run, folder: Path) -> dict[str, str]:
    """The guide's own story, told once; what it made."""
    made = run("python", str(HERE / "guide_2023.py"), "guide", str(folder)).splitlines()[-1]
    (folder / "guide.json").write_text(made, "utf-8")
    return json.loads(made)


def test_the_guide(guide: dict[str, str]):
    assert guide["steps"] == 100, "ten examples, ten epochs: the published rule"


def test_the_same_with_a_slash_at_the_end_of_the_base(run: Run, folder: Path):
    last = run("python", str(HERE / "guide_2023.py"), "slashes", str(folder)).splitlines()[-1]
    assert json.loads(last) == ["chat.completion", True]


def test_errors_are_of_the_right_class(run: Run, folder: Path):
    last = run("python", str(HERE / "guide_2023.py"), "errors", str(folder)).splitlines()[-1]
    assert json.loads(last) == "Incorrect API key provided: sk-***6789."


def test_azure(run: Run, folder: Path, guide: dict[str, str]):
    last = run("python", str(HERE / "guide_2023.py"), "azure", str(folder)).splitlines()[-1]
    assert json.loads(last) == "chat.completion"


# --- the command line ----------------------------------------------------------------------------------------


def test_the_command_line(run: Run, folder: Path, guide: dict[str, str]):
    """create with a path on this machine, list, get, events, results, cancel."""

    def api(*command: str, **options: object) -> str:
        return run("openai", "api", *command, **options)

    training_file = str(folder / "chat.jsonl")
    created = api(
        "fine_tuning.job.create", "-t", training_file, "-m", "gpt-3.5-turbo", "--n_epochs", "2", "--suffix", "x y"
    )
    assert f"Uploaded file from {training_file}: file-" in created
    assert "finished processing and is ready for use in fine-tuning" in created
    job = json.loads(created[created.index("{\n") :])
    assert (job["status"], job["hyperparameters"]["n_epochs"]) == ("validating_files", 2)
    assert json.loads(api("fine_tuning.job.cancel", "-i", job["id"]))["status"] == "cancelled"
    assert json.loads(api("fine_tuning.job.get", "-i", job["id"]))["status"] == "cancelled"

    # the same file again: the client finds it by name and size, and asks
    same = api("fine_tuning.job.create", "-t", training_file, "-m", "gpt-3.5-turbo", stdin=f"{job['training_file']}\n")
    assert "Found potentially duplicated files with name 'chat.jsonl'" in same
    assert f"Reusing already uploaded file: {job['training_file']}" in same
    again = json.loads(same[same.index("{\n") :])
    assert again["training_file"] == job["training_file"]
    api("fine_tuning.job.cancel", "-i", again["id"])

    listed = api("fine_tuning.job.list")
    assert [text in listed for text in (job["id"], again["id"], guide["job"])] == [True] * 3
    events = api("fine_tuning.job.events", "-i", guide["job"])
    assert events.count('"object": "fine_tuning.job.event"') > 100, "every page of them"
    assert events.count(f"Created fine-tuning job: {guide['job']}") == 1
    few = api("fine_tuning.job.events", "-i", guide["job"], "--limit", "3")
    assert few.count('"object": "fine_tuning.job.event"') == 3
    header, *lines = api("fine_tuning.job.results", "-i", guide["job"]).split()
    assert header == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [line.split(",")[0] for line in lines] == [str(step) for step in range(1, 101)]
    unknown = api("fine_tuning.job.get", "-i", "ftjob-123", status=1)
    assert "Error:" in unknown
    assert "Could not find fine tune: ftjob-123" in unknown


# --- what clients before 0.28 sent ---------------------------------------------------------------------------


def test_0_27_pages_with_cursor(running: Server, guide: dict[str, str]):
    path = f"/fine_tuning/jobs/{guide['job']}/events"
    with running.http() as http:
        everything = [event["id"] for event in http.get(path, params={"limit": 1000}).json()["data"]]
        found: list[str] = []
        cursor, pages = None, 0
        while True:
            page = http.get(path, params={"limit": 50, **({"cursor": cursor} if cursor else {})}).json()
            found += [event["id"] for event in page["data"]]
            pages += 1
            if not page["has_more"]:
                break
            cursor = found[-1]
            assert pages < 20, "it goes round in circles"
    assert found == everything


def test_0_27_stops_at_data_and_space(running: Server):
    """Its reader of streams knows lines that begin with `data: `, and an end that is `data: [DONE]`."""
    body = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "stream": True}
    with running.http() as http, http.stream("POST", "/chat/completions", json=body) as answer:
        lines = list(answer.iter_lines())
    assert "text/event-stream" in answer.headers["content-type"]
    assert {line[:6] for line in lines if line} == {"data: "}
    assert [line for line in lines if line][-1] == "data: [DONE]"


def test_cancel_as_old_clients_send_it(running: Server):
    """No body, no type, Content-Length 0."""
    request = httpx.Request(
        "POST", f"{running.base_url}/fine_tuning/jobs/ftjob-1/cancel", headers={"authorization": f"Bearer {KEY}"}
    )
    assert "content-type" not in request.headers
    with httpx.Client() as http:
        answer = http.send(request)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "fine_tune_not_found")


# --- /v1/fine-tunes: fine-tuning before August 2023 -----------------------------------------------------------


def test_the_command_line_of_fine_tunes(run_both: Run, folder: Path):
    """create follows the events to the end; then get, list, events, results, and the model is asked."""

    def api(*command: str, **options: object) -> str:
        return run_both("openai", "api", *command, **options)

    told = api(
        "fine_tunes.create", "-t", str(folder / "plain.jsonl"), "-m", "curie", "--n_epochs", "2", "--suffix", "of old"
    )
    job_id = told.split("Created fine-tune: ")[1].split()[0]
    messages = [line.split("] ", 1)[1] for line in told.splitlines() if line.startswith("[")]
    assert messages[0] == f"Created fine-tuning job: {job_id}"
    assert messages[-1] == "The job has successfully completed"
    assert "Job complete! Status: succeeded" in told

    job = json.loads(api("fine_tunes.get", "-i", job_id))
    assert (job["object"], job["status"], job["hyperparams"]["n_epochs"]) == ("fine-tune", "succeeded", 2)
    assert [file["filename"] for file in job["training_files"]] == [str(folder / "plain.jsonl")]
    assert [event["message"] for event in job["events"]] == messages, "the stream left nothing out"
    assert f"-m {job['fine_tuned_model']} -p" in told
    assert job_id in api("fine_tunes.list")
    assert api("fine_tunes.events", "-i", job_id).count('"object": "fine-tune-event"') == len(messages)
    assert api("fine_tunes.results", "-i", job_id).startswith("step,train_loss,")
    assert api("completions.create", "-m", job["fine_tuned_model"], "-p", "Number 3:", "-M", "2").startswith(
        "Number 3:"
    )
    again = api("fine_tunes.follow", "-i", job_id)
    assert [line.split("] ", 1)[1] for line in again.splitlines() if line.startswith("[")] == messages


def test_scripts_of_fine_tunes(run_both: Run, folder: Path):
    last = run_both("python", str(HERE / "guide_2023.py"), "fine_tunes", str(folder)).splitlines()[-1]
    assert json.loads(last) == ["cancelled", "pending"]
