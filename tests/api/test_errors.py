"""Every bad request gets its status, type, param and code, in one shape; and the server goes on answering."""

import json
from collections.abc import Iterator

import httpx
import pytest
from answers import check_error, check_headers
from conftest import KEY, Server, chat_row

JOBS = "/fine_tuning/jobs"
CHAT = "/chat/completions"
COMPLETIONS = "/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def jsonl(rows: list[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as http:
        yield http


def put_file(http: httpx.Client, content: bytes, purpose: str) -> str:
    answer = http.post("/files", files={"file": ("train.jsonl", content)}, data={"purpose": purpose})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


@pytest.fixture(scope="module")
def files(http: httpx.Client) -> Iterator[dict[str, str]]:
    """Ids of a file fit for training and of one for something else."""
    content = jsonl([chat_row(f"Question {i}?", "yes") for i in range(10)])
    made = {purpose: put_file(http, content, purpose) for purpose in ("fine-tune", "batch")}
    yield made
    for file_id in made.values():
        assert http.delete(f"/files/{file_id}").status_code == 200


# --- routes and keys -----------------------------------------------------------------------------------------

ROUTES = [
    # method, path, status, param, code, message
    ("GET", "/nothing", 404, None, None, r"Invalid URL \(GET /v1/nothing\)"),
    ("POST", "/nothing", 404, None, None, "Invalid URL"),
    ("GET", "/fine-tuning/jobs", 404, None, None, "Invalid URL"),
    ("GET", "/fine_tuning/jobs/ftjob-a/nothing", 404, None, None, "Invalid URL"),
    ("GET", CHAT, 405, None, None, "Not allowed to GET on /v1/chat/completions; allowed: POST"),
    ("DELETE", "/files", 405, None, None, "Not allowed to DELETE"),
    ("PUT", "/models/gpt-3.5-turbo", 405, None, None, "Not allowed to PUT"),
    ("GET", "/files/file-abc123", 404, "id", None, "^No such File object: file-abc123$"),
    ("GET", "/files/file-abc123/content", 404, "id", None, "^No such File object: file-abc123$"),
    ("DELETE", "/files/file-abc123", 404, "id", None, "^No such File object: file-abc123$"),
    ("GET", "/models/ft:123", 404, "model", "model_not_found", "^The model 'ft:123' does not exist$"),
    ("DELETE", "/models/ft:123", 404, "model", "model_not_found", "^The model 'ft:123' does not exist$"),
    ("DELETE", "/models/ft%3A123", 404, "model", "model_not_found", "^The model 'ft:123' does not exist$"),
    ("DELETE", "/models/tiny", 400, "model", "cannot_delete_base_model", "tiny is a base model"),
    ("DELETE", "/models/gpt-3.5-turbo", 400, "model", "cannot_delete_base_model", "is a base model"),
    ("GET", "/models/..%2f..%2fetc", 404, "model", "model_not_found", "does not exist"),
    ("GET", "/models/%00", 404, "model", "model_not_found", "does not exist"),
    *(
        (method, f"{JOBS}/123{tail}", 404, "fine_tune_id", "fine_tune_not_found", "^Could not find fine tune: 123$")
        for method, tail in (
            ("GET", ""),
            ("POST", "/cancel"),
            ("POST", "/pause"),
            ("POST", "/resume"),
            ("GET", "/events"),
            ("GET", "/checkpoints"),
        )
    ),
    ("GET", f"{JOBS}?limit=-1", 400, "limit", "invalid_value", "greater than or equal to 0"),
    ("GET", f"{JOBS}?limit=many", 400, "limit", "invalid_value", "valid integer"),
    ("GET", "/files?order=sideways", 400, "order", "invalid_value", "'asc' or 'desc'"),
]


@pytest.mark.parametrize(("method", "path", "status", "param", "code", "message"), ROUTES)
def test_routes(
    http: httpx.Client, method: str, path: str, status: int, param: str | None, code: str | None, message: str
):
    check_error(http.request(method, path), status, param=param, code=code, message=message)


