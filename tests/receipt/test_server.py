"""The receipt through a real server: what a good job carries, and how a broken one ends."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import CHATML, Server, chat_row, finished, messages, rows, upload, write_jsonl
from openai import NotFoundError, OpenAI
from safetensors.numpy import load_file, save_file
from test_checks import THINKER
from test_cli import works

from pegbox import __version__
from pegbox.catalog.models import MANIFEST, BaseModel, save_manifest

NAMES = [
    "row_accounting", "supervised_tokens", "mask", "truncation", "token_parity", "single_bos", "stop_learned",
    "engine_agrees", "adapter_applied", "template_rewrites_turns", "learnt",
]  # fmt: skip
TEMPLATES = {
    "plain": CHATML,
    "edited": CHATML,
    "twice": "{{ bos_token }}{{ bos_token }}" + CHATML,
    "thinker": THINKER,
    "short": CHATML,
}


@pytest.fixture(scope="module")
def bases(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory of tiny models, each with a folder and a fault of its own."""
    root = tmp_path_factory.mktemp("bases")
    for name, source in TEMPLATES.items():
        folder = root / name / "weights"
        shutil.copytree(tiny_model, folder)
        (folder / "chat_template.jinja").write_text(source, "utf-8")
        model = BaseModel(
            name=name, folder=str(folder), created_at=1, source="tests", formats=("chat", "completion"),
            context=64 if name == "short" else 512, hidden_size=64, parameters=1, license="Apache-2.0", fingerprint=name,
        )  # fmt: skip
        save_manifest(root / name / MANIFEST, model)
    return root


@pytest.fixture(scope="module")
def server(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("receipts") / "data", bases).start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


def create(client: OpenAI, model: str, file_id: str, **choices: object):
    return client.fine_tuning.jobs.create(
        model=model, training_file=file_id, seed=3, **{"hyperparameters": {"n_epochs": 2, "batch_size": 4}, **choices}
    )


def receipt_of(server: Server, job_id: str) -> dict:
    answer = server.http().get(f"/fine_tuning/jobs/{job_id}/receipt")
    assert answer.status_code == 200, answer.text
    return answer.json()


def not_passed(server: Server, job_id: str) -> dict[str, str]:
    return {c["name"]: c["status"] for c in receipt_of(server, job_id)["checks"] if c["status"] != "passed"}


@pytest.fixture(scope="module")
def file_id(client: OpenAI, tmp_path_factory: pytest.TempPathFactory) -> str:
    return upload(client, write_jsonl(tmp_path_factory.mktemp("rows") / "t.jsonl", rows(12)))


@pytest.fixture(scope="module")
def succeeded(client: OpenAI, file_id: str):
    job = finished(client, create(client, "plain", file_id, metadata={"pegbox.holdout": "off"}).id)
    assert job.status == "succeeded", job.error
    return job


def test_a_good_job_carries_a_receipt(server: Server, client: OpenAI, succeeded) -> None:
    found = receipt_of(server, succeeded.id)
    assert (found["object"], found["fine_tuning_job_id"]) == ("fine_tuning.job.receipt", succeeded.id)
    assert [check["name"] for check in found["checks"]] == NAMES
    assert (found["status"], {check["status"] for check in found["checks"]}) == ("passed", {"passed"})
    assert (found["seed"], found["step"], found["dtype"]) == (3, 6, "float32")
    assert found["versions"]["pegbox"] == __version__
    assert {"recipe.json", "train.jsonl", "adapter_model.safetensors", "chat_template"} == found["sha256"].keys()
    balanced = found["checks"][0]["figures"]
    assert (balanced["read"], balanced["trained"], balanced["trainer_rows"]) == (12, 12, 12)
    told = messages(client, succeeded.id)
    assert told[-3].startswith("Receipt: 11 checks passed. P(stop) where an answer ends: ")
    assert server.process is not None
    commands = [" ".join(child.cmdline()) for child in psutil.Process(server.process.pid).children()]
    assert not [c for c in commands if "pegbox.engines.host" in c], "nobody has asked the model: its memory is free"
    kept = {path.name for path in (server.data_dir / "runs" / succeeded.id).iterdir()}
    assert {"receipt.json", "lines.json", "accounts.json"} <= kept
    assert not {"evidence.json", "data", "checkpoints"} & kept, "they hold the user's rows"


