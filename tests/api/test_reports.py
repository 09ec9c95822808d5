"""The data desk in the server: what an upload says at once, what a job says of its files, and the report of a file."""

import json

import pytest
from conftest import Server, chat_row, finished, messages, rows, upload_bytes
from openai import OpenAI


def jsonl(lines: list[object]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


@pytest.fixture
def uploaded(client: OpenAI):
    """Upload rows; they are taken away again."""
    made: list[str] = []

    def upload(content: bytes | list[object], name: str = "train.jsonl") -> str:
        made.append(upload_bytes(client, content if isinstance(content, bytes) else jsonl(content), name))
        return made[-1]

    yield upload
    for file_id in made:
        client.files.delete(file_id)


def test_an_upload_that_can_be_read_has_nothing_to_say(client, uploaded):
    file = client.files.retrieve(uploaded(rows(12)))
    assert (file.status, file.status_details) == ("processed", None)


def test_an_upload_with_bad_rows_says_so_at_once_and_is_kept(client, uploaded):
    content = jsonl(rows(3)) + b'{"messages": [\n' + jsonl([{"messages": []}])
    file = client.files.retrieve(uploaded(content))
    assert file.status == "processed", "clients wait for that word; the job is what fails"
    assert file.status_details == (
        "2 of 5 rows can't be read; a job would fail. The first: Example 4: not valid JSON: Expecting value at column "
        "15 (line 4)"
    )
    assert client.files.content(file.id).content == content


def test_an_empty_upload_says_so(client, uploaded):
    assert "no rows" in client.files.retrieve(uploaded(b"")).status_details


def test_preference_rows_are_read_as_such(client, uploaded):
    pair = {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
    }
    assert client.files.retrieve(uploaded([pair] * 3)).status_details is None


def test_the_report_of_a_file(server: Server, uploaded):
    content = [
        *rows(20),
        rows(20)[3],
        chat_row("My key is sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD, keep it", "red"),
    ]
    file_id = uploaded(content)
    with server.http() as http:
        found = http.get(f"/files/{file_id}/report")
        assert found.status_code == 200
        report = found.json()
        again = http.get(f"/files/{file_id}/report").json()
        page = http.get(f"/files/{file_id}/report", params={"format": "html"})
        sarif = http.get(f"/files/{file_id}/report", params={"format": "sarif"}).json()
    facts = report["training"]
    assert (facts["name"], facts["rows"], facts["used"], facts["refused"]) == ("train.jsonl", 22, 22, {})
    # The tiny model's tokens are bytes and three marks.
    whole = [3 * 2 + 3 + sum(len(m["role"]) + 1 + len(m["content"]) for m in row["messages"]) - 1 for row in content]
    assert facts["total_tokens"] == sum(whole)
    by_code = {finding["code"]: finding for finding in report["findings"]}
    assert by_code["Q06"]["lines"] == [21]
    assert by_code["Q13"]["lines"] == [22]
    assert "abcdefghijklmnop" not in found.text, "what is secret is redacted"
    assert report["plan"]["n_epochs"] == 4
    assert again == report, "it is kept"
    assert page.headers["content-type"].startswith("text/html")
    assert "<html" in page.text
    assert sarif["version"] == "2.1.0"


def test_the_report_of_two_files_names_what_leaked(server: Server, uploaded):
    training, validation = (
        uploaded(rows(30)),
        uploaded([rows(30)[4], *[chat_row(f"Else {i} entirely", "red") for i in range(12)]]),
    )
    with server.http() as http:
        report = http.get(f"/files/{training}/report", params={"validation_file": validation}).json()
    leak = next(f for f in report["findings"] if f["code"] == "Q12" and f["severity"] != "info")
    assert leak["file"] == "validation"
    assert 1 in leak["lines"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/files/file-nope/report", 404, None),
        ("/files/{file}/report?model=nope", 400, "model_not_available"),
        ("/files/{file}/report?format=pdf", 400, None),
    ],
)
def test_what_has_no_report_is_said_in_the_apis_error_shape(server: Server, uploaded, path, status, code):
    file_id = uploaded(rows(12))
    with server.http() as http:
        answer = http.get(path.format(file=file_id))
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert code is None or answer.json()["error"]["code"] == code


def test_a_job_tells_what_its_data_is_worth(client: OpenAI, server: Server, uploaded):
    contradicting = [chat_row("What colour is the sky?", "blue"), chat_row("What colour is the sky?", "red")]
    file_id = uploaded([*rows(20), *contradicting])
    job = client.fine_tuning.jobs.create(
        training_file=file_id, model="gpt-3.5-turbo", hyperparameters={"n_epochs": 1, "batch_size": 8}
    )
    done = finished(client, job.id)
    assert done.status == "succeeded", done.error
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    told = [event for event in events if event.message.startswith("Q09")]
    assert len(told) == 1
    assert told[0].level == "warn"
    assert told[0].data["lines"] == [21, 22]
    plan = next(event for event in events if event.message.startswith("Plan:"))
    assert (
        plan.data["estimate"]["seconds_low"] < plan.data["estimate"]["seconds"] < plan.data["estimate"]["seconds_high"]
    )
    assert any(m.startswith("Data report:") for m in messages(client, job.id))

    # The next estimate has learnt from this job.
    with server.http() as http:
        other = uploaded(rows(25))
        estimate = http.get(f"/files/{other}/report").json()["estimate"]
    assert estimate["jobs"] >= 1
    assert "Learnt from" in estimate["basis"]


def test_a_report_goes_with_its_file(client: OpenAI, server: Server):
    file_id = upload_bytes(client, jsonl(rows(12)))
    with server.http() as http:
        http.get(f"/files/{file_id}/report").raise_for_status()
        kept = list((server.data_dir / "reports").glob(f"{file_id}*"))
        client.files.delete(file_id)
        assert kept
        assert not list((server.data_dir / "reports").glob(f"{file_id}*"))
        assert http.get(f"/files/{file_id}/report").status_code == 404
