"""What every answer of the server has, whatever was asked."""

import re

import httpx


def check_headers(response: httpx.Response) -> None:
    assert re.fullmatch(r"req_\w{24}", response.headers["x-request-id"])
    assert int(response.headers["openai-processing-ms"]) >= 0
    assert response.headers["openai-version"] == "2020-10-01"
    assert response.headers["openai-organization"] == "pegbox"


def check_error(
    response: httpx.Response,
    status: int,
    *,
    param: str | None = None,
    code: str | None = None,
    message: str = "",
    kind: str = "invalid_request_error",
) -> str:
    """The error object, and nothing else, with the headers. `message` is a pattern; returns the whole text."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    check_headers(response)
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error = body["error"]
    assert (error["type"], error["param"], error["code"]) == (kind, param, code), error
    assert re.search(message, error["message"]), error["message"]
    return error["message"]
