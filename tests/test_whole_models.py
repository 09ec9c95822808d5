"""Jobs that learn all weights, through the stock client: from create to chat, receipt, training on and delete."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Server, chat_row, finished, messages, rows, upload, write_jsonl
from openai import BadRequestError, NotFoundError, OpenAI
from test_cli import works

from pegbox.catalog.models import BaseModel, load_manifest, save_manifest

ALL = {"pegbox.weights": "all"}
ASKED = [{"role": "system", "content": "Answer in one word."}]


@pytest.fixture(scope="module")
def server(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("whole") / "data", tiny_catalog, {"PEGBOX_LOADED_MODELS": "1"}).start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def file_id(client: OpenAI, tmp_path_factory: pytest.TempPathFactory) -> str:
    return upload(client, write_jsonl(tmp_path_factory.mktemp("rows") / "t.jsonl", rows(12)))


def create(client: OpenAI, file_id: str, model: str = "tiny", **choices: object):
    hyperparameters = {"n_epochs": 9, "batch_size": 12, "learning_rate_multiplier": 3}
    asked = {"hyperparameters": hyperparameters, "metadata": ALL, **choices}
    return client.fine_tuning.jobs.create(model=model, training_file=file_id, seed=3, **asked)


@pytest.fixture(scope="module")
def succeeded(client: OpenAI, file_id: str):
    job = finished(client, create(client, file_id).id)
    assert job.status == "succeeded", job.error
    return job


def say(client: OpenAI, model: str) -> list[float]:
    answer = client.chat.completions.create(
        model=model,
        messages=[*ASKED, {"role": "user", "content": "Which?"}],
        max_tokens=4,
        temperature=0,
        logprobs=True,
    )
    assert answer.choices[0].logprobs is not None
    return [token.logprob for token in answer.choices[0].logprobs.content or []]


def engines(server: Server) -> list[str]:
    """Folders of the running engines."""
    assert server.process is not None
    commands = [child.cmdline() for child in psutil.Process(server.process.pid).children()]
    host = "pegbox.engines.host"
    return sorted(Path(command[command.index(host) + 1]).name for command in commands if host in command)


def receipt(server: Server, job_id: str) -> dict:
    answer = server.http().get(f"/fine_tuning/jobs/{job_id}/receipt")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_whole_model_answers(server: Server, client: OpenAI, succeeded, tiny_model: Path) -> None:
    """As transformers itself does with the folder in the store."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = server.data_dir / "blobs" / "adapters" / succeeded.id / "step-000009"
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not {"state.safetensors", "state.json", "adapter_config.json"} & names
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [*ASKED, {"role": "user", "content": "Which?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    expected = {}
    for which in (folder, tiny_model):
        model = AutoModelForCausalLM.from_pretrained(which, dtype=torch.float32)
        with torch.inference_mode():
            expected[which] = float(model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1).max())
    assert say(client, succeeded.fine_tuned_model)[0] == pytest.approx(expected[folder], abs=1e-4)
    assert say(client, "tiny")[0] == pytest.approx(expected[tiny_model], abs=1e-4)
    assert abs(expected[folder] - expected[tiny_model]) > 0.01


def test_the_receipt_is_whole(server: Server, succeeded) -> None:
    found = receipt(server, succeeded.id)
    assert {check["name"]: check["status"] for check in found["checks"] if check["status"] != "passed"} == {}
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["adapter_applied"]["text"].startswith("The learnt weights, a whole model, move")
    assert checks["adapter_applied"]["figures"]["same_bytes"] is True
    assert {"recipe.json", "train.jsonl", "model.safetensors", "chat_template"} == found["sha256"].keys()


def test_what_is_said_and_shown(server: Server, client: OpenAI, succeeded) -> None:
    told = messages(client, succeeded.id)
    assert any(text.startswith("All 1 weights are learnt, not an adapter. Each checkpoint is a whole") for text in told)
    spoken = [text for text in told if text.startswith(("Checkpoint created at step", "The checkpoint of step"))]
    assert len(spoken) == 9, "of each checkpoint something is said"
    plan = next(text for text in told if text.startswith("Plan:"))
    assert "a tenth of an adapter's, as all weights are learnt" in plan
    assert [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(succeeded.id)] == [9], "only the newest"
    shown = works(server, "models", "tuned")
    assert any(succeeded.fine_tuned_model in line and line.endswith("all") for line in shown.splitlines())
    model = client.models.retrieve(succeeded.fine_tuned_model)
    assert model.model_dump()["weights"] == "all"
    assert "weights" not in server.http().get("/models/tiny").json()
    assert not (server.data_dir / "runs" / succeeded.id / "checkpoints").exists()


@pytest.fixture(scope="module")
def over(client: OpenAI, succeeded, file_id: str):
    """An adapter over the whole model."""
    job = finished(client, create(client, file_id, succeeded.fine_tuned_model, metadata=None).id)
    assert job.status == "succeeded", job.error
    return job


def test_trained_on_whole_and_by_an_adapter(server: Server, client: OpenAI, succeeded, over, file_id: str) -> None:
    """One engine holds one of them at a time; the adapter's name answers over the whole model."""
    whole = finished(client, create(client, file_id, succeeded.fine_tuned_model).id)
    assert whole.status == "succeeded", whole.error
    for job in (whole, over):
        found = receipt(server, job.id)
        assert found["trained_on_from"] == succeeded.id
        assert {c["name"]: c["status"] for c in found["checks"] if c["status"] != "passed"} == {}
        assert found["checks"][-1]["text"].startswith("Loss on the training rows (none were held out): ")
    said = {model: say(client, model) for model in (succeeded.fine_tuned_model, whole.fine_tuned_model)}
    said[over.fine_tuned_model] = say(client, over.fine_tuned_model)
    assert len({tuple(values) for values in said.values()}) == 3, "each says something else"
    tuned = [name for name in engines(server) if name.startswith("step-")]
    assert len(tuned) == 1, "PEGBOX_LOADED_MODELS=1"
    for model, values in said.items():
        assert say(client, model) == values
    with pytest.raises(BadRequestError) as refused:
        create(client, file_id, over.fine_tuned_model)
    assert (refused.value.code, refused.value.param) == ("invalid_value", "metadata.pegbox.weights")
    assert "can't be trained on from an adapter" in refused.value.message


def test_a_model_that_a_job_goes_on_from_is_not_deleted(client: OpenAI, succeeded, file_id: str) -> None:
    job = create(client, file_id, succeeded.fine_tuned_model, hyperparameters={"n_epochs": 50, "batch_size": 1})
    with pytest.raises(BadRequestError) as refused:
        client.models.delete(succeeded.fine_tuned_model)
    assert refused.value.code == "model_in_use"
    assert job.id in refused.value.message
    client.fine_tuning.jobs.cancel(job.id)


def test_preferences(server: Server, client: OpenAI, tmp_path: Path) -> None:
    def pair(i: int) -> dict[str, object]:
        row = chat_row(f"Is {i} a number?", "yes")
        asked, answer = row["messages"][:-1], row["messages"][-1]  # type: ignore[index]
        worse = {"role": "assistant", "content": "no"}
        return {"input": {"messages": asked}, "preferred_output": [answer], "non_preferred_output": [worse]}

    file = upload(client, write_jsonl(tmp_path / "pairs.jsonl", [pair(i) for i in range(12)]))
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": 30}}}
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file, seed=3, method=method, metadata=ALL)
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    failed = [check["name"] for check in receipt(server, job.id)["checks"] if check["status"] == "failed"]
    assert failed == []
    client.models.delete(job.fine_tuned_model)


