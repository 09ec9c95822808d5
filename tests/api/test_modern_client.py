"""Today's `openai` client, its answers validated strictly, against jobs, models and answers of a real server."""

import asyncio
import base64
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import pytest
from answers import check_headers
from conftest import KEY, SMOLLM2, Server, chat_row, finished, rows, upload_bytes
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob

from pegbox.api.shell import normal_path

HELLO = [{"role": "user", "content": "Hello"}]
END = {"2": -100}  # logit_bias: the tiny model's <|im_end|>, never
WORDS = {"red": "rot", "green": "grün", "blue": "blau", "white": "weiß"}


def jsonl(lines: list[object]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def chat_file(answer: Callable[[int], str]) -> bytes:
    return jsonl([chat_row(f"Question number {i}?", answer(i)) for i in range(12)])


PLAIN = jsonl([{"prompt": f"Number {i}:", "completion": " odd" if i % 2 else " even"} for i in range(12)])


@dataclass(frozen=True)
class Tuned:
    """Jobs as they were created and as they ended: two chat models and one for completions, over one base."""

    running: Server
    client: OpenAI
    created: dict[str, FineTuningJob]
    ended: dict[str, FineTuningJob]
    base_scores: list[float]  # of the base, before any adapter was there
    loose: OpenAI  # for nulls that the API sends and the client's types don't know

    def name(self, which: str) -> str:
        name = self.ended[which].fine_tuned_model
        assert name is not None
        return name


@pytest.fixture(scope="module")
def tuned(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuned]:
    root = tmp_path_factory.mktemp("modern")
    shutil.copytree(tiny_catalog, root / "models")
    manifest = json.loads((root / "models" / "tiny" / "pegbox.json").read_text("utf-8"))
    (root / "models" / "acme--tiny").mkdir()
    slashed = json.dumps({**manifest, "name": "acme/tiny"})
    (root / "models" / "acme--tiny" / "pegbox.json").write_text(slashed, "utf-8")
    settings = {"PEGBOX_THREADS": "1", "PEGBOX_CONCURRENT_JOBS": "3", "PEGBOX_CONCURRENT_GENERATIONS": "2"}
    running = Server(root / "data", root / "models", settings).start()
    try:
        client = running.client()
        hyperparameters = {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 3}
        options = {"hyperparameters": hyperparameters, "seed": 11}
        create = client.fine_tuning.jobs.create
        # The engine of the base under its own name serves the aliases too.
        created = {
            "a": create(model=SMOLLM2, training_file=upload_bytes(client, chat_file(lambda _: "aaaa")), suffix="A b!", **options),
            "z": create(
                model="gpt-3.5-turbo", training_file=upload_bytes(client, chat_file(lambda _: "zz")),
                method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
                metadata={"kind": "z", "team": "x y&z"}, seed=11,
            ),
            "plain": create(model="babbage-002", training_file=upload_bytes(client, PLAIN), metadata={"kind": "p"}, **options),
        }  # fmt: skip
        loose = running.client(_strict_response_validation=False)
        base_scores = scores(loose, "babbage-002")
        ended = {which: finished(client, job.id) for which, job in created.items()}
        assert {job.status for job in ended.values()} == {"succeeded"}, [job.error for job in ended.values()]
        yield Tuned(running, client, created, ended, base_scores, loose)
        client.close()
        loose.close()
    finally:
        running.close()


def scores(loose: OpenAI, model: str, prompt: str = "Number 7: odd") -> list[float]:
    """Log-probabilities of the prompt's own tokens."""
    answer = loose.completions.create(model=model, prompt=prompt, echo=True, logprobs=3, max_tokens=0)
    found = answer.choices[0].logprobs.token_logprobs
    assert found[0] is None
    return found[1:]


@pytest.fixture(scope="module")
def client(tuned: Tuned) -> OpenAI:
    return tuned.client


@pytest.fixture(scope="module")
def http(tuned: Tuned) -> Iterator[httpx.Client]:
    with tuned.running.http() as http:
        yield http


# --- files ---------------------------------------------------------------------------------------------------


def test_files(client: OpenAI):
    contents = [f'{{"a": {i}}}\n'.encode() for i in range(3)]
    made = [client.files.create(file=(f"{i}.jsonl", c), purpose="batch") for i, c in enumerate(contents)]
    for i, file in enumerate(made):
        assert file.id.startswith("file-")
        assert (file.object, file.filename, file.purpose, file.bytes) == ("file", f"{i}.jsonl", "batch", 9)
        assert abs(file.created_at - time.time()) < 60
        assert client.files.retrieve(file.id) == file
        assert client.files.wait_for_processing(file.id, max_wait_seconds=5).status == "processed"
        assert client.files.content(file.id).read() == contents[i]
        assert client.files.content(file.id).text == contents[i].decode()
    ids = [file.id for file in made]
    page = client.files.list(purpose="batch")
    assert [file.id for file in page] == ids[::-1], "newest first"
    assert (page.first_id, page.last_id, page.has_more) == (ids[2], ids[0], False)
    assert [file.id for file in client.files.list(purpose="batch", order="asc")] == ids
    assert [file.id for file in client.files.list(purpose="batch", limit=1)] == ids[::-1], "one a page"
    page = client.files.list(purpose="batch", limit=2)
    assert [file.id for file in page.data] == [ids[2], ids[1]]
    assert page.has_more
    assert [file.id for file in client.files.list(purpose="batch", after=ids[2]).data] == [ids[1], ids[0]]
    assert [file.id for file in client.files.list(purpose="batch", order="asc", after=ids[0]).data] == ids[1:]
    assert client.files.list(purpose="vision").data == []
    assert {file.purpose for file in client.files.list()} == {"batch", "fine-tune", "fine-tune-results"}
    for file_id in ids:
        gone = client.files.delete(file_id)
        assert (gone.id, gone.object, gone.deleted) == (file_id, "file", True)
        with pytest.raises(openai.NotFoundError) as caught:
            client.files.retrieve(file_id)
        assert caught.value.param == "id"
        assert caught.value.request_id is not None
    assert client.files.list(purpose="batch").data == []


# --- jobs ----------------------------------------------------------------------------------------------------


def test_a_job_as_it_is_created(tuned: Tuned):
    job = tuned.created["z"]
    assert job.id.startswith("ftjob-")
    assert (job.object, job.status, job.model) == ("fine_tuning.job", "validating_files", SMOLLM2)
    assert abs(job.created_at - time.time()) < 600
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.error) == (None, None, None, None)
    assert (job.result_files, job.integrations, job.seed) == ([], [], 11)
    assert job.metadata == {"kind": "z", "team": "x y&z"}
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (4, 4)
    assert job.method.supervised.hyperparameters.to_dict() == job.hyperparameters.to_dict()


