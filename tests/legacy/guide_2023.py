"""Scripts of 2023, as the guide wrote them, for `openai` 0.28 and 0.27. `test_legacy_client.py` runs this with their own
interpreter: `python guide_2023.py PART FOLDER`, the server's address in OPENAI_API_BASE, its key in OPENAI_API_KEY.

FOLDER holds chat.jsonl and plain.jsonl. A part asserts what it gets and prints, as its last line, what others need.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import openai

# ruff: noqa: PTH123, SIM115 - `file=open("mydata.jsonl", "rb")` is how the guide writes it

FOLDER = Path(sys.argv[2])
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"},
]


def ended(job_id: str) -> "openai.FineTuningJob":  # 0.27 has none
    """Waits as scripts did: asking again and again."""
    while True:
        job = openai.FineTuningJob.retrieve(job_id)
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        assert job["status"] in ("validating_files", "queued", "running"), job
        time.sleep(0.2)


def raised(kind: type, call: Callable[..., object], *args: object, **kwargs: object) -> openai.error.OpenAIError:
    """The error of a call. Errors that could not be read are of another class."""
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"{call} did not raise")


def guide() -> object:
    """The guide from its upload to its last request."""
    file = openai.File.create(file=open(FOLDER / "chat.jsonl", "rb"), purpose="fine-tune")
    assert file.id.startswith("file-")
    assert file.filename == "file", "0.28 sends no better name"
    job = openai.FineTuningJob.create(training_file=file.id, model="gpt-3.5-turbo")
    assert job.object == "fine_tuning.job"
    assert (job.status, job.fine_tuned_model, job.error) == ("validating_files", None, None)

    # a second one, of prompt/completion rows, and a third that is cancelled
    plain = openai.File.create(
        file=open(FOLDER / "plain.jsonl", "rb"), purpose="fine-tune", user_provided_filename="plain.jsonl"
    )
    assert plain.filename == "plain.jsonl"
    assert openai.File.wait_for_processing(plain.id) == "processed"
    second = openai.FineTuningJob.create(
        training_file=plain.id, model="babbage-002", suffix="My Plain Model", validation_file=None,
        hyperparameters={"n_epochs": 2},
    )  # fmt: skip
    third = openai.FineTuningJob.create(training_file=file.id, model="gpt-3.5-turbo-0613", suffix=None)
    assert openai.FineTuningJob.cancel(third.id).status == "cancelled"

    # List 10 fine-tuning jobs
    jobs = openai.FineTuningJob.list(limit=10)
    assert [found.id for found in jobs.data] == [third.id, second.id, job.id]
    assert jobs.has_more is False
    # Retrieve the state of a fine-tune
    assert openai.FineTuningJob.retrieve(job.id).id == job.id
    # One page after another
    assert [found.id for found in openai.FineTuningJob.auto_paging_iter()] == [third.id, second.id, job.id]
    assert [found.id for found in openai.FineTuningJob.auto_paging_iter(limit=1)] == [third.id, second.id, job.id]
    assert [found.id for found in openai.FineTuningJob.list(limit=1, starting_after=third.id).data] == [second.id]

    job, second = ended(job.id), ended(second.id)
    assert (job.status, second.status) == ("succeeded", "succeeded"), (job.error, second.error)
    assert job.fine_tuned_model.startswith("ft:")
    assert ":my-plain-model:" in second.fine_tuned_model
    assert isinstance(job.hyperparameters.n_epochs, int)
    assert second.hyperparameters["n_epochs"] == 2

    # List up to 10 events from a fine-tuning job
    events = openai.FineTuningJob.list_events(id=job.id, limit=10)
    assert len(events.data) == 10
    assert events.has_more is True
    assert events.data[0].message == "The job has successfully completed"
    more = openai.FineTuningJob.list_events(id=job.id, limit=10, after=events.data[-1].id)
    assert not {event.id for event in more.data} & {event.id for event in events.data}

    name = job.fine_tuned_model
    completion = openai.ChatCompletion.create(model=name, messages=MESSAGES, max_tokens=20, temperature=0)
    message = completion.choices[0].message
    assert (message.role, type(message.content)) == ("assistant", str)
    assert completion["choices"][0]["message"]["content"] == message.content
    by_engine = openai.ChatCompletion.create(engine=name, messages=MESSAGES, max_tokens=20, temperature=0)
    assert by_engine.choices[0].message == message
    said = ""
    for chunk in openai.ChatCompletion.create(model=name, messages=MESSAGES, max_tokens=20, temperature=0, stream=True):
        said += chunk["choices"][0]["delta"].get("content", "")
    assert said == message.content
    called = openai.ChatCompletion.create(
        model=name, messages=MESSAGES, max_tokens=3, function_call="auto",
        functions=[{"name": "weather", "parameters": {"type": "object", "properties": {}}}],
    )  # fmt: skip
    assert called.choices[0].finish_reason in ("stop", "length", "function_call")

    plain_name = second.fine_tuned_model
    answer = openai.Completion.create(model=plain_name, prompt="Number 7:", max_tokens=5, temperature=0, logprobs=1)
    assert answer.object == "text_completion"
    assert "".join(answer.choices[0].logprobs.tokens) == answer.choices[0].text
    again = openai.Completion.create(engine=plain_name, prompt="Number 7:", max_tokens=5, temperature=0)
    assert again.choices[0].text == answer.choices[0].text
    pieces = openai.Completion.create(model=plain_name, prompt="Number 7:", max_tokens=5, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text

    assert name in [model.id for model in openai.Model.list().data]
    assert openai.Model.retrieve(name).object == "model"
    # Delete a fine-tuned model
    gone = openai.Model.delete(name)
    assert (gone.id, gone.object, gone.deleted) == (name, "model", True)
    error = raised(openai.error.InvalidRequestError, openai.Model.retrieve, name)
    assert (error.param, error.code) == ("model", "model_not_found")

    assert {found.id for found in openai.File.list().data} >= {file.id, plain.id}
    assert openai.File.retrieve(file.id).status == "processed"
    assert openai.File.download(file.id) == (FOLDER / "chat.jsonl").read_bytes()
    header, *lines = openai.File.download(job.result_files[0]).decode().splitlines()
    assert header == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert all(float(cell) >= 0 for line in lines for cell in line.split(",") if cell)
    assert openai.File.delete(file.id).deleted is True
    return {
        "job": job.id,
        "steps": len(lines),
        "plain_job": second.id,
        "plain_model": plain_name,
        "plain_file": plain.id,
    }


def errors() -> object:
    invalid = openai.error.InvalidRequestError
    error = raised(invalid, openai.FineTuningJob.retrieve, "ftjob-123")
    assert error.user_message == "Could not find fine tune: ftjob-123"
    assert (error.http_status, error.param, error.code) == (404, "fine_tune_id", "fine_tune_not_found")
    assert error.headers["x-request-id"].startswith("req_")
    assert error.organization == "pegbox"
    for call in (openai.FineTuningJob.cancel, openai.FineTuningJob.list_events):
        assert raised(invalid, call, "ftjob-123").code == "fine_tune_not_found"
    error = raised(invalid, openai.FineTuningJob.create, training_file="file-1", model="gpt-3.5-turbo")
    assert (error.http_status, error.param) == (400, "training_file")
    error = raised(invalid, openai.FineTuningJob.create, training_file="file-1", model="gpt-17")
    assert (error.param, error.code) == ("model", "model_not_available")
    error = raised(invalid, openai.FineTuningJob.create, model="gpt-3.5-turbo")
    assert error.user_message == "Missing required parameter: 'training_file'."
    error = raised(invalid, openai.File.create, file=b"{}", purpose="fun")
    assert error.param == "purpose"
    for call in (openai.File.retrieve, openai.File.delete):
        assert raised(invalid, call, "file-1").user_message == "No such File object: file-1"
    assert raised(invalid, openai.File.download, "file-1").param == "id"
    error = raised(invalid, openai.ChatCompletion.create, model="gpt-17", messages=MESSAGES)
    assert (error.http_status, error.code) == (404, "model_not_found")
    error = raised(invalid, openai.ChatCompletion.create, model="gpt-3.5-turbo", messages=[])
    assert error.param == "messages"
    error = raised(
        invalid, openai.ChatCompletion.create, model="gpt-3.5-turbo", messages=MESSAGES, temperature=3, stream=True
    )
    assert error.param == "temperature"
    error = raised(invalid, openai.Model.delete, "gpt-3.5-turbo")
    assert error.code == "cannot_delete_base_model"
    openai.api_key = "sk-wrong-0123456789"
    error = raised(openai.error.AuthenticationError, openai.FineTuningJob.list)
    assert (error.http_status, error.json_body["error"]["code"]) == (401, "invalid_api_key")
    error = raised(openai.error.AuthenticationError, openai.File.create, file=b"x" * (20 << 20), purpose="fine-tune")
    return error.user_message


def slashes() -> object:
    """A base with a slash at its end: URLs are joined with two."""
    openai.api_base += "/"
    file = openai.File.create(file=open(FOLDER / "chat.jsonl", "rb"), purpose="fine-tune")
    assert openai.File.retrieve(file.id).id == file.id
    job = openai.FineTuningJob.create(training_file=file.id, model="gpt-3.5-turbo")
    assert openai.FineTuningJob.cancel(job.id).status == "cancelled"
    assert openai.FineTuningJob.list_events(job.id).data[-1].message == f"Created fine-tuning job: {job.id}"
    answer = openai.ChatCompletion.create(model="gpt-3.5-turbo", messages=MESSAGES, max_tokens=1)
    return [answer.object, openai.File.delete(file.id).deleted]


def azure() -> object:
    """The same server by Azure's paths and header."""
    openai.api_type = "azure"
    openai.api_version = "2023-10-01-preview"
    openai.api_base = openai.api_base.removesuffix("/v1")
    with (FOLDER / "chat.jsonl").open("rb") as rows:
        content = b"\xef\xbb\xbf" + rows.read()  # Azure wants a BOM
    file = openai.File.create(file=content, purpose="fine-tune", user_provided_filename="train.jsonl")
    assert (file.filename, file.bytes) == ("train.jsonl", len(content))
    assert openai.File.download(file.id) == content
    assert file.id in [found.id for found in openai.File.list().data]
    job = openai.FineTuningJob.create(
        training_file=file.id,
        model="gpt-3.5-turbo-0613",
        hyperparameters={"n_epochs": -1},
    )
    assert job.hyperparameters.n_epochs == "auto"
    assert openai.FineTuningJob.cancel(job.id).status == "cancelled"
    assert openai.FineTuningJob.retrieve(job.id).status == "cancelled"
    assert openai.FineTuningJob.list(limit=1).data[0].id == job.id
    assert openai.FineTuningJob.list_events(job.id).data[0].level == "warn"
    model = json.loads((FOLDER / "guide.json").read_text())["plain_model"]
    answer = openai.Completion.create(engine=model, prompt="Number 7:", max_tokens=2)
    assert answer.model == model
    chat = openai.ChatCompletion.create(engine="gpt-3.5-turbo", messages=MESSAGES, max_tokens=2)
    chunks = openai.ChatCompletion.create(deployment_id="gpt-3.5-turbo", messages=MESSAGES, max_tokens=2, stream=True)
    assert list(chunks)[-1].choices[0].finish_reason in ("stop", "length")
    openai.File.delete(file.id)
    openai.api_key = "wrong"
    raised(openai.error.AuthenticationError, openai.FineTuningJob.list)
    return chat.object