def test_by_the_command(server: Server, client: OpenAI, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", rows(10))
    asked = ("--model", "tiny", "--epochs", "1", "--weights", "all", "--early-stop", "2")
    shown = works(server, "jobs", "create", str(path), *asked, "--follow")
    job = client.fine_tuning.jobs.retrieve(shown.split()[0])
    assert (job.status, job.metadata) == ("succeeded", {**ALL, "pegbox.early_stop": "2"})


@pytest.mark.parametrize("wish", ["", "All", "lora"])
def test_another_wish_is_refused(client: OpenAI, file_id: str, wish: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        create(client, file_id, metadata={"pegbox.weights": wish})
    assert (refused.value.code, refused.value.param) == ("invalid_value", "metadata.pegbox.weights")
    assert '"all" learns all weights' in refused.value.message


def test_a_disk_too_small_is_a_failed_job(server: Server, client: OpenAI, file_id: str) -> None:
    """A base that says of itself that it has 10**15 weights."""
    catalog = Path(server.settings["PEGBOX_MODELS_DIR"])
    manifest = catalog / "tiny" / "pegbox.json"
    model = load_manifest(manifest)
    (catalog / "vast").mkdir()
    values = {**{name: getattr(model, name) for name in BaseModel.__slots__}, "name": "vast", "parameters": 10**15}
    save_manifest(catalog / "vast" / "pegbox.json", BaseModel(**values))
    job = finished(client, create(client, file_id, "vast").id)
    assert (job.status, job.error.code) == ("failed", "insufficient_disk")
    assert "takes 32,000,000.0 GB of disk" in job.error.message


def test_the_bytes_stay_while_an_adapter_lies_over_them(server: Server, client: OpenAI, succeeded, over) -> None:
    """The last test: it deletes what the others made."""

    def delete(job) -> None:
        for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
            client.models.delete(checkpoint.fine_tuned_model_checkpoint)
        client.models.delete(job.fine_tuned_model)

    before = say(client, over.fine_tuned_model)
    folder = server.data_dir / "blobs" / "adapters" / succeeded.id / "step-000009"
    delete(succeeded)
    with pytest.raises(NotFoundError):
        say(client, succeeded.fine_tuned_model)
    assert folder.exists()
    assert say(client, over.fine_tuned_model) == before
    assert "step-000009" in engines(server)
    delete(over)
    assert not folder.exists()
    assert "step-000009" not in engines(server), "its engine went with it"