def test_a_job_that_ended(tuned: Tuned):
    job = tuned.ended["a"]
    assert job.fine_tuned_model.startswith(f"ft:{SMOLLM2}:pegbox:a-b:")
    assert len(job.fine_tuned_model.rpartition(":")[2]) == 8
    assert job.trained_tokens > 0
    assert job.created_at <= job.finished_at <= time.time()
    assert (job.error, job.estimated_finish, len(job.result_files)) == (None, None, 1)
    assert tuned.ended["z"].fine_tuned_model.startswith(f"ft:{SMOLLM2}:pegbox::"), "no suffix leaves its place empty"
    results = tuned.client.files.retrieve(job.result_files[0])
    assert (results.filename, results.purpose) == ("step_metrics.csv", "fine-tune-results")
    text = tuned.client.files.content(results.id).text
    encoded = tuned.client.files.with_raw_response.content(results.id, extra_query={"encoding": "base64"})
    assert base64.b64decode(encoded.content, validate=True).decode() == text, (
        "for scripts that decode what OpenAI sends"
    )
    header, *lines = text.splitlines()
    assert header == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [line.split(",")[0] for line in lines] == [str(step) for step in range(1, 13)]
    losses = [float(line.split(",")[1]) for line in lines]
    assert losses[-1] < losses[0] - 0.2
    with pytest.raises(openai.BadRequestError, match="already completed") as caught:
        tuned.client.fine_tuning.jobs.cancel(job.id)
    assert caught.value.code == "invalid_job_state"


AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, AUTO),
        ({"hyperparameters": {}}, AUTO),
        ({"hyperparameters": AUTO}, AUTO),
        ({"hyperparameters": {"n_epochs": None}, "method": None, "suffix": None, "validation_file": None}, AUTO),
        ({"seed": None, "integrations": None, "metadata": None, "hyperparameters": None}, AUTO),
        ({"hyperparameters": {"n_epochs": -1, "batch_size": -1}}, AUTO),  # Azure's way to say "auto"
        ({"hyperparameters": {"n_epochs": 50, "batch_size": 256}}, {**AUTO, "n_epochs": 50, "batch_size": 256}),
        ({"hyperparameters": {"learning_rate_multiplier": 2}}, {**AUTO, "learning_rate_multiplier": 2}),
        ({"method": {"type": "supervised"}, "hyperparameters": {"n_epochs": 2}}, {**AUTO, "n_epochs": 2}),
        (
            {
                "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
                "hyperparameters": {"n_epochs": 2},
            },
            {**AUTO, "n_epochs": 3},
        ),
        ({"suffix": "s" * 64, "seed": 2147483647, "metadata": {}}, AUTO),
    ],
)
def test_what_a_client_may_send(client: OpenAI, options: dict[str, object], shown: dict[str, object]):
    file_id = upload_bytes(client, jsonl(rows(12)))
    body = {"model": "gpt-4o-mini-2024-07-18", "training_file": file_id, **options}
    job = client.fine_tuning.jobs.create(**body)
    try:
        assert job.hyperparameters.to_dict() == shown
        assert job.method.supervised.hyperparameters.to_dict() == shown
        assert isinstance(job.seed, int)
        assert job.seed == options.get("seed") or 0 <= job.seed < 2**31
        assert job.to_dict()["user_provided_suffix"] == options.get("suffix")
        assert job.metadata == options.get("metadata")
    finally:
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        client.files.delete(file_id)


