"""The one way out: a POST to an address that a user named. Nothing else in pegbox connects to what a user wrote.

A URL is parsed once. Its name is resolved once, every address of it is held against the rules, and the connection goes
to an address that was looked at, so that a name which answers differently the second time gains nothing. TLS asks for
the URL's own name (SNI) and checks the certificate against it. No redirect is followed, no proxy of the environment
is asked, and the whole exchange has one deadline and one size.
"""

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import httpcore
import httpx

from pegbox.errors import EgressFailed, EgressRefused

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# A host and a port → the addresses of the host. Raises OSError where there are none.
Lookup = Callable[[str, int], Sequence[str]]

_LONGEST_URL = 2048
_STRANGE = re.compile(r"[\x00-\x20\x7f\\]|[^\x00-\x7f]")  # what two parsers may read in two ways
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")  # a name or an IPv6 address
# The public part of IPv6 and what of it is not: tunnels that carry an IPv4 address inside, and examples in documents.
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Where a request may go, and how much it may cost."""

    networks: tuple[Network, ...] = ()  # beside the public internet
    plain_http: bool = False  # http:// as well, but to `networks` only
    seconds: float = 15.0  # for everything, from the first byte sent
    answer_bytes: int = 64 * 1024  # of the answer's body that are read; its rest is left unread


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart."""

    scheme: str
    host: str  # in ASCII, without brackets or a dot at its end
    port: int
    target: bytes  # path and query


def read_url(url: str, rules: Rules) -> Address:
    """Take a URL apart, the only time that it is. Raises EgressRefused, whose text says what to write instead."""
    if len(url) > _LONGEST_URL:
        raise EgressRefused(f"the URL is longer than {_LONGEST_URL} characters.")
    if _STRANGE.search(url):
        raise EgressRefused("the URL holds a space, a backslash or a character beyond ASCII; write it percent-encoded.")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise EgressRefused(f"it is no URL: {error}.") from None
    schemes = ("https", "http") if rules.plain_http else ("https",)
    if parsed.scheme not in schemes:
        raise EgressRefused(f"its scheme must be {' or '.join(schemes)}.")
    if parsed.userinfo or "@" in parsed.netloc.decode("ascii"):
        raise EgressRefused("it holds a user name or password; leave out what stands before '@'.")
    host = parsed.raw_host.decode("ascii").strip("[]").rstrip(".")
    port = parsed.port if parsed.port is not None else {"https": 443, "http": 80}[parsed.scheme]
    if not _HOST.fullmatch(host) or not 0 < port < 65536:
        raise EgressRefused("it names no host, or a port that does not exist.")
    return Address(parsed.scheme, host, port, parsed.raw_path)


def is_allowed(address: IPAddress, rules: Rules, *, plain: bool = False) -> bool:
    """Whether a connection may go to this address; `plain` is one without TLS."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in network for network in rules.networks):
        return True
    if plain or any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address in _PUBLIC_V6
    return address.is_global and not address.is_multicast and not address.is_reserved


def system_lookup(host: str, port: int) -> list[str]:
    """The operating system's answer, which also reads addresses in all their spellings (127.1, 0x7f.1, 2130706433)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def resolve(address: Address, rules: Rules, lookup: Lookup = system_lookup) -> list[IPAddress]:
    """The addresses to connect to. Raises EgressFailed where there is none, and EgressRefused if any of them is
    forbidden, because a name with one public and one private address is no mistake."""
    try:
        found = [ipaddress.ip_address(text.partition("%")[0]) for text in lookup(address.host, address.port)]
    except (OSError, ValueError):
        found = []
    if not found:
        raise EgressFailed(f"the host {address.host} has no address")
    plain = address.scheme == "http"
    for one in found:
        if not is_allowed(one, rules, plain=plain):
            raise EgressRefused(
                # Not which address: that would let whoever holds a key read the names of a private network.
                f"{address.host} is not on the public internet{' or asked without TLS' if plain else ''}; "
                "the server's operator can allow its network in PEGBOX_WEBHOOK_NETWORKS."
            )
    return found


def check(url: str, rules: Rules, lookup: Lookup = system_lookup) -> None:
    """Whether a URL may be kept, so that its owner hears of it now. Raises EgressRefused. A name that has no address
    today may have one tomorrow, and each request looks again."""
    with suppress(EgressFailed):
        resolve(read_url(url, rules), rules, lookup)


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    rules: Rules,
    *,
    lookup: Lookup = system_lookup,
    backend: httpcore.NetworkBackend | None = None,
) -> int:
    """Send `body` and return the answer's status, whatever it is; a redirect is a status like any other.

    Raises EgressRefused where the rules forbid it, and EgressFailed where no answer came in time.
    """
    address = read_url(url, rules)
    checked = resolve(address, rules, lookup)
    deadline = time.monotonic() + rules.seconds
    network = _Checked(checked, deadline, backend or httpcore.SyncBackend())
    try:
        with network, httpcore.ConnectionPool(ssl_context=_tls(), network_backend=network, retries=0) as pool:
            return _exchange(pool, address, body, headers, rules, deadline)
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        if time.monotonic() >= deadline or isinstance(error, httpcore.TimeoutException):
            raise EgressFailed(f"no answer within {rules.seconds:g} s") from None
        raise EgressFailed(f"no answer: {error or type(error).__name__}") from None


def _exchange(
    pool: httpcore.ConnectionPool,
    address: Address,
    body: bytes,
    headers: Mapping[str, str],
    rules: Rules,
    deadline: float,
) -> int:
    host = f"[{address.host}]" if ":" in address.host else address.host
    default = {"https": 443, "http": 80}[address.scheme]
    shown = host if address.port == default else f"{host}:{address.port}"
    url = httpcore.URL(scheme=address.scheme, host=host, port=address.port, target=address.target)
    own = {"host": shown, "content-length": str(len(body)), "connection": "close"}
    sent: list[tuple[bytes | str, bytes | str]] = [*own.items(), *headers.items()]
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), rules.seconds)
    with pool.stream("POST", url, headers=sent, content=body, extensions={"timeout": timeout}) as answer:
        read = 0
        # The status decides. The body is read so that the other side may finish, and no further than the rules say.
        with suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
            for chunk in answer.iter_stream():
                read += len(chunk)
                if read > rules.answer_bytes or time.monotonic() >= deadline:
                    break
        return int(answer.status)


class _Checked(httpcore.NetworkBackend):
    """Connects to addresses that were looked at, whatever name it is given, and breaks the connection off at the
    deadline: a time-out for each read alone would let an answer that drips go on for ever."""

    def __init__(self, addresses: Sequence[IPAddress], deadline: float, backend: httpcore.NetworkBackend) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._backend = backend
        self._timer: threading.Timer | None = None
        self._handle: socket.socket | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._handle is not None:
            self._handle.close()

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the name was resolved once, and is not resolved again
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failed: Exception | None = None
        for address in self._addresses:
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            try:
                stream = self._backend.connect_tcp(str(address), port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
                continue
            self._break_off_in_time(stream)
            return stream
        raise failed or httpcore.ConnectTimeout("out of time")

    def _break_off_in_time(self, stream: httpcore.NetworkStream) -> None:
        connection = stream.get_extra_info("socket")
        if not isinstance(connection, socket.socket):
            return
        self._handle = connection.dup()  # TLS takes the first descriptor over
        self._timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._break_off)
        self._timer.daemon = True
        self._timer.start()

    def _break_off(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)


@cache
def _tls() -> ssl.SSLContext:
    """Certificates and host names are checked; SSL_CERT_FILE may name an authority of one's own."""
    return httpx.create_ssl_context()
