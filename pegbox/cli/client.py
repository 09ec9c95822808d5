"""The HTTP connection to a pegbox server, and what its errors mean to the person at the keyboard.

Answers come back as the server's own wire types. Every failure is a CommandFailed whose text says what to do.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from pegbox.cli.address import Address
from pegbox.errors import CommandFailed
from pegbox.wire.base import ErrorBody, Page

Shape = TypeVar("Shape", bound=BaseModel)

# The first question to a model waits until its weights are in memory, so reading has a long time.
_TIMEOUT = httpx.Timeout(600, connect=5)
_PAGE = 100
_KEY_HINT = "Set PEGBOX_API_KEY (or --api-key) to the key that `pegbox serve` printed at its first start."


class Unreachable(CommandFailed):
    """Nobody answered. A job may live on regardless."""


class Api:
    """One connection, to be used in a `with`. Every method may raise CommandFailed."""

    def __init__(self, address: Address) -> None:
        self._url = address.base_url.strip().rstrip("/")
        key = (address.api_key or "").strip()
        if not key:
            raise CommandFailed(f"no API key is set. {_KEY_HINT}")
        if not (key.isascii() and key.isprintable()):
            raise CommandFailed(f"the API key holds characters that no key has. {_KEY_HINT}")
        try:
            url = httpx.URL(self._url)
        except httpx.InvalidURL:
            raise self._bad_url() from None
        if url.scheme not in ("http", "https") or not url.host:
            raise self._bad_url()
        self._http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=_TIMEOUT,
            trust_env=url.host not in ("localhost", "127.0.0.1", "::1"),  # no proxy leads to this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    # --- questions in one piece ------------------------------------------------------------------------------

    def get(self, path: str, shape: type[Shape], **query: str | int) -> Shape:
        with self._answer("GET", path, params=query) as response:
            return self._read(response, shape)

    def post(self, path: str, shape: type[Shape], body: dict[str, object] | None = None) -> Shape:
        with self._answer("POST", path, **_json(body or {})) as response:
            return self._read(response, shape)

    def delete(self, path: str, shape: type[Shape]) -> Shape:
        with self._answer("DELETE", path) as response:
            return self._read(response, shape)

    def pages(self, path: str, shape: type[Page[Shape]], *, limit: int = _PAGE, **filters: str) -> Iterator[Shape]:
        """All things of a list, newest first; asks for the next page when it comes to it."""
        query: dict[str, str | int] = {**filters, "limit": limit}
        while True:
            page = self.get(path, shape, **query)
            yield from page.data
            if not page.has_more or page.last_id is None:
                return
            query["after"] = page.last_id

    # --- long ones -------------------------------------------------------------------------------------------

    def upload(self, file: BinaryIO, name: str, purpose: str, shape: type[Shape]) -> Shape:
        """Send a file as it is read: memory stays flat, whatever the size."""
        form = {"files": {"file": (name, file)}, "data": {"purpose": purpose}}
        with self._answer("POST", "/files", **form) as response:
            return self._read(response, shape)

    @contextmanager
    def download(self, path: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
        """The body in chunks, and how long it will be."""
        with self._answer("GET", path) as response:
            length = response.headers.get("content-length", "")
            yield response.iter_bytes(), int(length) if length.isdigit() else None

    def stream(self, path: str, shape: type[Shape], body: dict[str, object]) -> Generator[Shape, None, None]:
        """Server-sent events, as they arrive."""
        with self._answer("POST", path, **_json({**body, "stream": True})) as response:
            for line in response.iter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                if data.startswith('{"error"'):
                    raise CommandFailed(f"the answer broke off: {_said(data.encode())}")
                yield self._parse(data.encode(), shape)

    # --- errors ----------------------------------------------------------------------------------------------

    @contextmanager
    def _answer(self, method: str, path: str, **options: object) -> Iterator[httpx.Response]:
        """A good answer, whose body is yet to be read. The one place where a failed request becomes a sentence."""
        try:
            with self._http.stream(method, path, **options) as response:  # type: ignore[arg-type]
                if not response.is_success:
                    response.read()
                    raise self._refused(response)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise Unreachable(
                f"no server answers at {self._url}. Start it with `pegbox serve`, "
                "or name another one with --base-url (or PEGBOX_BASE_URL)."
            ) from None
        except httpx.TimeoutException:
            raise Unreachable(f"the server at {self._url} took too long; look at its output and try again.") from None
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the connection to {self._url} broke off ({error}). See whether the server still runs, and try again."
            ) from None

    def _refused(self, response: httpx.Response) -> CommandFailed:
        said = _said(response.content)
        if said is None:
            return self._stranger(f"answered {response.status_code}")
        if response.status_code == 401:
            return CommandFailed(f"{said} {_KEY_HINT}")
        if response.status_code == 404 and not self._url.endswith("/v1"):
            return CommandFailed(f"{said} The address {self._url} does not end in /v1; should it?")
        return CommandFailed(said)

    def _read(self, response: httpx.Response, shape: type[Shape]) -> Shape:
        return self._parse(response.read(), shape)

    def _parse(self, content: bytes, shape: type[Shape]) -> Shape:
        try:
            return shape.model_validate_json(content)
        except ValidationError:
            raise self._stranger("answered in a way that pegbox does not know") from None

    def _stranger(self, what: str) -> CommandFailed:
        return CommandFailed(
            f"whoever listens at {self._url} {what}. Is --base-url a pegbox server's address, with /v1 at its end?"
        )

    def _bad_url(self) -> CommandFailed:
        return CommandFailed(
            f'"{self._url}" is no address of a server. Give --base-url as http://HOST:PORT/v1, '
            "for example http://127.0.0.1:8000/v1."
        )


def path(*parts: str) -> str:
    """A path with parts that users typed: `path("files", id, "content")`. None of them can lead elsewhere."""
    return "/" + "/".join(quote(part.encode("utf-8", "replace"), safe="") for part in parts)


def _json(body: dict[str, object]) -> dict[str, object]:
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except ValueError:
        raise CommandFailed("a number among the options is not finite; give an ordinary number.") from None
    return {"content": content, "headers": {"content-type": "application/json"}}


def _said(content: bytes) -> str | None:
    """The API's error object as one sentence, or None where the answer holds none."""
    try:
        error = ErrorBody.model_validate_json(content).error
    except ValidationError:
        return None
    return f"{error.message} (parameter: {error.param})" if error.param else error.message