def test_a_call_repeated_by_the_client_makes_one_job(client: OpenAI):
    file_id = upload_bytes(client, jsonl(rows(12)))
    create = client.fine_tuning.jobs.create
    again = {"extra_headers": {"x-stainless-retry-count": "1"}}
    first = create(model="tiny", training_file=file_id)
    assert create(model="tiny", training_file=file_id, **again).id == first.id
    other = create(model="tiny", training_file=file_id, suffix="other", **again)
    wanted_twice = create(model="tiny", training_file=file_id)
    assert len({first.id, other.id, wanted_twice.id}) == 3
    for job in (first, other, wanted_twice):
        client.fine_tuning.jobs.cancel(job.id)
    client.files.delete(file_id)


def test_jobs_are_listed_newest_first_page_by_page(tuned: Tuned):
    jobs = tuned.client.fine_tuning.jobs
    everything = [job.id for job in jobs.list(limit=1000).data]
    ours = [job.id for job in tuned.created.values()][::-1]
    assert everything[-3:] == ours, "the oldest stand last"
    assert [job.id for job in jobs.list(limit=1)] == everything, "one a page"
    assert [job.id for job in jobs.list(limit=2, after=ours[0])] == ours[1:]
    page = jobs.list(limit=1, after=ours[0])
    assert (len(page.data), page.has_more) == (1, True)
    assert jobs.list(after=ours[-1]).data == []
    assert jobs.list(after="ftjob-unknown").data == []
    assert jobs.list(limit=0).data == []
    assert jobs.retrieve(ours[0]) == tuned.ended["plain"]


def test_jobs_are_found_by_metadata(tuned: Tuned):
    def found(**metadata: str) -> list[str]:
        return [job.id for job in tuned.client.fine_tuning.jobs.list(metadata=metadata, limit=1)]

    a, z, plain = (tuned.created[which].id for which in ("a", "z", "plain"))
    assert found(kind="z") == [z]
    assert found(kind="p") == [plain]
    assert found(kind="z", team="x y&z") == [z]
    assert found(kind="z", team="") == []
    assert found(**{'a"b': "c", "a.b": "c"}) == []
    none = [job.id for job in tuned.client.fine_tuning.jobs.list(extra_query={"metadata": "null"})]
    assert a in none
    assert not {z, plain} & set(none)


def test_events_are_listed_newest_first_page_by_page(tuned: Tuned):
    jobs = tuned.client.fine_tuning.jobs
    job = tuned.ended["z"]
    events = jobs.list_events(job.id, limit=100).data
    assert events[0].message == "The job has successfully completed"
    assert events[-1].message == f"Created fine-tuning job: {job.id}"
    assert events[-2].message == f"Validating training file: {job.training_file}"
    assert all(newer.created_at >= older.created_at for newer, older in pairwise(events))
    assert len({event.id for event in events}) == len(events)
    assert all(event.id.startswith("ftevent-") for event in events)
    assert list(jobs.list_events(job.id, limit=3)) == events
    assert jobs.list_events(job.id, limit=2, after=events[4].id).data == events[5:7]
    assert len(jobs.list_events(job.id).data) == 20, "unless told otherwise"
    metrics = [event for event in events if event.type == "metrics"]
    assert [event.data["step"] for event in metrics] == list(range(12, 0, -1))
    assert metrics[0].message == f"Step 12/12: training loss={metrics[0].data['train_loss']:.2f}"
    assert metrics[0].data.keys() == {"step", "total_steps", "train_loss", "train_mean_token_accuracy"}
    texts = [event.message for event in events]
    for text in ("Files validated, moving job to queued state", "Fine-tuning job started"):
        assert texts.count(text) == 1
    assert texts[1] == f"New fine-tuned model created: {job.fine_tuned_model}"