def test_a_wrong_method_says_which_are_right(http: httpx.Client):
    assert http.get(CHAT).headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("headers", "code", "message"),
    [
        ({}, None, "You didn't provide an API key"),
        ({"authorization": KEY}, None, "You didn't provide an API key"),
        ({"authorization": "Basic abc"}, None, "You didn't provide an API key"),
        ({"authorization": "Bearer"}, None, "You didn't provide an API key"),
        ({"authorization": "Bearer sk-wrong-0123456789"}, "invalid_api_key", r"Incorrect API key .*sk-\*\*\*6789"),
        ({"authorization": f"Bearer {KEY}x"}, "invalid_api_key", "Incorrect API key"),
        ({"api-key": "wrong"}, "invalid_api_key", r"Incorrect API key provided: \*\*\*"),
        ({"authorization": b"Bearer \xff\xfe"}, "invalid_api_key", "Incorrect API key"),
    ],
)
@pytest.mark.parametrize("path", ["/models", "/nothing", f"{JOBS}/ftjob-a/cancel"])
def test_keys(server: Server, headers: dict[str, str], code: str | None, message: str, path: str):
    method = "POST" if path.endswith("cancel") else "GET"
    answer = httpx.request(method, server.base_url + path, headers=headers)
    text = check_error(answer, 401, code=code, message=message)
    assert "wrong-01234" not in text, "an error must not repeat a key"


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer   {KEY}"}, {"api-key": KEY}]
)
def test_keys_that_are_taken(server: Server, headers: dict[str, str]):
    answer = httpx.get(f"{server.base_url}/models", headers=headers)
    assert answer.status_code == 200
    check_headers(answer)


# --- bodies --------------------------------------------------------------------------------------------------

NOT_PARSED = "^We could not parse the JSON body of your request: "
BODIES = {
    "not JSON": (b'{"model": ', NOT_PARSED + "not valid JSON"),
    "a form": (b"model=gpt-3.5-turbo&n=1", NOT_PARSED),
    "two values": (b"{} {}", NOT_PARSED),
    "empty": (b"", NOT_PARSED),
    "a list": (b"[]", "^The JSON body must be an object"),
    "a text": (b'"model"', "^The JSON body must be an object"),
    "null": (b"null", "^The JSON body must be an object"),
    "UTF-16 with its mark": ('{"model": "a"}'.encode("utf-16"), "^The body is not UTF-8"),
    "UTF-16 without": ('{"model": "a"}'.encode("utf-16-le"), NOT_PARSED),
    "Latin-1": ('{"model": "ü"}'.encode("latin-1"), "^The body is not UTF-8"),
    "a key twice": (b'{"model": "a", "model": "b"}', NOT_PARSED + 'the key "model" appears twice'),
    "NaN": (b'{"model": NaN}', NOT_PARSED + "NaN is not JSON"),
    "infinity": (b'{"model": -Infinity}', NOT_PARSED + "-Infinity is not JSON"),
    "too large a number": (b'{"seed": 1e999}', NOT_PARSED + "the number 1e999 is too large"),
    "too many digits": (b'{"seed": ' + b"9" * 5000 + b"}", NOT_PARSED + "an integer of 5000 digits"),
    "half a surrogate pair": (rb'{"model": "\ud800"}', NOT_PARSED + ".*surrogate"),
    "65 levels": (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", NOT_PARSED + "nested more than 64 levels"),
    "100,000 levels": (b"[" * 100_000, NOT_PARSED),
    "100,000 levels, closed": (b"[" * 100_000 + b"]" * 100_000, NOT_PARSED + "nested more than 64 levels"),
}


@pytest.mark.parametrize("path", [JOBS, CHAT, COMPLETIONS, "/engines/tiny/chat/completions"])
@pytest.mark.parametrize("name", BODIES)
def test_bodies(http: httpx.Client, path: str, name: str):
    content, message = BODIES[name]
    check_error(http.post(path, content=content, headers={"content-type": "application/json"}), 400, message=message)


@pytest.mark.parametrize("path", [JOBS, CHAT])
def test_a_body_that_is_too_large(http: httpx.Client, path: str):
    content = b'{"model": "' + b"a" * (4 << 20) + b'"}'
    expected = {"code": "request_too_large", "message": "larger than the 4,194,304 bytes allowed"}
    check_error(http.post(path, content=content), 413, **expected)
    pieces = (content[i : i + 65_536] for i in range(0, len(content), 65_536))
    check_error(http.post(path, content=pieces), 413, **expected)  # chunked: it never said how long it is


def test_a_large_body_within_the_limit_is_read(http: httpx.Client):
    body = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "a " * 200_000}]}
    check_error(http.post(CHAT, json=body), 400, param="messages", code="context_length_exceeded")


