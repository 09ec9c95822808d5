"""What programs of others send besides the stock Python client: JavaScript clients, agents, graders, command lines."""

import json
import math
from collections.abc import Iterator

import httpx
import pytest
from answers import check_error
from conftest import KEY, SMOLLM2, Server, ServerMaker, finished, rows, upload_bytes
from following import jsonl
from openai import OpenAI

CHAT, COMPLETIONS, JOBS = "/chat/completions", "/completions", "/fine_tuning/jobs"


@pytest.fixture(scope="module")
def http(server: Server) -> httpx.Client:
    return server.http()


# --- keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bearer", ["Bearer undefined", "Bearer dummy", "Bearer", "Bearer sk-wrong-0123456789"])
def test_an_azure_key_beside_a_bearer_that_means_nothing(server: Server, bearer: str) -> None:
    headers = {"authorization": bearer, "api-key": KEY}
    assert httpx.get(f"{server.base_url}/models", headers=headers).status_code == 200
    wrong = {"authorization": bearer, "api-key": "sk-wrong-9876543210"}
    check_error(httpx.get(f"{server.base_url}/models", headers=wrong), 401, code="invalid_api_key", message="Incorrect")


def test_a_good_bearer_beside_an_api_key_that_means_nothing(server: Server) -> None:
    headers = {"authorization": f"Bearer {KEY}", "api-key": "none"}
    assert httpx.get(f"{server.base_url}/models", headers=headers).status_code == 200


# --- paths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("/responses", "use /v1/chat/completions"),
        ("/responses/resp_1/input_items", "use /v1/chat/completions"),
        ("/embeddings", "not this part of OpenAI's API"),
        ("/uploads", "POST /v1/files"),
        ("/fine_tuning/alpha/graders/run", "not this part"),
    ],
)
def test_what_this_server_has_not_is_told_from_a_slip(http: httpx.Client, path: str, advice: str) -> None:
    check_error(http.post(path, json={}), 404, message=rf"^Invalid URL \(POST /v1{path}\): .*{advice}")
    check_error(http.post("/responsesx", json={}), 404, message=r"^Invalid URL \(POST /v1/responsesx\)$")


def test_all_methods_of_a_path_are_named(http: httpx.Client) -> None:
    assert http.delete("/files").headers["allow"] == "GET, POST"
    assert http.patch("/files/file-a").headers["allow"] == "DELETE, GET"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_monitors_ask_with_head(server: Server, path: str) -> None:
    answer = httpx.head(server.base_url.removesuffix("/v1") + path)
    assert (answer.status_code, answer.content) == (200, b"")


# --- lists and files ------------------------------------------------------------------------------------------


def test_null_in_javascript_is_an_empty_word_in_a_query(server: Server, http: httpx.Client) -> None:
    client = server.client()
    file = upload_bytes(client, jsonl(rows(12)))
    with_pair = client.fine_tuning.jobs.create(model=SMOLLM2, training_file=file, metadata={"team": "js"})
    without = client.fine_tuning.jobs.create(model=SMOLLM2, training_file=file)
    for job in (with_pair, without):
        client.fine_tuning.jobs.cancel(job.id)
    listed = [job["id"] for job in http.get(f"{JOBS}?metadata=&limit=100").json()["data"]]
    assert without.id in listed
    assert with_pair.id not in listed


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (
            {"expires_after[anchor]": "last_active", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
            "invalid_value",
        ),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds", "missing_required_parameter"),
    ],
)
def test_when_a_file_expires(http: httpx.Client, fields: dict[str, str], param: str, code: str) -> None:
    form = {"purpose": "fine-tune", **fields}
    check_error(http.post("/files", data=form, files={"file": ("a.jsonl", b"{}\n")}), 400, param=param, code=code)


# --- chat -----------------------------------------------------------------------------------------------------


def test_an_answer_that_said_nothing_can_be_sent_back(server: Server) -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "on"},
    ]
    answer = server.client().chat.completions.create(model=SMOLLM2, messages=messages, max_tokens=2)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 2
    with pytest.raises(Exception, match="needs content or a tool call"):
        server.client().chat.completions.create(
            model=SMOLLM2, messages=[messages[0], {"role": "assistant", "content": None}], max_tokens=2
        )


@pytest.mark.parametrize("hint", [{"prediction": {"type": "content", "content": "x"}}, {"prediction": None},
                                  {"audio": None}, {"moderation": None}, {"web_search_options": None},
                                  {"prompt_cache_options": {"ttl": "1h"}}])  # fmt: skip