def test_checkpoints_are_listed_highest_step_first(tuned: Tuned):
    listed = tuned.client.fine_tuning.jobs.checkpoints
    job = tuned.ended["a"]
    page = listed.list(job.id)
    assert [checkpoint.step_number for checkpoint in page.data] == [12, 9, 6], "one an epoch, the last three"
    assert (page.first_id, page.last_id, page.has_more) == (page.data[0].id, page.data[-1].id, False)
    for checkpoint in page.data:
        assert checkpoint.id.startswith("ftckpt_")
        assert checkpoint.fine_tuning_job_id == job.id
        assert checkpoint.metrics.step == checkpoint.step_number
        assert checkpoint.metrics.train_loss > 0
        assert 0 <= checkpoint.metrics.train_mean_token_accuracy <= 1
        name = checkpoint.fine_tuned_model_checkpoint
        assert name.startswith(f"ft:{SMOLLM2}:pegbox:a-b:")
        assert name.endswith(f":ckpt-step-{checkpoint.step_number}")
        assert tuned.client.models.retrieve(name).id == name
    assert len({c.fine_tuned_model_checkpoint.split(":")[4] for c in page.data} | {tuned.name("a").split(":")[4]}) == 4
    assert list(listed.list(job.id, limit=1)) == page.data
    assert listed.list(job.id, limit=1, after=page.data[0].id).data == page.data[1:2]


# --- models --------------------------------------------------------------------------------------------------


def test_models(tuned: Tuned, http: httpx.Client):
    client = tuned.client
    names = [model.id for model in client.models.list()]
    assert len(names) == len(set(names))
    assert {SMOLLM2, "tiny", "acme/tiny", "gpt-3.5-turbo", "babbage-002", tuned.name("a"), tuned.name("z")} <= set(
        names
    )
    model = client.models.retrieve(tuned.name("a"))
    assert (model.id, model.object, model.owned_by) == (tuned.name("a"), "model", "pegbox")
    assert model.created >= tuned.created["a"].created_at
    assert client.models.retrieve("gpt-3.5-turbo").id == "gpt-3.5-turbo"
    assert client.models.retrieve("acme/tiny").id == "acme/tiny"
    for path in (tuned.name("a"), tuned.name("a").replace(":", "%3A"), "acme/tiny", "acme%2Ftiny", "acme%2ftiny/"):
        answer = http.get(f"/models/{path}")
        assert answer.status_code == 200, path
        assert answer.json()["id"] in (tuned.name("a"), "acme/tiny")


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        ("/v1/files", "/v1/files"),
        ("/v1//files/", "/v1/files"),
        ("//v1/files//", "/v1/files"),
        ("/openai/files", "/v1/files"),
        ("/openai/v1/files", "/v1/files"),
        ("/openai/deployments/gpt-4/chat/completions", "/v1/engines/gpt-4/chat/completions"),
        ("/openai/deployments/gpt-4/completions", "/v1/engines/gpt-4/completions"),
        ("/openai/deployments/ft:acme/tiny:o::x/chat/completions", "/v1/engines/ft:acme/tiny:o::x/chat/completions"),
        ("/openai/v1/deployments/a/completions", "/v1/engines/a/completions"),
        ("/fine_tuning/jobs/ftjob-1/events", "/v1/fine_tuning/jobs/ftjob-1/events"),  # openai 0.28 on Azure
        ("/fine_tuning/jobs", "/fine_tuning/jobs"),
        ("/openaix/files", "/openaix/files"),
        ("/", "/"),
    ],
)
def test_paths(sent: str, known: str):
    assert normal_path(sent) == known


# --- chat ----------------------------------------------------------------------------------------------------


def test_chat(tuned: Tuned):
    answer = tuned.client.chat.completions.create(
        model=tuned.name("a"), messages=[{"role": "system", "content": "Answer in one word."}, *HELLO], max_tokens=7, logit_bias=END
    )  # fmt: skip
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", tuned.name("a"))
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert (choice.message.refusal, choice.message.tool_calls, choice.message.function_call) == (None, None, None)
    usage = answer.usage
    # the tiny model's tokens are bytes and three marks
    turns = [("system", "Answer in one word."), ("user", "Hello")]
    prompt = sum(1 + len(f"{role}\n{text}") + 1 + 1 for role, text in turns) + 1 + len("assistant\n")
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (prompt, 7, prompt + 7)


