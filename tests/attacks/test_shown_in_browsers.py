"""Row 19 of the attack table: what users write is never a page's code. There is no page in the server but the report;
the desk's own tests show it in a real browser (tests/test_report_page.py)."""

import json
import re
from html.parser import HTMLParser

import httpx
import pytest
from conftest import Server, chat_row, upload_bytes

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>"


class Tags(HTMLParser):
    """The elements of a page, with their attributes, as an independent parser sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def rows(n: int) -> bytes:
    lines = [chat_row(f"{EVIL} {i} bob@example.com", EVIL, EVIL) for i in range(n)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode() + b'{"' + EVIL.encode()[1:] + b'": 1}\n'


@pytest.mark.parametrize("name", [EVIL, "a.html", "a.svg", "a\r\nX-Evil: 1\r\n\r\n<script>.html"])
@pytest.mark.parametrize("query", ["", "?encoding=base64"])
def test_content_is_saved_and_never_shown(server: Server, name: str, query: str) -> None:
    with server.http() as http:
        file = http.post("/files", files={"file": (name, EVIL.encode())}, data={"purpose": "user_data"}).json()
        answer = http.get(f"/files/{file['id']}/content{query}")
        assert http.delete(f"/files/{file['id']}").status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"].split(";")[0] in ("application/octet-stream", "text/plain")
    assert re.fullmatch(r"attachment; filename\*=UTF-8''[A-Za-z0-9%._~/-]*", answer.headers["content-disposition"])
    assert "x-evil" not in answer.headers


def test_every_answer_is_json_that_no_browser_takes_for_a_page(server: Server) -> None:
    """The text in every field that a user can fill; each answer says that it is JSON, and that this is final."""
    answers: list[httpx.Response] = []
    with server.http() as http:
        file = http.post("/files", files={"file": (EVIL, rows(12))}, data={"purpose": "fine-tune"})
        file_id = file.json()["id"]
        body = {"model": "tiny", "training_file": file_id, "suffix": EVIL, "metadata": {EVIL: EVIL}}
        job = http.post("/fine_tuning/jobs", json=body)
        answers += [file, job, http.get("/files"), http.get("/fine_tuning/jobs")]
        job_id = job.json()["id"]
        answers += [http.get(f"/fine_tuning/jobs/{job_id}"), http.get(f"/fine_tuning/jobs/{job_id}/events")]
        answers.append(http.post(f"/fine_tuning/jobs/{job_id}/cancel"))
        for path in (f"/models/{EVIL}", f"/files/{EVIL}", f"/{EVIL}", f"/fine_tuning/jobs/{EVIL}"):
            answers.append(http.get(path))
        answers.append(
            http.post("/chat/completions", json={"model": EVIL, "messages": [{"role": EVIL, "content": EVIL}]})
        )
        answers.append(http.get("/files", params={"order": EVIL}))
        answers.append(http.get("/files", headers={"authorization": f"Bearer {EVIL}"}))
        answers.append(http.post("/organization/projects", json={"name": EVIL}))
        project = answers[-1].json()["id"]
        answers.append(http.post(f"/organization/projects/{project}/archive"))
        http.delete(f"/files/{file_id}")
    assert any(EVIL[3:20] in answer.json().get("filename", "") for answer in answers), "it came back as it was"
    for answer in answers:
        assert answer.headers["content-type"] == "application/json", answer.request.url
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_report_holds_it_as_text(server: Server) -> None:
    with server.http() as http:
        file_id = upload_bytes(server.client(), rows(12), name=EVIL)
        answer = http.get(f"/files/{file_id}/report", params={"format": "html"})
        http.delete(f"/files/{file_id}")
    assert answer.status_code == 200
    assert "&lt;script&gt;alert(2)" in answer.text, "the rows are shown"
    page = Tags()
    page.feed(answer.text)
    assert not {"img", "script", "iframe", "object"} & {tag for tag, _ in page.found}
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    policy = next(
        a["content"] for tag, a in page.found if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
