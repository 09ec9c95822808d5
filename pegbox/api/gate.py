"""Who is let in: the key, the organization and project that were named, what the key may do, how often it may ask.

All of it is answered from memory, before a byte of the body is read.
"""

import ipaddress
from dataclasses import dataclass

import anyio
from starlette.requests import Request

from pegbox.api.strangers import Neighbours
from pegbox.auth.access import Access, Caller
from pegbox.auth.buckets import Buckets, Left
from pegbox.auth.keys import Key, Keys
from pegbox.errors import Forbidden, TooManyRequests, Unauthorized
from pegbox.settings import Settings

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_ADMIN_PATHS = "/v1/organization"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may go on, and what its answer says of it."""

    caller: Caller | None  # None on paths that are open to all
    headers: tuple[tuple[str, str], ...] = ()


class Gate:
    def __init__(self, keys: Keys, settings: Settings) -> None:
        self._keys = keys
        self._neighbours = Neighbours.of(settings)
        self._requests = Buckets(settings.requests_per_minute)
        self._open = OPEN_PATHS | ({"/metrics"} if settings.metrics_open else set())
        self._failures = Buckets(settings.wrong_keys_per_minute)

    async def admit(self, request: Request) -> Admitted:
        """Raises Unauthorized, Forbidden and TooManyRequests."""
        self._neighbours.check(request.method, request.headers)
        if request.scope["path"] in self._open:
            return Admitted(None)
        key = await self._key(request)
        _check_project(request, key)
        needed = needed_access(request.method, request.scope["path"])
        if not key.access.covers(needed):
            raise Forbidden(
                f"You have insufficient permissions for this operation. Missing scopes: {needed}. "
                f"Use a key with that scope; this one has '{key.access}'.",
                code="missing_scope",
            )
        headers = (("openai-project", key.scope.project_id), *self._within_rate(key))
        if self._keys.use_is_due(key):
            await anyio.to_thread.run_sync(self._keys.note_use, key)
        return Admitted(key.caller, headers)

    async def _key(self, request: Request) -> Key:
        sent = _sent_keys(request)
        if not sent:
            raise Unauthorized(
                "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'; "
                "`pegbox serve` printed it at its first start."
            )
        if self._keys.is_stale:
            await anyio.to_thread.run_sync(self._keys.reload)
        key = next((found for one in sent if (found := self._keys.find(one))), None)  # the first that we know
        if key is not None and key.is_good:
            return key
        left = self._failures.take(_address(request))
        if not left.granted:
            raise TooManyRequests(
                f"Too many wrong API keys came from this address. Please try again in {_span(left.wait)}.",
                wait=left.wait,
            )
        raise _not_good(key, sent[0])

    def _within_rate(self, key: Key) -> tuple[tuple[str, str], ...]:
        if not self._requests.are_limited:
            return ()
        left = self._requests.take(key.id)
        headers = _rate_headers(left)
        if not left.granted:
            refused = TooManyRequests(
                f"Rate limit reached for requests per min (RPM): Limit {left.limit}, Used {left.limit}, Requested 1. "
                f"Please try again in {_span(left.wait)}.",
                wait=left.wait,
            )
            refused.headers = {**refused.headers, **dict(headers)}
            raise refused
        return headers


def needed_access(method: str, path: str) -> Access:
    """What a key must be allowed to do, told by method and path alone."""
    if path == _ADMIN_PATHS or path.startswith(f"{_ADMIN_PATHS}/"):
        return Access.ADMIN
    return Access.READ if method in ("GET", "HEAD", "OPTIONS") else Access.WRITE


def _sent_keys(request: Request) -> list[str]:
    """The one place where a key is taken from a request. Clients set to Azure send `api-key`, and some of them a
    bearer that means nothing besides (`Bearer undefined`)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    return [key for one in (bearer, request.headers.get("api-key", "")) if (key := one.strip())]


def _check_project(request: Request, key: Key) -> None:
    """A header may say in words what the key says anyway; it opens nothing. A server is one organization, so
    `OpenAI-Organization` can mean no other: what scripts bring along from elsewhere is let pass."""
    project = request.headers.get("openai-project", "").strip()
    if project and project != key.scope.project_id:
        raise Unauthorized(
            "OpenAI-Project header should match project for API key. Leave the header out, or use a key of that "
            "project.",
            code="mismatched_project",
        )


def _not_good(key: Key | None, sent: str) -> Unauthorized:
    shown = f"{sent[:3]}***{sent[-4:]}" if len(sent) > 12 else "***"
    if key is None:
        return Unauthorized(f"Incorrect API key provided: {shown}.", code="invalid_api_key")
    if key.revoked_at is None and key.archived:
        return Unauthorized("The project of this API key is archived.", code="not_authorized_invalid_project")
    why = "was revoked" if key.revoked_at is not None else "has expired"
    return Unauthorized(f"Incorrect API key provided: {shown}. It {why}; use another one.", code="invalid_api_key")


def _rate_headers(left: Left) -> tuple[tuple[str, str], ...]:
    return (
        ("x-ratelimit-limit-requests", str(left.limit)),
        ("x-ratelimit-remaining-requests", str(left.remaining)),
        ("x-ratelimit-reset-requests", _span(left.reset)),
    )


def _span(seconds: float) -> str:
    """As the API writes it: `120ms`, `8.64s`, `6m0s`."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{int(rest)}s" if minutes else f"{round(rest, 2):g}s"


def _address(request: Request) -> str:
    """Of the other end of the connection; of an IPv6 one its network, because one machine has many addresses there."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