def test_what_was_learnt_shows(tuned: Tuned):
    """Greedy answers of three models over one base, asked in turns, each as often as it takes."""

    def first_token(model: str) -> tuple[str, float]:
        answer = tuned.client.chat.completions.create(
            model=model, messages=chat_row("Question number 5?", "")["messages"][:-1], temperature=0, max_tokens=1,
            logprobs=True,
        )  # fmt: skip
        (token,) = answer.choices[0].logprobs.content
        return token.token, token.logprob

    names = {"base": SMOLLM2, "a": tuned.name("a"), "z": tuned.name("z")}
    alone = {which: first_token(name) for which, name in names.items()}
    assert (alone["a"][0], alone["z"][0]) == ("a", "z")
    assert len(set(alone.values())) == 3
    for which in ("z", "base", "a", "base", "base", "z", "a", "a", "base"):
        assert first_token(names[which]) == alone[which], "an adapter shows through"
    assert first_token("gpt-3.5-turbo") == alone["base"]


def test_the_base_is_untouched_by_adapters(tuned: Tuned, tiny_model: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    mine = scores(tuned.loose, tuned.name("plain"))
    assert max(abs(a - b) for a, b in zip(mine, tuned.base_scores, strict=True)) > 0.5
    assert scores(tuned.loose, "babbage-002") == tuned.base_scores
    assert scores(tuned.loose, tuned.name("plain")) == mine
    tokens = torch.tensor([AutoTokenizer.from_pretrained(tiny_model)("Number 7: odd")["input_ids"]])
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)(tokens).logits[0]
    wanted = logits.log_softmax(-1)[:-1].gather(1, tokens[0, 1:, None])[:, 0]
    assert tuned.base_scores == pytest.approx(wanted.tolist(), abs=1e-4)


def asked(client: OpenAI, **options: object) -> str:
    options = {"model": SMOLLM2, "messages": HELLO, "max_tokens": 12, "logit_bias": END, **options}
    content = client.chat.completions.create(**options).choices[0].message.content
    assert content is not None
    return content


def test_seeds_and_temperature(client: OpenAI):
    assert asked(client, seed=5) == asked(client, seed=5)
    assert asked(client, seed=5) != asked(client, seed=6)
    assert asked(client, seed=-(2**70)) == asked(client, seed=-(2**70))
    assert asked(client) != asked(client)
    greedy = asked(client, temperature=0)
    assert greedy == asked(client, temperature=0, seed=3) == asked(client, top_p=0) == asked(client, temperature=1e-6)
    assert asked(client, seed=5, temperature=0.01) != asked(client, seed=5)


def test_lengths(client: OpenAI):
    create = client.chat.completions.create
    options = {"model": SMOLLM2, "messages": HELLO, "logit_bias": END}
    assert create(**options, max_tokens=3).usage.completion_tokens == 3
    assert create(**options, max_completion_tokens=4).usage.completion_tokens == 4
    assert create(**options, max_completion_tokens=4, max_tokens=9).usage.completion_tokens == 4
    endless = create(**{**options, "messages": [{"role": "user", "content": "a" * 440}]})
    assert (endless.usage.total_tokens, endless.choices[0].finish_reason) == (512, "length"), "the context is full"


def test_biases(client: OpenAI, tiny_model: Path):
    from tokenizers import Tokenizer

    x = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).token_to_id("x")
    assert asked(client, logit_bias={str(x): 100}) == "x" * 12
    assert "x" not in asked(client, logit_bias={**END, str(x): -100}, max_tokens=300)
    ended = client.chat.completions.create(model=SMOLLM2, messages=HELLO, logit_bias={"2": 100})
    assert (ended.choices[0].message.content, ended.choices[0].finish_reason) == ("", "stop")
    assert ended.usage.completion_tokens == 0
    often = asked(client, logit_bias={str(x): 12, "2": -100}, frequency_penalty=2, seed=1, max_tokens=40)
    assert 0 < often.count("x") < 40, "a penalty breaks a habit"


@pytest.mark.parametrize("as_list", [False, True])
def test_stop(client: OpenAI, as_list: bool):
    whole = asked(client, seed=8, max_tokens=40)
    at = next(i for i in range(5, 30) if whole[i : i + 2].isascii() and whole.index(whole[i : i + 2]) == i)
    mark = whole[at : at + 2]
    stop = ["never, never", mark, whole[at + 5 : at + 9]] if as_list else mark
    answer = client.chat.completions.create(
        model=SMOLLM2, messages=HELLO, max_tokens=40, seed=8, logit_bias=END, stop=stop
    )
    assert answer.choices[0].message.content == whole[:at]
    assert answer.choices[0].finish_reason == "stop"
    assert asked(client, seed=8, max_tokens=40, stop=["never, never"]) == whole