# --- creating jobs -------------------------------------------------------------------------------------------

MISSING = object()
VALUE = "invalid_value"
JOB_ERRORS = [
    # what is put in the place of a good body's field, the error's param and code, its message
    ({"model": MISSING}, "model", "missing_required_parameter", "Missing required parameter: 'model'"),
    ({"training_file": MISSING}, "training_file", "missing_required_parameter", "Missing required parameter"),
    ({"training_file": None}, "training_file", VALUE, "valid string"),
    ({"training_file": 7}, "training_file", VALUE, "valid string"),
    ({"epochs": 3}, "epochs", "unknown_parameter", "Unknown parameter: 'epochs'"),
    ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs", "unknown_parameter", "Unknown parameter"),
    ({"hyperparameters": []}, "hyperparameters", VALUE, "dictionary"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", VALUE, "greater than or equal to 1"),
    ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", VALUE, "less than or equal to 50"),
    ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", VALUE, "'auto'"),
    ({"hyperparameters": {"n_epochs": "3"}}, "hyperparameters.n_epochs", VALUE, "valid integer"),
    ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs", VALUE, "valid integer"),
    ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs", VALUE, "valid integer"),
    ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size", VALUE, "greater than or equal to 1"),
    ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size", VALUE, "less than or equal to 256"),
    *(
        ({"hyperparameters": {"learning_rate_multiplier": value}}, "hyperparameters.learning_rate_multiplier", VALUE, why)
        for value, why in ((0, "greater than 0"), (-1, "greater than 0"), ("x", "number"), (True, "number"))
    ),
    ({"suffix": ""}, "suffix", VALUE, "at least 1 character"),
    ({"suffix": "a" * 65}, "suffix", VALUE, "at most 64 characters"),
    ({"seed": -1}, "seed", VALUE, "greater than or equal to 0"),
    ({"seed": 2**31}, "seed", VALUE, "less than or equal to 2147483647"),
    ({"seed": "x"}, "seed", VALUE, "valid integer"),
    ({"model": "gpt-17"}, "model", "model_not_available", "Model gpt-17 is not available for fine-tuning"),
    ({"model": ""}, "model", "model_not_available", "not available for fine-tuning"),
    ({"model": "../../etc/passwd"}, "model", "model_not_available", "not available for fine-tuning"),
    ({"model": "ft:tiny:pegbox::abcdefgh"}, "model", "model_not_available", "not available for fine-tuning"),
    ({"training_file": "file-abc123"}, "training_file", "file_not_found", "file-abc123 does not exist"),
    ({"validation_file": "file-abc123"}, "validation_file", "file_not_found", "file-abc123 does not exist"),
    ({"training_file": "BATCH"}, "training_file", "invalid_file_purpose", "has purpose 'batch'"),
    ({"validation_file": "BATCH"}, "validation_file", "invalid_file_purpose", "has purpose 'batch'"),
    (
        {"method": {"type": "reinforcement"}}, "method.type", "unsupported_value",
        "Method 'reinforcement' is not supported by this server; use 'supervised' or 'dpo'",
    ),
    ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", VALUE, "'method.type' is 'dpo'"),
    ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo", VALUE, "'method.type' is 'supervised'"),
    *(
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": value}}}},
            "method.dpo.hyperparameters.beta", VALUE, why,
        )
        for value, why in ((0, "greater than 0"), (2.1, "less than or equal to 2"), (-0.1, "greater than 0"),
                           ("x", "number"), (True, "number"))
    ),
    (
        {"method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 51}}}},
        "method.dpo.hyperparameters.n_epochs", VALUE, "less than or equal to 50",
    ),
    ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta", "unknown_parameter", "hyperparameters.beta"),
    (
        {"method": {"type": "dpo", "dpo": {"beta": 0.1}}}, "method.dpo.beta", "unknown_parameter", "method.dpo.beta",
    ),
    ({"method": {"type": "magic"}}, "method.type", VALUE, "'supervised', 'dpo' or 'reinforcement'"),
    ({"method": {}}, "method.type", "missing_required_parameter", "Missing required parameter: 'method.type'"),
    (
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}},
        "method.supervised.hyperparameters.n_epochs", VALUE, "greater than or equal to 1",
    ),
    ({"metadata": {str(i): "" for i in range(17)}}, "metadata", VALUE, "at most 16"),
    ({"metadata": {"k" * 65: ""}}, "metadata." + "k" * 65, VALUE, "at most 64 characters"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", VALUE, "at most 512 characters"),
    ({"metadata": {"k": 1}}, "metadata.k", VALUE, "valid string"),
    ({"integrations": [{"type": "abacus", "wandb": {"project": "p"}}]}, "integrations[0].type", VALUE, "'wandb'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param", "code", "message"), JOB_ERRORS)