def test_what_changes_nothing_is_accepted(http: httpx.Client, hint: dict[str, object]) -> None:
    body = {"model": SMOLLM2, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, **hint}
    assert http.post(CHAT, json=body).status_code == 200


@pytest.mark.parametrize("param", ["audio", "moderation", "web_search_options"])
def test_what_would_change_the_answer_is_refused(http: httpx.Client, param: str) -> None:
    body = {"model": SMOLLM2, "messages": [{"role": "user", "content": "hi"}], param: {"voice": "x"}}
    check_error(http.post(CHAT, json=body), 400, param=param, code="unsupported_value", message="not supported")


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_where_the_end_tells_the_usage_the_other_chunks_say_null(http: httpx.Client, path: str, counted: bool) -> None:
    asked = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"prompt": "hi"}
    options = {"stream_options": {"include_usage": True}} if counted else {}
    model = SMOLLM2 if path == CHAT else "babbage-002"
    chunks = list(streamed(http, path, {"model": model, "max_tokens": 2, "stream": True, **asked, **options}))
    told = [chunk.get("usage", "absent") for chunk in chunks]
    if counted:
        assert told[:-1] == [None] * (len(told) - 1)
        assert told[-1]["completion_tokens"] <= 2
    else:
        assert set(told) == {"absent"}


def streamed(http: httpx.Client, path: str, body: dict[str, object]) -> Iterator[dict[str, object]]:
    for line in http.post(path, json=body).text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


# --- completions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logprobs", [None, 2])
def test_echo_in_a_stream_is_what_it_is_in_one_piece(http: httpx.Client, logprobs: int | None) -> None:
    body = {
        "model": "babbage-002",
        "prompt": "Once upon",
        "max_tokens": 4,
        "temperature": 0,
        "echo": True,
        "logprobs": logprobs,
    }
    whole = http.post(COMPLETIONS, json=body).json()["choices"][0]
    chunks = [chunk["choices"][0] for chunk in streamed(http, COMPLETIONS, {**body, "stream": True})]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    assert whole["text"].startswith("Once upon")
    if logprobs is not None:
        for key in ("tokens", "text_offset"):
            told = [value for chunk in chunks if chunk["logprobs"] for value in chunk["logprobs"][key]]
            assert told == whole["logprobs"][key]


def test_the_best_of_several(http: httpx.Client) -> None:
    """Those of n = 4 with the highest log-probability a token."""
    body = {"model": "babbage-002", "prompt": "Once upon", "max_tokens": 5, "seed": 5, "logprobs": 0}
    four = http.post(COMPLETIONS, json={**body, "n": 4}).json()
    best = http.post(COMPLETIONS, json={**body, "n": 2, "best_of": 4}).json()
    silent = http.post(COMPLETIONS, json={**body, "n": 2, "best_of": 4, "logprobs": None}).json()
    ranked = sorted(
        four["choices"], key=lambda c: -math.fsum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["tokens"])
    )
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in ranked[:2]]
    assert [choice["text"] for choice in silent["choices"]] == [choice["text"] for choice in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert silent["choices"][0]["logprobs"] is None
    assert best["usage"]["completion_tokens"] == four["usage"]["completion_tokens"]


# --- names ----------------------------------------------------------------------------------------------------


def test_models_can_be_named_after_what_was_asked_for(new_server: ServerMaker) -> None:
    """For programs that read the base out of `ft:…` and know OpenAI's only."""
    server = new_server(PEGBOX_TUNED_NAMES="asked")
    client = server.client()
    file = upload_bytes(client, jsonl(rows(12)))
    create = client.fine_tuning.jobs.create
    job = finished(client, create(model="gpt-4o-mini", training_file=file, hyperparameters={"n_epochs": 1}).id)
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith("ft:gpt-4o-mini:pegbox::")
    assert all(c.fine_tuned_model_checkpoint.startswith("ft:gpt-4o-mini:") for c in checkpoints(client, job.id))
    again = finished(client, create(model=job.fine_tuned_model, training_file=file, hyperparameters={"n_epochs": 1}).id)
    assert again.fine_tuned_model is not None
    assert again.fine_tuned_model.startswith("ft:gpt-4o-mini:pegbox::")
    said = client.chat.completions.create(
        model=again.fine_tuned_model, messages=[{"role": "user", "content": "hi"}], max_tokens=2
    )
    assert said.model == again.fine_tuned_model


def checkpoints(client: OpenAI, job_id: str):
    found = client.fine_tuning.jobs.checkpoints.list(job_id).data
    assert found
    return found