def fine_tunes() -> object:
    """`openai.FineTune`: events as a stream, cancelling, and what has no effect here."""
    file = openai.File.create(file=open(FOLDER / "plain.jsonl", "rb"), purpose="fine-tune")
    made = openai.FineTune.create(
        training_file=file.id, model="ada", n_epochs=50, batch_size=1, learning_rate_multiplier=0.1,
        prompt_loss_weight=0.01, compute_classification_metrics=True, classification_n_classes=2,
    )  # fmt: skip
    assert (made.object, made.hyperparams.n_epochs, made.hyperparams.prompt_loss_weight) == ("fine-tune", 50, 0.0)
    warned = [event.message for event in made.events if event.level == "warn"]
    assert [text.split()[0] for text in warned] == ["prompt_loss_weight", "Classification"]
    stream = openai.FineTune.stream_events(made.id)
    told = [next(stream).message]
    cancelled = openai.FineTune.cancel(made.id)
    told += [event.message for event in stream]
    assert told == [event.message for event in openai.FineTune.list_events(made.id).data]
    assert "cancellation" in told[-1]
    assert made.id in [one.id for one in openai.FineTune.list().data]
    error = raised(openai.error.InvalidRequestError, openai.FineTune.retrieve, "ft-123")
    assert str(error) == "Could not find fine tune: ft-123"
    raised(openai.error.InvalidRequestError, openai.FineTune.create, training_file="file-none", model="ada")
    assert "ada" in [engine.id for engine in openai.Engine.list().data]
    assert openai.Engine.retrieve("ada").ready is True
    whole = openai.ChatCompletion.create(model="gpt-3.5-turbo", messages=MESSAGES, max_tokens=4, temperature=0)
    parts = openai.ChatCompletion.create(
        model="gpt-3.5-turbo", messages=MESSAGES, max_tokens=4, temperature=0, stream=True
    )
    assert "".join(part.choices[0].delta.get("content", "") for part in parts) == whole.choices[0].message.content
    return [cancelled.status, made.status]


if __name__ == "__main__":
    assert openai.version.VERSION.startswith(("0.28.", "0.27.")), openai.version.VERSION
    print(json.dumps(globals()[sys.argv[1]]()))
