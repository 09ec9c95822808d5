"""What happens to every request before a route sees it, in plain ASGI: paths, the gate, body limits, headers.

It stands before the framework, because the framework reads a whole body before it asks who sent it.
"""

import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pegbox import ids, logs
from pegbox.api.errors import answer
from pegbox.api.gate import Gate
from pegbox.errors import BodyTooLarge, RequestError, UnsupportedEncoding
from pegbox.settings import Settings

log = logging.getLogger(__name__)
CALLER = "pegbox.caller"  # in the ASGI scope: who is asking
_FORM_OVERHEAD = 64 * 1024
_PREFIXLESS = re.compile(r"/fine_tuning/jobs/[^/]+/events")  # openai 0.28 forgets Azure's prefix here, and only here
_DEPLOYMENT = re.compile(r"/v1/deployments/(.+?)/(chat/completions|completions)")


def normal_path(path: str) -> str:
    """The path that the routes know: `/v1/…`, single slashes, none at the end.

    Clients join URLs in their own ways (`/v1//files`), and Azure's have a prefix of their own.
    """
    path = re.sub(r"/{2,}", "/", path).rstrip("/") or "/"
    path = re.sub(r"^/openai(/v1)?(?=/|$)", "/v1", path)
    if _PREFIXLESS.fullmatch(path):
        return f"/v1{path}"
    if deployment := _DEPLOYMENT.fullmatch(path):
        return "/v1/engines/{}/{}".format(*deployment.groups())
    return path


class Shell:
    def __init__(self, app: ASGIApp, gate: Gate, settings: Settings) -> None:
        self._app = app
        self._gate = gate
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no WebSocket leads past the gate
            await send({"type": "websocket.close", "code": 1008})
            return
        scope["path"] = normal_path(scope["path"])
        sent = _Sent()
        send = self._with_headers(send, sent)
        request = Request(scope)
        try:
            admitted = await self._gate.admit(request)
            scope[CALLER] = admitted.caller
            sent.headers = admitted.headers
            limit = self._body_limit(scope)
            _check_encoding(request)
            _check_length(request, limit)
        except RequestError as error:
            # The server reads what a client still sends and drops it, so that the client gets to read the answer: on
            # a closed connection it would see a broken pipe. One that waits to be asked for its body sends none.
            headers = {"connection": "close"} if "expect" in request.headers else None
            await answer(error, headers)(scope, receive, send)
            return
        try:
            await self._app(scope, _limited(receive, limit), send)
        except Exception:
            if not sent.complete:
                raise
            # The client has its answer (`errors._unexpected`), and keeps its connection.
            log.exception("a request failed")

    def _body_limit(self, scope: Scope) -> int:
        if scope["path"] == "/v1/files" and scope["method"] == "POST":
            return self._settings.max_file_bytes + _FORM_OVERHEAD
        return self._settings.max_body_bytes

    def _with_headers(self, send: Send, sent: "_Sent") -> Send:
        started = time.perf_counter()
        request_id = logs.request_id.get() or ids.mint("request")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                elapsed = int((time.perf_counter() - started) * 1000)
                message["headers"] = [
                    *message.get("headers", []),
                    *_encoded(
                        ("x-request-id", request_id),
                        ("openai-processing-ms", str(elapsed)),
                        ("openai-version", "2020-10-01"),
                        ("openai-organization", self._settings.organization),
                        ("x-content-type-options", "nosniff"),
                        *sent.headers,
                    ),
                ]
            await send(message)
            sent.complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        return send_with_headers


@dataclass(slots=True)
class _Sent:
    """How far an answer has come, and what is known of it beforehand."""

    complete: bool = False
    headers: tuple[tuple[str, str], ...] = ()


def _encoded(*headers: tuple[str, str]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.encode(), value.encode()) for name, value in headers)


def _check_encoding(request: Request) -> None:
    """A packed body is read by nobody: a few bytes of it can mean gigabytes."""
    for encoding in request.headers.getlist("content-encoding"):
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedEncoding(
                f"Content-Encoding '{encoding[:40]}' is not supported; send the body as it is, without compression.",
                code="unsupported_content_encoding",
            )


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than the {limit:,} bytes allowed.", code="request_too_large")


def _limited(receive: Receive, limit: int) -> Receive:
    """For bodies that don't say how long they are."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return receive_limited
