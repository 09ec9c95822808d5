"""What is wrong with a file makes a failed job that names it, and never a refused request. What is merely odd trains."""

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import chat_row, finished, messages, rows, upload_bytes
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob


@pytest.fixture
def job_of(client: OpenAI) -> Iterator[Callable[..., FineTuningJob]]:
    """Upload contents and create a job of them; whatever still stands at the end is taken away."""
    made: list[str] = []
    files: list[str] = []

    def create(content: bytes, *, validation: bytes | None = None, **options: object) -> FineTuningJob:
        training = upload_bytes(client, content)
        files.append(training)
        if validation is not None:
            options["validation_file"] = upload_bytes(client, validation)
            files.append(options["validation_file"])
        options = {"model": "gpt-3.5-turbo", "hyperparameters": {"n_epochs": 1, "batch_size": 8}, **options}
        job = client.fine_tuning.jobs.create(training_file=training, **options)
        assert job.status == "validating_files"
        made.append(job.id)
        return job

    yield create
    for job_id in made:
        if client.fine_tuning.jobs.retrieve(job_id).status in ("validating_files", "queued", "running"):
            client.fine_tuning.jobs.cancel(job_id)
    for file_id in files:
        client.files.delete(file_id)


def jsonl(lines: list[object]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def with_line(number: int, line: str | bytes) -> bytes:
    """12 good rows, of which the one with this number (from 1) is replaced."""
    lines = jsonl(rows(12)).splitlines(keepends=True)
    lines[number - 1] = (line.encode() if isinstance(line, str) else line) + b"\n"
    return b"".join(lines)


def with_row(number: int, row: object) -> bytes:
    return with_line(number, json.dumps(row))


def with_message(number: int, message: object) -> bytes:
    return with_row(number, {"messages": [{"role": "user", "content": "a"}, message]})


PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "a"}]},
    "preferred_output": [{"role": "assistant", "content": "b"}],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
}
PLAIN = [{"prompt": f"Number {i}:", "completion": " odd" if i % 2 else " even"} for i in range(12)]
FORMAT, TRAINING = "invalid_file_format", "invalid_training_file"
BAD_FILES = {
    # content, the error's code, and what its message says, as patterns
    "empty": (b"", "invalid_n_examples", r"^Training file has 0 example\(s\), but must have at least 10 examples$"),
    "blank lines alone": (b"\n \n\r\n" * 20, "invalid_n_examples", r"has 0 example\(s\)"),
    "9 examples": (jsonl(rows(9)), "invalid_n_examples", r"^Training file has 9 example\(s\), but must have at least 10"),
    "not JSON": (with_line(3, '{"messages": ['), FORMAT, "^The job failed due to a file format error.*Example 3: not valid"),
    "no object": (with_line(4, '["messages"]'), TRAINING, "Example 4: the line is a list, not a JSON object"),
    "UTF-16": (jsonl(rows(12)).decode().encode("utf-16"), FORMAT, "Example 1: .*UTF-16.*save it as UTF-8"),
    "not UTF-8": (with_line(7, b'{"messages": "\xe9"}'), FORMAT, "Example 7: byte 15 is not UTF-8"),
    "NaN": (with_line(2, '{"messages": NaN}'), FORMAT, "Example 2: NaN is not JSON"),
    "a key twice": (with_line(5, '{"messages": [], "messages": []}'), FORMAT, 'Example 5: the key "messages" appears twice'),
    "half a character": (
        with_line(6, json.dumps(chat_row("a", "b")).replace('"b"', r'"\ud83d"')), FORMAT, r"Example 6: \\ud83d is half",
    ),
    "100,000 brackets": (with_line(8, "[" * 100_000), FORMAT, "Example 8: "),
    "100,000 brackets, closed": (with_line(8, "[" * 100_000 + "]" * 100_000), FORMAT, "Example 8: nested more than 64"),
    "unknown role": (
        with_message(9, {"role": "wizard", "content": "b"}), TRAINING,
        '^The job failed due to an invalid training file.*Example 9, message 2 role: unrecognized role "wizard"',
    ),
    "no role": (with_message(10, {"content": "b"}), TRAINING, "Example 10, message 2: Discriminator 'role' is missing in value"),
    "no assistant turn": (with_message(11, {"role": "user", "content": "b"}), TRAINING, "Example 11, messages: no assistant"),
    "every weight 0": (
        with_message(1, {"role": "assistant", "content": "b", "weight": 0}), TRAINING, "Example 1, messages: every assistant",
    ),
    "weight of a half": (
        with_message(1, {"role": "assistant", "content": "b", "weight": 0.5}), TRAINING, "Example 1, message 2 weight: is 0.5",
    ),
    "an image": (
        with_message(1, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}),
        TRAINING, "Example 1, message 2 content.*image_url",
    ),
    "mixed formats": (with_row(12, PLAIN[0]), FORMAT, "Example 12: is in completion format"),
    "a weight beside messages": (with_row(1, {**chat_row("a", "b"), "weight": 1}), FORMAT, 'Example 1: contains an extra "weight"'),
    "preference rows": (jsonl([PREFERENCE] * 12), TRAINING, r"fine-tune-preference format.*\(provided method=supervised\)"),
    "a preference row": (with_row(12, PREFERENCE), FORMAT, "Example 12: the row is a preference pair"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_fails_its_job(client: OpenAI, job_of: Callable[..., FineTuningJob], name: str):
    content, code, message = BAD_FILES[name]
    expect_failure(client, job_of(content), code, "training_file", message)


def expect_failure(client: OpenAI, job: FineTuningJob, code: str, param: str, message: str) -> str:
    ended = finished(client, job.id, seconds=60)
    assert ended.status == "failed"
    assert ended.error is not None
    assert (ended.error.code, ended.error.param) == (code, param), ended.error
    assert re.search(message, ended.error.message, re.DOTALL), ended.error.message
    assert (ended.fine_tuned_model, ended.trained_tokens, ended.result_files) == (None, None, [])
    assert ended.finished_at is not None
    last = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert (last.level, last.message) == ("error", ended.error.message)
    return ended.error.message


def test_every_bad_example_is_named_up_to_a_hundred(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    bad = [{"messages": [{"role": "user", "content": "a"}]}] * 150
    job = job_of(jsonl([*rows(5), *bad, *rows(5)]))
    text = expect_failure(client, job, TRAINING, "training_file", "150 of 160 examples are bad")
    assert [int(n) for n in re.findall(r"^(?:.* )?Example (\d+), messages: ", text, re.MULTILINE)] == list(
        range(6, 106)
    )
    assert text.endswith("and 50 more")


def test_chat_rows_for_a_completion_model(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    text = "12 of 12 examples are bad.*Example 1: is in chat format, but this model is tuned on completion rows"
    expect_failure(client, job_of(jsonl(rows(12)), model="babbage-002"), FORMAT, "training_file", text)


def test_completion_rows_for_a_chat_model(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    expect_failure(client, job_of(jsonl(PLAIN)), FORMAT, "training_file", "Example 1: is in completion format")


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (with_line(2, "{"), FORMAT, "^The job failed due to a file format error in the validation file.*Example 2: "),
        (with_message(3, {"role": "user", "content": "b"}), TRAINING, "invalid validation file.*Example 3, messages"),
        (b"", "invalid_n_examples", r"^Validation file has 0 example\(s\)"),
        (jsonl(PLAIN), FORMAT, "Example 1: is in completion format"),
    ],
)
def test_a_bad_validation_file(
    client: OpenAI, job_of: Callable[..., FineTuningJob], content: bytes, code: str, message: str
):
    expect_failure(client, job_of(jsonl(rows(12)), validation=content), code, "validation_file", message)


def test_a_file_of_another_format_than_its_validation_file(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    """Only a base that takes both formats gets as far as comparing them."""
    job = job_of(jsonl(rows(12)), validation=jsonl(PLAIN), model="tiny")
    expect_failure(client, job, FORMAT, "validation_file", "in completion format, but the training file is in chat")


def test_a_line_of_50_mb(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    line = json.dumps(chat_row("a" * 50_000_000, "b"))
    expect_failure(
        client, job_of(with_line(4, line)), FORMAT, "training_file", "Example 4: the line is 50,0.* bytes long"
    )


def test_a_file_that_is_deleted_while_it_is_read(client: OpenAI):
    file_id = upload_bytes(client, jsonl([chat_row(f"Question {i}?", "yes") for i in range(8_000)]))
    job = client.fine_tuning.jobs.create(training_file=file_id, model="gpt-3.5-turbo")
    time.sleep(0.2)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "validating_files"
    client.files.delete(file_id)
    deadline = time.monotonic() + 60
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status == "validating_files":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if job.status != "failed":  # who reads on, from a file that has lost only its name, is right as well
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        return
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("file_not_found", "training_file")


# --- what is odd and legal -----------------------------------------------------------------------------------

CALL = {"name": "weather", "arguments": '{"city": "Ulm"}'}
FUNCTION = {"name": "weather", "description": "Look out.", "parameters": {"type": "object", "properties": {}}}
ODD_ROWS: list[object] = [
    {  # tools, a call without content, its answer
        "messages": [
            {"role": "user", "content": "Weather in Ulm?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": CALL}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "assistant", "content": "It rains."},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "parallel_tool_calls": False,
    },
    {  # the same in the words of 2023
        "messages": [
            {"role": "user", "content": "Weather in Ulm?"},
            {"role": "assistant", "content": None, "function_call": CALL},
            {"role": "function", "name": "weather", "content": "rain"},
            {"role": "assistant", "content": "It rains."},
        ],
        "functions": [FUNCTION],
    },
    {"messages": [{"role": "developer", "content": "Be brief."}, *chat_row("Hello?", "Hi.", None)["messages"]]},
    {"messages": [{"role": "user", "name": "anna", "content": "Who am I?"}, {"role": "assistant", "content": "Anna."}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
            {"role": "assistant", "content": "Line\u2028separator \U0001f600"},
        ]
    },
    {"messages": [{"role": "assistant", "content": "I speak first."}]},
    {"messages": [{"role": "system", "content": ""}, *chat_row("", "Nothing?", None)["messages"]]},
]


def test_odd_files_train(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    """A BOM, CRLF, blank lines, calls, developer, names, parts: all in one file, trained to the end."""
    lines = [json.dumps(row, ensure_ascii=False) for row in [*rows(12), *ODD_ROWS]]
    content = "\ufeff" + "\r\n".join([*lines[:5], "", "  ", *lines[5:], ""]) + "\r\n"
    job = finished(client, job_of(content.encode()).id)
    assert job.status == "succeeded", job.error
    told = messages(client, job.id)
    assert any(text.startswith("Training file: 19 examples read, 19 used, 0 refused") for text in told), told
    assert "2 blank lines in the training file were passed over" in told
    assert sum(text.startswith("Step ") and "/3: training loss=" in text for text in told) == 3  # 19 rows by 8
    assert job.fine_tuned_model is not None
    client.models.delete(job.fine_tuned_model)


def accounts(client: OpenAI, job: FineTuningJob) -> tuple[dict[str, object], dict[str, str]]:
    """The numbers of a job that has passed validation, and its warnings by the data they carry; the job is stopped."""
    deadline = time.monotonic() + 60
    while (now := client.fine_tuning.jobs.retrieve(job.id)).status == "validating_files":
        assert time.monotonic() < deadline, "validation does not end"
        time.sleep(0.05)
    assert now.status in ("queued", "running"), now.error
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    data = next(event.data for event in events if event.message.startswith("Training file: "))
    told = {event.message: event.level for event in events if event.level != "info"}
    # What the data desk thinks of the rows (they are all alike here) is tested elsewhere.
    return data, {message: level for message, level in told.items() if not re.match(r"Q\d\d: ", message)}


def test_an_example_longer_than_the_context_is_cut(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    long = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a" * 1000}]}
    hopeless = {"messages": [{"role": "user", "content": "q" * 1000}, {"role": "assistant", "content": "a"}]}
    data, warnings = accounts(client, job_of(jsonl([*rows(12), long, hopeless])))
    # The tiny model's tokens are bytes and three marks; its context is 512.
    before = 1 + len("user\nq") + 1 + len("\n") + 1 + len("assistant\n")
    kept = 512 - before
    short = sum(len(row["messages"][-1]["content"]) + 1 for row in rows(12))  # every answer, and the mark after it
    lost = (1000 + 1 - kept) + (1 + 1)
    assert data | {"tokens": 0} == {
        "file": "training", "examples": 14, "used": 13, "refused": 1, "blank_lines": 0, "truncated": 2,
        "trained_tokens_lost": lost, "tokens": 0, "trained_tokens": short + kept,
    }  # fmt: skip
    share = lost / (lost + short + kept)
    assert warnings == {
        f"2 of 14 training examples are longer than the limit and were cut at the end; {lost:,} tokens to learn "
        f"({share:.1%}) were lost": "warn",
        "1 training examples were refused, because cutting left nothing to learn: 14": "warn",
    }


def test_a_file_of_nothing_but_hopeless_examples(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    hopeless = {"messages": [{"role": "user", "content": "q" * 1000}, {"role": "assistant", "content": "a"}]}
    expect_failure(client, job_of(jsonl([hopeless] * 12)), TRAINING, "training_file", "Every example is longer")


def test_weights_choose_what_is_learnt(client: OpenAI, job_of: Callable[..., FineTuningJob]):
    row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "bbbb", "weight": 0},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "dd", "weight": 1},
            {"role": "user", "content": "e"},
            {"role": "assistant", "content": "fff"},
        ]
    }
    data, warnings = accounts(client, job_of(jsonl([row] * 10)))
    assert data["trained_tokens"] == 10 * (len("dd") + 1 + len("fff") + 1)
    assert warnings == {}