def test_no_receipt_yet(server: Server, client: OpenAI, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        client.get("/fine_tuning/jobs/ftjob-none/receipt", cast_to=dict)
    assert caught.value.code == "fine_tune_not_found"
    job = finished(client, create(client, "plain", upload(client, write_jsonl(tmp_path / "few.jsonl", rows(2)))).id)
    assert job.status == "failed"
    with pytest.raises(NotFoundError) as caught:
        client.get(f"/fine_tuning/jobs/{job.id}/receipt", cast_to=dict)
    assert (caught.value.code, caught.value.param) == ("receipt_not_found", "fine_tune_id")
    assert "is failed and has no receipt" in caught.value.message


def test_the_command_shows_it(server: Server, succeeded) -> None:
    shown = works(server, "jobs", "receipt", succeeded.id)
    assert succeeded.id in shown
    for name in NAMES:
        assert f"{name}\tpassed\t" in shown


def test_a_template_edited_while_the_server_runs(server: Server, client: OpenAI, bases: Path, file_id: str) -> None:
    """Serving goes on with the template it has read, training reads it anew: the job must not succeed."""
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    client.chat.completions.create(model="edited", **asked)
    template = bases / "edited" / "weights" / "chat_template.jinja"
    template.write_text("{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}" + CHATML, "utf-8")
    job = finished(client, create(client, "edited", file_id).id)
    assert (job.status, job.error.code) == ("failed", "receipt_failed")
    assert (
        "token_parity: The model would be asked with other tokens than it was trained on: example " in job.error.message
    )
    assert "restart it" in job.error.message
    assert job.fine_tuned_model is None
    assert not_passed(server, job.id) == {"token_parity": "failed"}
    assert not [m.id for m in client.models.list() if m.id.startswith("ft:edited") and "ckpt" not in m.id]
    assert len(client.fine_tuning.jobs.checkpoints.list(job.id).data) == 2, "checkpoints stay"
    levels = {
        e.level for e in client.fine_tuning.jobs.list_events(job.id, limit=5) if "Receipt, token_parity" in e.message
    }
    assert levels == {"error"}


def test_a_template_that_writes_the_beginning_twice(server: Server, client: OpenAI, file_id: str) -> None:
    job = finished(client, create(client, "twice", file_id).id)
    assert (job.status, job.error.code) == ("failed", "receipt_failed")
    assert not_passed(server, job.id) == {"single_bos": "failed"}


def test_an_adapter_of_zeros_in_the_store(server: Server, client: OpenAI, file_id: str, succeeded) -> None:
    """Bytes that are there are left as they are, so a folder put in the place of the last epoch's is what is served."""
    blobs = server.data_dir / "blobs" / "adapters"
    job = create(client, "plain", file_id)
    swapped = blobs / job.id / "step-000006"
    shutil.copytree(blobs / succeeded.id / "step-000006", swapped)
    weights = swapped / "adapter_model.safetensors"
    save_file({name: value * 0 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    job = finished(client, job.id)
    assert (job.status, job.error.code) == ("failed", "receipt_failed")
    assert not_passed(server, job.id) == {"engine_agrees": "failed", "adapter_applied": "failed"}
    assert "2 checks of its receipt failed" in job.error.message


def test_rows_that_are_cut(server: Server, client: OpenAI, tmp_path: Path) -> None:
    """38 tokens of ChatML's around them: `Say`-rows fit into 64, those with a long answer don't."""
    made = [chat_row(f"Say {i}", "yes", None) for i in range(10)] + [
        chat_row("Say", "no " * 30, None) for _ in range(2)
    ]
    job = finished(client, create(client, "short", upload(client, write_jsonl(tmp_path / "t.jsonl", made))).id)
    assert job.status == "succeeded", job.error
    assert not_passed(server, job.id) == {"truncation": "warned"}
    (check,) = [c for c in receipt_of(server, job.id)["checks"] if c["name"] == "truncation"]
    assert (check["figures"]["rows"], check["figures"]["limit"]) == (2, 64)
    # ChatML's marks, roles and line ends before the answer: 3 marks, "user\nSay", "\n", "assistant\n" = 22 tokens;
    # of the answer's 90 and the stop, 42 fit.
    assert check["figures"]["tokens_lost"] == 2 * (91 - 42)
    told = [e for e in client.fine_tuning.jobs.list_events(job.id, limit=100) if e.message.startswith("Receipt, trunc")]
    assert [e.level for e in told] == ["warn"]


def test_a_template_that_drops_earlier_reasoning(server: Server, client: OpenAI, tmp_path: Path) -> None:
    talk = [
        {"messages": [
            {"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": "<think>hm</think>one"},
            {"role": "user", "content": "more"}, {"role": "assistant", "content": "<think>so</think>two"},
        ]} for i in range(10)
    ]  # fmt: skip
    job = finished(client, create(client, "thinker", upload(client, write_jsonl(tmp_path / "t.jsonl", talk))).id)
    assert job.status == "succeeded", job.error
    assert not_passed(server, job.id) == {"template_rewrites_turns": "warned"}
    assert any(
        "10 rows were trained as several examples, one an answer, 20 in all" in m for m in messages(client, job.id)
    )


def test_completion_rows_and_training_on(server: Server, client: OpenAI, tmp_path: Path) -> None:
    made = [{"prompt": f"Say {i} ->", "completion": " yes"} for i in range(12)]
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", made))
    first = finished(client, create(client, "plain", file).id)
    assert first.status == "succeeded", first.error
    second = finished(client, create(client, first.fine_tuned_model, file).id)
    assert second.status == "succeeded", second.error
    assert receipt_of(server, second.id)["trained_on_from"] == first.id
    for job in (first, second):
        assert not_passed(server, job.id) == {}


def test_held_out_rows_are_balanced_and_looked_at_first(server: Server, client: OpenAI, tmp_path: Path) -> None:
    file = upload(client, write_jsonl(tmp_path / "t.jsonl", rows(200)))
    job = finished(client, create(client, "plain", file, hyperparameters={"n_epochs": 1}).id)
    assert job.status == "succeeded", job.error
    checks = {c["name"]: c for c in receipt_of(server, job.id)["checks"]}
    assert not_passed(server, job.id) == {}
    figures = checks["row_accounting"]["figures"]
    assert [figures[k] for k in ("read", "trained", "held_out", "trainer_rows", "trainer_held_out")] == [
        200,
        180,
        20,
        180,
        20,
    ]
    assert checks["learnt"]["figures"]["rows"] == "validation"
    lines = json.loads((server.data_dir / "runs" / job.id / "lines.json").read_text())
    assert len(lines) == 180
    assert lines == sorted(lines)
    assert set(lines) < set(range(1, 201))