def test_several_choices(client: OpenAI):
    create = client.chat.completions.create
    options = {"model": SMOLLM2, "messages": HELLO, "max_tokens": 6, "logit_bias": END, "seed": 4}
    answer = create(**options, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in answer.choices]
    assert len(set(texts)) == 3
    assert texts[0] == create(**options).choices[0].message.content
    assert answer.usage.completion_tokens == 18
    streamed = ["", "", ""]
    for chunk in create(**options, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_log_probabilities(client: OpenAI):
    no_marks = {"0": -100, "1": -100, "2": -100}
    answer = client.chat.completions.create(
        model=SMOLLM2, messages=HELLO, max_tokens=40, seed=2, logit_bias=no_marks, logprobs=True, top_logprobs=20
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 40
    for token in content:
        assert len(token.top_logprobs) == 20
        top = [other.logprob for other in token.top_logprobs]
        assert top == sorted(top, reverse=True)
        assert sum(map(math.exp, top)) <= 1 + 1e-5
        assert token.logprob <= top[0]
        assert len({other.token for other in token.top_logprobs}) == 20, "bytes that are no character have names too"
        for other in token.top_logprobs:
            if other.token == token.token:
                assert other.logprob == token.logprob
    said = b"".join(bytes(token.bytes) for token in content)
    assert said.decode("utf-8", "ignore") == answer.choices[0].message.content.replace("\ufffd", "")
    greedy = client.chat.completions.create(
        model=SMOLLM2, messages=HELLO, max_tokens=5, temperature=0, logit_bias=END, logprobs=True, top_logprobs=1
    )
    assert all(token.token == token.top_logprobs[0].token for token in greedy.choices[0].logprobs.content)
    none = client.chat.completions.create(model=SMOLLM2, messages=HELLO, max_tokens=2, logit_bias=END, logprobs=True)
    assert all(token.top_logprobs == [] for token in none.choices[0].logprobs.content)


# --- streams -------------------------------------------------------------------------------------------------


def test_a_stream_says_what_an_answer_says(tuned: Tuned):
    options = {
        "model": tuned.name("z"), "messages": HELLO, "max_tokens": 30, "seed": 3, "logit_bias": END, "logprobs": True,
        "temperature": 1.5,
    }  # fmt: skip
    create = tuned.client.chat.completions.create
    whole = create(**options)
    chunks = list(create(**options, stream=True, stream_options={"include_usage": True}))
    *body, last = chunks
    assert (last.choices, last.usage) == ([], whole.usage)
    assert all(chunk.usage is None for chunk in body)
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert (body[0].object, body[0].model) == ("chat.completion.chunk", tuned.name("z"))
    deltas = [chunk.choices[0] for chunk in body]
    assert (deltas[0].delta.role, deltas[0].delta.content) == ("assistant", "")
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason == whole.choices[0].finish_reason == "length"
    assert "".join(delta.delta.content or "" for delta in deltas) == whole.choices[0].message.content
    scored = [token for delta in deltas if delta.logprobs for token in delta.logprobs.content]
    assert scored == whole.choices[0].logprobs.content
    plain = list(create(**options, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in plain)


def test_a_stream_on_the_wire(http: httpx.Client):
    body = {"model": SMOLLM2, "messages": HELLO, "max_tokens": 5, "logit_bias": END, "stream": True}
    with http.stream("POST", "/chat/completions", json=body) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        check_headers(stream)
        lines = [line for line in stream.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[len("data: ") :]) for line in lines[:-1]]
    for chunk in chunks:
        (choice,) = chunk["choices"]
        assert None not in choice["delta"].values(), 'scripts write delta.get("content", "")'
        assert "usage" not in chunk
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}


def test_places_are_few_and_come_free_again(tuned: Tuned):
    """Two answers at a time here. A client that hangs up in the middle frees its place."""
    create = tuned.client.chat.completions.create
    options = {"model": SMOLLM2, "messages": HELLO, "logit_bias": END}
    streams = [create(**options, stream=True) for _ in range(2)]
    for stream in streams:
        next(iter(stream))
    with pytest.raises(openai.RateLimitError) as caught:
        create(**options, max_tokens=1)
    assert caught.value.code == "engine_overloaded"
    with pytest.raises(openai.RateLimitError):
        create(**options, max_tokens=1, stream=True)
    for stream in streams:
        stream.close()
    with tuned.running.client(max_retries=8) as patient:
        patient.chat.completions.create(**options, max_tokens=1)


# --- what else a chat request may hold -----------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Look out.", "parameters": {"type": "object"}},
}


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL], "stream": True},
        {"functions": [TOOL["function"]], "function_call": "auto"},
        {"functions": [TOOL["function"]], "function_call": "none"},
        {"response_format": {"type": "text"}},
        {"user": "u", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "reasoning_effort": "low"},
        {"stop": None, "temperature": None, "n": None, "seed": None, "logit_bias": None, "stream": None, "tools": None},
        {"messages": [{"role": "developer", "content": "Be brief."}, *HELLO]},
        {"messages": [{"role": "user", "name": "anna", "content": [{"type": "text", "text": "Hello"}]}]},
        {"messages": [*HELLO, {"role": "assistant", "content": "Hi"}]},
        {
            "messages": [
                *HELLO,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "rain"},
            ],
            "tools": [TOOL],
        },
    ],
)
def test_what_a_chat_request_may_hold(client: OpenAI, options: dict[str, object]):
    options = {"model": SMOLLM2, "messages": HELLO, "max_tokens": 2, **options}
    answer = client.chat.completions.create(**options)
    if options.get("stream"):
        assert list(answer)[-1].choices[0].finish_reason in ("stop", "length")
    else:
        assert answer.choices[0].finish_reason in ("stop", "length")


