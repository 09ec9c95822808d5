"""Web pages of strangers: what a browser sends on their behalf is refused, whatever key comes with it.

A page can make its visitor's browser send requests to this machine, and can give its own name this machine's address
(DNS rebinding). Browsers say whose page asks, in `Origin` and `Sec-Fetch-Site`; and the name that they were given
stands in `Host`. Programs send no Origin, so the clients of the API notice nothing of this.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from pegbox.errors import Forbidden
from pegbox.settings import Settings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The names under which this server may be asked."""

    names: frozenset[str]
    listed: frozenset[str]  # those that the operator named
    origins: frozenset[str]  # the sites whose pages may ask
    at_home: bool  # listens on a loopback address only

    @classmethod
    def of(cls, settings: Settings) -> "Neighbours":
        listed = _words(settings.allowed_hosts)
        at_home = settings.host == "localhost" or _is_loopback(settings.host)
        return cls(listed | {settings.host.lower()}, listed, _words(settings.allowed_origins), at_home)

    def check(self, method: str, headers: Headers) -> None:
        """Raises Forbidden for a request that changes something and comes from a stranger's page."""
        if method in _SAFE_METHODS:
            return
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None:
            self._check_origin(origin, host)
        elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise _refused("A web page of another site asks this.")
        if (origin is not None or self.at_home or self.listed) and not self._knows(_name(host)):
            raise _refused(
                f"This server does not know itself as '{_name(host)[:100]}'. Name it in PEGBOX_ALLOWED_HOSTS if it is."
            )

    def _check_origin(self, origin: str, host: str) -> None:
        if origin.lower() in self.origins:
            return
        try:
            split = urlsplit(origin)
            own = split.netloc.lower() == host.lower() or (split.hostname or "") in self.listed
        except ValueError:
            own = False
        if not own:
            raise _refused(
                f"A web page of {origin[:100]} asks this, and pages of other sites may not. List that site in "
                "PEGBOX_ALLOWED_ORIGINS if its pages may use this server; or its name in PEGBOX_ALLOWED_HOSTS if it is "
                "this server itself, behind a proxy."
            )

    def _knows(self, name: str) -> bool:
        """Addresses, and names without a dot, are nothing that a stranger can have in the DNS."""
        return name in self.names or "." not in name or name.endswith(".localhost") or _is_address(name)


def _words(listed: str | None) -> frozenset[str]:
    return frozenset(word.strip().lower().rstrip("/") for word in (listed or "").split(",") if word.strip())


def _name(host: str) -> str:
    """The Host header without its port: `[::1]:8000` → `::1`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def _refused(text: str) -> Forbidden:
    return Forbidden(text, code="foreign_origin")