def test_jobs_that_can_never_be(
    http: httpx.Client,
    files: dict[str, str],
    change: dict[str, object],
    param: str | None,
    code: str | None,
    message: str,
):
    body = {"model": "gpt-3.5-turbo", "training_file": files["fine-tune"], **change}
    body = {key: files["batch"] if value == "BATCH" else value for key, value in body.items() if value is not MISSING}
    before = http.get(JOBS, params={"limit": 1}).json()["data"]
    check_error(http.post(JOBS, json=body), 400, param=param, code=code, message=message)
    assert http.get(JOBS, params={"limit": 1}).json()["data"] == before, "a refused request made a job"


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json", "content-length": "0"}])
def test_cancel_takes_no_body(http: httpx.Client, headers: dict[str, str]):
    """Old clients send neither body nor type, new ones send a type and no body."""
    file_id = put_file(http, jsonl([chat_row(f"Question {i}?", "yes") for i in range(10)]), "fine-tune")
    job = http.post(JOBS, json={"model": "tiny", "training_file": file_id}).json()
    answer = http.post(f"{JOBS}/{job['id']}/cancel", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "cancelled"
    again = http.post(f"{JOBS}/{job['id']}/cancel", headers=headers)
    check_error(again, 400, code="invalid_job_state", message="Job has already completed: .* is cancelled")
    http.delete(f"/files/{file_id}")


# --- asking models -------------------------------------------------------------------------------------------

CHAT_ERRORS = [
    ({"model": MISSING}, 400, "model", "missing_required_parameter", "Missing required parameter: 'model'"),
    ({"model": "gpt-17"}, 404, "model", "model_not_found", "The model `gpt-17` does not exist"),
    ({"model": "ft:tiny:pegbox::abcdefgh"}, 404, "model", "model_not_found", "does not exist"),
    ({"messages": MISSING}, 400, "messages", "missing_required_parameter", "Missing required parameter: 'messages'"),
    ({"messages": None}, 400, "messages", VALUE, "valid list"),
    ({"messages": []}, 400, "messages", VALUE, "at least one message"),
    ({"messages": "Hello"}, 400, "messages", VALUE, "valid list"),
    ({"messages": ["Hello"]}, 400, "messages[0]", VALUE, "object"),
    ({"messages": [{"content": "Hello"}]}, 400, "messages[0]", VALUE, "role"),
    ({"messages": [*HELLO, {"role": "wizard", "content": "a"}]}, 400, "messages[1].role", VALUE, "wizard"),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", VALUE, "missing"),
    ({"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content", VALUE, "must be text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        400, "messages[0].content[0]", VALUE, "image_url.*text only",
    ),
    ({"messages": [{"role": "user", "content": "a" * 600}]}, 400, "messages", "context_length_exceeded",
     r"maximum context length is 512 tokens. However, your messages resulted in 6\d\d tokens"),
    ({"messages": HELLO * 600}, 400, "messages", "context_length_exceeded", "maximum context length is 512"),
    ({"temperature": 3}, 400, "temperature", VALUE, "less than or equal to 2"),
    ({"temperature": -0.1}, 400, "temperature", VALUE, "greater than or equal to 0"),
    ({"temperature": "hot"}, 400, "temperature", VALUE, "valid number"),
    ({"top_p": 1.1}, 400, "top_p", VALUE, "less than or equal to 1"),
    ({"n": 0}, 400, "n", VALUE, "greater than or equal to 1"),
    ({"n": 129}, 400, "n", VALUE, "less than or equal to 128"),
    ({"max_tokens": 0}, 400, "max_tokens", VALUE, "greater than or equal to 1"),
    ({"max_completion_tokens": -1}, 400, "max_completion_tokens", VALUE, "greater than or equal to 1"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", VALUE, "at most 4"),
    ({"stop": 7}, 400, "stop", VALUE, "valid string"),
    ({"presence_penalty": 3}, 400, "presence_penalty", VALUE, "less than or equal to 2"),
    ({"logit_bias": {"1": 101}}, 400, "logit_bias.1", VALUE, "less than or equal to 100"),
    ({"logit_bias": {"cat": 1}}, 400, "logit_bias", VALUE, "Invalid key in 'logit_bias': cat"),
    ({"logit_bias": {"²": 1}}, 400, "logit_bias", VALUE, "Invalid key in 'logit_bias': ²"),
    ({"logit_bias": {"-1": 1}}, 400, "logit_bias", VALUE, "Invalid key in 'logit_bias': -1"),
    ({"logit_bias": {"259": 1}}, 400, "logit_bias", VALUE, "from 0 to 258"),
    ({"logit_bias": {"9" * 5000: 1}}, 400, "logit_bias", VALUE, "Invalid key in 'logit_bias': 9{20}\\."),
    ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs", VALUE, "less than or equal to 20"),
    ({"stream": "yes"}, 400, "stream", VALUE, "valid boolean"),
    ({"top_k": 5}, 400, "top_k", "unknown_parameter", "Unknown parameter: 'top_k'"),
    ({"stream_options": {"a": 1}}, 400, "stream_options.a", "unknown_parameter", "Unknown parameter"),
    ({"tools": [{"type": "function"}]}, 400, "tools[0]", VALUE, "name"),
    ({"tools": {}}, 400, "tools", VALUE, "valid list"),
    ({"modalities": ["audio"]}, 400, "modalities[0]", VALUE, "'text'"),
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("change", "status", "param", "code", "message"), CHAT_ERRORS)
def test_chats(
    http: httpx.Client,
    change: dict[str, object],
    status: int,
    param: str | None,
    code: str | None,
    message: str,
    stream: bool,
):
    body = {"model": "gpt-3.5-turbo", "messages": HELLO, "stream": stream, **change}
    body = {key: value for key, value in body.items() if value is not MISSING}
    check_error(http.post(CHAT, json=body), status, param=param, code=code, message=message)


COMPLETION_ERRORS = [
    ({"model": "gpt-17"}, 404, "model", "model_not_found", "The model `gpt-17` does not exist"),
    ({"model": MISSING}, 400, "model", "missing_required_parameter", "Missing required parameter"),
    ({"prompt": []}, 400, "prompt", VALUE, "empty"),
    ({"prompt": [[]]}, 400, "prompt", VALUE, "at least one"),
    ({"prompt": [259]}, 400, "prompt", VALUE, "from 0 to 258"),
    ({"prompt": [-1]}, 400, "prompt", VALUE, "from 0 to 258"),
    ({"prompt": {"a": 1}}, 400, "prompt", VALUE, "valid string"),
    ({"prompt": "a" * 512}, 400, "prompt", "context_length_exceeded", "maximum context length is 512"),
    ({"max_tokens": -1}, 400, "max_tokens", VALUE, "greater than or equal to 0"),
    ({"logprobs": 6}, 400, "logprobs", VALUE, "less than or equal to 5"),
    ({"logprobs": True}, 400, "logprobs", VALUE, "valid integer"),
    ({"suffix": "end"}, 400, "suffix", "unsupported_value", "suffix"),
    ({"best_of": 1, "n": 2}, 400, "best_of", VALUE, "more choices than it will generate"),
    ({"best_of": 3, "stream": True}, 400, "best_of", "unsupported_value", "streamed"),
    ({"messages": HELLO}, 400, "messages", "unknown_parameter", "Unknown parameter: 'messages'"),
]


@pytest.mark.parametrize(("change", "status", "param", "code", "message"), COMPLETION_ERRORS)
def test_completions(
    http: httpx.Client, change: dict[str, object], status: int, param: str | None, code: str | None, message: str
):
    body = {"model": "babbage-002", "prompt": "Hello", **change}
    body = {key: value for key, value in body.items() if value is not MISSING}
    check_error(http.post(COMPLETIONS, json=body), status, param=param, code=code, message=message)


# --- and afterwards ------------------------------------------------------------------------------------------


def test_the_server_still_answers(http: httpx.Client):
    assert http.get("/models").status_code == 200
    body = {"model": "gpt-3.5-turbo", "messages": HELLO, "max_tokens": 2}
    answer = http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    check_headers(answer)