def test_headers_through_the_client(client: OpenAI):
    raw = client.chat.completions.with_raw_response.create(model=SMOLLM2, messages=HELLO, max_tokens=1)
    check_headers(raw)
    assert raw.parse()._request_id == raw.headers["x-request-id"]
    other = client.models.with_raw_response.list()
    check_headers(other)
    assert other.headers["x-request-id"] != raw.headers["x-request-id"]


def test_the_asynchronous_client(tuned: Tuned):
    async def ask() -> list[str]:
        async with AsyncOpenAI(
            base_url=tuned.running.base_url, api_key=KEY, _strict_response_validation=True
        ) as client:
            create = client.chat.completions.create
            options = {"messages": HELLO, "max_tokens": 4, "temperature": 0, "logit_bias": END}
            names = [tuned.name("a"), tuned.name("z")]
            both = await asyncio.gather(*(create(model=name, **options) for name in names))
            streamed = ""
            async for chunk in await create(model=names[0], stream=True, **options):
                streamed += chunk.choices[0].delta.content or ""
            assert [job.id async for job in client.fine_tuning.jobs.list(limit=1, metadata={"kind": "z"})]
            return [*(answer.choices[0].message.content or "" for answer in both), streamed]

    options = {"max_tokens": 4, "temperature": 0}
    a, z = (asked(tuned.client, model=tuned.name(which), **options) for which in ("a", "z"))
    assert asyncio.run(ask()) == [a, z, a], "answers made at the same time are those made alone"


# --- completions ---------------------------------------------------------------------------------------------


def test_completions(tuned: Tuned):
    create = tuned.client.completions.create
    model = tuned.name("plain")
    answer = create(model=model, prompt="Number 7:", temperature=0, logit_bias=END)
    assert answer.id.startswith("cmpl-")
    assert (answer.object, answer.model) == ("text_completion", model)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len("Number 7:"), 16), "16 unless told"
    text = answer.choices[0].text
    same = {"temperature": 0, "logit_bias": END}
    tokens = [byte_token(letter) for letter in "Number 7:"]
    for prompt in (["Number 7:"], tokens, [tokens]):
        assert create(model=model, prompt=prompt, **same).choices[0].text == text
    two = create(model=model, prompt=["Number 7:", "Number 8:"], n=2, max_tokens=3, logit_bias=END, seed=1)
    assert [choice.index for choice in two.choices] == [0, 1, 2, 3]
    assert (two.usage.prompt_tokens, two.usage.completion_tokens) == (2 * len("Number 7:"), 12)
    one = create(model=model, prompt="Number 8:", n=2, max_tokens=3, logit_bias=END, seed=1)
    assert [choice.text for choice in two.choices[2:]] == [choice.text for choice in one.choices]
    echoed = create(model=model, prompt="Number 7:", echo=True, **same)
    assert echoed.choices[0].text == "Number 7:" + text
    assert echoed.usage == answer.usage
    streamed = tuned.loose.completions.create(
        model=model, prompt="Number 7:", stream=True, stream_options={"include_usage": True}, logprobs=2, **same
    )
    *chunks, last = streamed
    assert "".join(chunk.choices[0].text for chunk in chunks) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert (last.choices, last.usage) == ([], answer.usage)
    scored = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    whole = create(model=model, prompt="Number 7:", logprobs=2, **same).choices[0].logprobs
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [value for part in scored for value in getattr(part, field)] == getattr(whole, field)
    assert (
        create(model=model, prompt="Number 7:", stop=text[3:5], **same).choices[0].text == text[: text.index(text[3:5])]
    )


def byte_token(letter: str) -> int:
    """As the tiny tokenizer numbers them: three marks, then the byte alphabet in order."""
    from tokenizers import pre_tokenizers

    return 3 + sorted(pre_tokenizers.ByteLevel.alphabet()).index("Ġ" if letter == " " else letter)


