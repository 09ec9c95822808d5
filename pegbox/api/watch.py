"""The outermost layer: gives every request its id, counts it, and writes one line about it when it is answered."""

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pegbox import ids, logs, metrics

log = logging.getLogger("pegbox.access")
_ASKED_ALL_THE_TIME = frozenset({"/healthz", "/readyz", "/metrics"})
_OWN_ID = re.compile(r"(ftjob-|file-|whe_)[A-Za-z0-9]{24}")  # anything else in a path may be whatever a client wrote
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Watch:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # the client left before there was an answer

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = logs.request_id.set(ids.mint("request"))
        try:
            await self._app(scope, receive, send_noting)
        finally:
            _note(scope, status, time.perf_counter() - started)
            logs.request_id.reset(token)


def _note(scope: Scope, status: int, seconds: float) -> None:
    # Never the path as it was sent, nor the query: they are the client's words, and of unlimited number.
    route = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    metrics.HTTP_REQUESTS.labels(method, route, str(status)).inc()
    metrics.HTTP_SECONDS.labels(route).observe(seconds)
    client = scope.get("client")
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "milliseconds": round(seconds * 1000, 1),
        "client": client[0] if client else None,
        **{name: value for name, value in scope.get("path_params", {}).items() if _OWN_ID.fullmatch(str(value))},
    }
    level = logging.DEBUG if route in _ASKED_ALL_THE_TIME else logging.INFO
    log.log(level, "request", extra={"fields": fields})