def test_log_probabilities_of_completions(tuned: Tuned):
    options = {
        "model": tuned.name("plain"),
        "prompt": "Number 7:",
        "max_tokens": 4,
        "temperature": 0,
        "logit_bias": END,
    }
    answer = tuned.client.completions.create(**options, logprobs=5)
    found = answer.choices[0].logprobs
    assert "".join(found.tokens) == answer.choices[0].text
    assert found.text_offset == [sum(map(len, found.tokens[:i])) for i in range(4)]
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert len(top) == 5
        assert max(top.values()) == top[token] == logprob
    echoed = tuned.loose.completions.create(**options, logprobs=5, echo=True).choices[0]
    assert "".join(echoed.logprobs.tokens) == echoed.text
    assert echoed.logprobs.tokens[-4:] == found.tokens
    assert echoed.logprobs.token_logprobs[-4:] == found.token_logprobs
    assert echoed.logprobs.token_logprobs[0] is None
    assert echoed.logprobs.token_logprobs[1:-4] == scores(tuned.loose, tuned.name("plain"), "Number 7:")


def test_models_answer_in_the_format_they_were_tuned_in(tuned: Tuned):
    with pytest.raises(openai.NotFoundError, match=r"not a chat model.*v1/completions") as caught:
        tuned.client.chat.completions.create(model=tuned.name("plain"), messages=HELLO)
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError, match=r"chat model and not supported.*v1/chat/completions"):
        tuned.client.completions.create(model=tuned.name("a"), prompt="Hello")


# --- other ways to the same server ---------------------------------------------------------------------------


def azure(tuned: Tuned) -> OpenAI:
    return AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{tuned.running.port}", api_key=KEY, api_version="2024-10-21", max_retries=0,
        _strict_response_validation=True,
    )  # fmt: skip


def azure_v1(tuned: Tuned) -> OpenAI:
    url = f"http://127.0.0.1:{tuned.running.port}/openai/v1/"
    return OpenAI(base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True)


def double_slashes(tuned: Tuned) -> OpenAI:
    url = f"http://127.0.0.1:{tuned.running.port}//v1//"
    return OpenAI(base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True)


@pytest.mark.parametrize("way", [azure, azure_v1, double_slashes])
def test_other_ways_in(tuned: Tuned, way: Callable[[Tuned], OpenAI]):
    with way(tuned) as client:
        file_id = upload_bytes(client, b"\xef\xbb\xbf" + jsonl(rows(12)))
        assert client.files.retrieve(file_id).status == "processed"
        job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file_id)
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        assert client.fine_tuning.jobs.list(limit=1).data[0].id == job.id
        assert client.fine_tuning.jobs.list_events(job.id).data[-1].message.endswith(job.id)
        assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []
        assert client.models.retrieve(tuned.name("a")).id == tuned.name("a")
        options = {"messages": HELLO, "max_tokens": 3, "temperature": 0, "logit_bias": END}
        same = asked(tuned.client, model=tuned.name("a"), max_tokens=3, temperature=0)
        assert client.chat.completions.create(model=tuned.name("a"), **options).choices[0].message.content == same
        chunks = client.chat.completions.create(model=tuned.name("a"), stream=True, **options)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == same
        assert (
            client.completions.create(model=tuned.name("plain"), prompt="Number 7:", max_tokens=1).choices[0].index == 0
        )
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="gpt-17", messages=HELLO)
        assert caught.value.code == "model_not_found"
        client.files.delete(file_id)


# --- the end of a model: the last test, because it takes models away -----------------------------------------


def test_deleting_models(tuned: Tuned, http: httpx.Client):
    """A model goes at once; its last checkpoint, which shares its weights, stays until it is deleted itself."""
    client = tuned.client
    name, other = tuned.name("a"), tuned.name("z")
    last = client.fine_tuning.jobs.checkpoints.list(tuned.ended["a"].id).data[0].fine_tuned_model_checkpoint
    options = {"temperature": 0, "max_tokens": 4}
    said = asked(client, model=name, **options)
    others = asked(client, model=other, **options)
    gone = client.models.delete(name)
    assert (gone.id, gone.object, gone.deleted) == (name, "model", True)
    for ask in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        asked(client, model=name)
    assert name not in [model.id for model in client.models.list()]
    assert asked(client, model=last, **options) == said
    assert asked(client, model=other, **options) == others
    assert client.models.delete(last).deleted
    with pytest.raises(openai.NotFoundError):
        asked(client, model=last)
    assert asked(client, model=other, **options) == others
    assert client.fine_tuning.jobs.retrieve(tuned.ended["a"].id).fine_tuned_model == name, "a job keeps its history"
    answer = http.delete(f"/models/{other.replace(':', '%3A')}")  # as the client of 2023 writes it
    assert answer.json() == {"id": other, "object": "model", "deleted": True}
