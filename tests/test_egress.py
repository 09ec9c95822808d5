"""The one way out, and the tricks that others fell for (attack 4 of docs/security.md)."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence

import httpcore
import pytest
import trustme
from receiver import Receiver, receiving, status

from pegbox import egress
from pegbox.egress import Rules, check, is_allowed, post, read_url, resolve
from pegbox.errors import EgressFailed, EgressRefused

OPEN = Rules()
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
LOCAL = Rules(networks=LOOPBACK, plain_http=True, seconds=20)
PUBLIC = "93.184.216.34"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.mark.parametrize(
    "url",
    [
        # this machine, in every spelling that a C library reads
        "https://127.0.0.1/", "https://127.1/", "https://0x7f.1/", "https://0x7f000001/", "https://2130706433/",
        "https://017700000001/", "https://0177.0.0.1/", "https://0177.1/", "https://127.0.0.1./", "https://0/",
        "https://0.0.0.0/", "https://localhost/", "https://LOCALHOST/", "https://localhost./",
        "https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/",
        "https://[::127.0.0.1]/", "https://[0:0:0:0:0:ffff:7f00:0001]/",
        # addresses that carry another inside
        "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::7f00:1]/", "https://[2002:7f00:1::]/",
        "https://[2001:0:7f00:1::]/", "https://[2002:5db8:d822::]/",
        # clouds, private networks, neighbours, everybody
        "https://169.254.169.254/latest/meta-data/", "https://[fd00:ec2::254]/", "https://[fe80::1]/",
        "https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.1.1/", "https://100.64.0.1/", "https://198.18.0.1/",
        "https://192.0.0.1/", "https://192.0.2.1/", "https://224.0.0.1/", "https://255.255.255.255/", "https://240.0.0.1/",
        "https://[fc00::1]/", "https://[ff02::1]/", "https://[2001:db8::1]/", "https://[3fff::1]/", "https://[fec0::1]/",
        # what two parsers may read in two ways
        "https://user@example.com/", "https://user:pw@127.0.0.1/", "https://example.com@127.0.0.1/",
        "https://@127.0.0.1/", "https://example.com:443@127.0.0.1/", "https://example.com\\@127.0.0.1/",
        "https://127.0.0.1\\.example.com/", "https://exa mple.com/", "https://example.com\r\nhost:x/", "https://exa\tmple.com/",
        "https://\u2460\u2461\u2466.0.0.1/", "https://%31%32%37.0.0.1/", "https://[fe80::1%25eth0]/", "https://[::1/",
        # no such place
        "https://", "https:///path", "https:example.com", "//example.com/", "example.com", "https://example.com:0/",
        "https://example.com:65536/", "https://example.com:-1/", "https://a..b/", "https://" + "a" * 2050,
        # other ways to talk
        "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://127.0.0.1:25/", "unix:/run/x.sock",
        "javascript:alert(1)",
    ],
)  # fmt: skip
def test_refused_before_a_connection_is_made(url: str) -> None:
    with pytest.raises(EgressRefused):
        post(url, b"{}", {}, OPEN, backend=Recorder())
    with pytest.raises(EgressRefused):
        check(url, OPEN)


class Recorder(httpcore.NetworkBackend):
    """Connects to nobody and writes down to whom it was to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore.NetworkStream:
        self.asked.append((host, port))
        raise httpcore.ConnectError("nobody is there")


def answering(*addresses: str) -> egress.Lookup:
    return lambda _host, _port: addresses


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://example.com/a?b=c", "example.com", 443), ("https://EXAMPLE.com.:8443/", "example.com", 8443),
        ("https://8.8.8.8", "8.8.8.8", 443), ("https://[2606:4700::1111]:444/x", "2606:4700::1111", 444),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443), ("https://a_b.example-c.org/", "a_b.example-c.org", 443),
    ],
)  # fmt: skip
def test_a_public_address_is_taken_apart(url: str, host: str, port: int) -> None:
    address = read_url(url, OPEN)
    assert (address.host, address.port) == (host, port)


@pytest.mark.parametrize("second", ["127.0.0.1", "::1", "10.1.2.3", "fe80::1%eth0", "::ffff:10.0.0.1"])
def test_one_private_address_among_public_ones_is_enough(second: str) -> None:
    with pytest.raises(EgressRefused, match="not on the public internet"):
        resolve(read_url("https://two.example/", OPEN), OPEN, answering(PUBLIC, second))


def test_the_refusal_does_not_tell_the_address() -> None:
    with pytest.raises(EgressRefused) as refused:
        resolve(read_url("https://inside.example/", OPEN), OPEN, answering("10.1.2.3"))
    assert "10.1.2.3" not in str(refused.value)
    assert "PEGBOX_WEBHOOK_NETWORKS" in str(refused.value)


@pytest.mark.parametrize(
    ("address", "networks", "allowed"),
    [
        ("8.8.8.8", "", True), ("2606:4700::1111", "", True), ("10.1.2.3", "", False), ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False), ("::ffff:10.1.2.3", "10.1.0.0/16", True), ("fd00::5", "fd00::/8", True),
        ("127.0.0.1", "10.0.0.0/8", False), ("::1", "127.0.0.0/8", False),
    ],
)  # fmt: skip
def test_the_operator_may_allow_a_network(address: str, networks: str, *, allowed: bool) -> None:
    rules = Rules(networks=tuple(ipaddress.ip_network(one) for one in networks.split(",") if one))
    assert is_allowed(ipaddress.ip_address(address), rules) == allowed


def test_plain_http_goes_to_allowed_networks_only() -> None:
    with pytest.raises(EgressRefused, match="TLS"):
        resolve(read_url(f"http://{PUBLIC}/", LOCAL), LOCAL)
    assert resolve(read_url("http://127.0.0.1/", LOCAL), LOCAL) == [ipaddress.ip_address("127.0.0.1")]


def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    answers: list[Sequence[str]] = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]]
    recorder = Recorder()
    with pytest.raises(EgressFailed, match="nobody is there"):
        post("https://rebind.example/", b"", {}, OPEN, lookup=lambda _h, _p: answers.pop(0), backend=recorder)
    assert recorder.asked == [(PUBLIC, 443)]
    assert len(answers) == 2  # the name was asked once


def test_every_checked_address_is_tried() -> None:
    recorder = Recorder()
    with pytest.raises(EgressFailed):
        post("https://two.example:444/", b"", {}, OPEN, lookup=answering(PUBLIC, "2606:4700::1111"), backend=recorder)
    assert recorder.asked == [(PUBLIC, 444), ("2606:4700::1111", 444)]


@pytest.mark.parametrize("answer", [[], ["not an address"]])
def test_a_name_without_an_address(answer: list[str]) -> None:
    with pytest.raises(EgressFailed, match="no address"):
        post("https://nowhere.example/", b"", {}, OPEN, lookup=answering(*answer))
    check("https://nowhere.example/", OPEN, answering(*answer))  # may be kept: it may have one tomorrow


def test_a_resolver_that_fails() -> None:
    def lookup(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(EgressFailed, match="no address"):
        post("https://nowhere.example/", b"", {}, OPEN, lookup=lookup)


def test_the_name_stays_in_the_request(receiver: Receiver) -> None:
    url = receiver.url("hooks.example", path="/a%20b?c=d")
    assert post(url, b'{"a":1}', {"x-own": "yes"}, LOCAL, lookup=answering("127.0.0.1")) == 200
    (got,) = receiver.got
    assert got.line == "POST /a%20b?c=d HTTP/1.1"
    assert (got.headers["host"], got.headers["x-own"]) == (f"hooks.example:{receiver.port}", "yes")
    assert got.body == b'{"a":1}'


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_status_and_is_not_followed(receiver: Receiver, code: int) -> None:
    with receiving() as elsewhere:
        receiver.answers = [status(code, f"location: {elsewhere.url()}\r\n")]
        assert post(receiver.url(), b"", {}, LOCAL) == code
        assert len(receiver.got) == 1
        assert elsewhere.got == []


def test_no_proxy_of_the_environment_is_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(path=""))
            monkeypatch.setenv(name.lower(), proxy.url(path=""))
        assert post(receiver.url(), b"", {}, LOCAL) == 200
        assert proxy.got == []


def test_a_huge_answer_is_left_unread(receiver: Receiver) -> None:
    sent = threading.Event()

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        try:
            while True:
                connection.sendall(b"x" * 65536)
        except OSError:
            sent.set()  # the reader has gone

    receiver.answers = [flood]
    assert post(receiver.url(), b"", {}, LOCAL) == 200
    assert sent.wait(20)


def test_huge_headers_are_an_error(receiver: Receiver) -> None:
    receiver.answers = [lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000_000)]
    with pytest.raises(EgressFailed):
        post(receiver.url(), b"", {}, LOCAL)


def drip(connection: socket.socket) -> None:
    """A byte now and then, each within any time-out of a single read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    end = time.monotonic() + 30
    while time.monotonic() < end:
        connection.sendall(b"y")
        time.sleep(0.1)


def silence(connection: socket.socket) -> None:
    connection.recv(1)  # until the other side breaks off


@pytest.mark.parametrize("answer", [drip, silence])
def test_a_slow_answer_is_broken_off(receiver: Receiver, answer: egress.Callable[[socket.socket], None]) -> None:
    receiver.answers = [answer]
    rules = Rules(networks=LOOPBACK, plain_http=True, seconds=1)
    with pytest.raises(EgressFailed, match="no answer within 1 s"):
        post(receiver.url(), b"", {}, rules)


def test_a_slow_body_after_the_status_does_not_undo_it(receiver: Receiver) -> None:
    def slow_body(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 204 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        silence(connection)

    receiver.answers = [slow_body]
    assert post(receiver.url(), b"", {}, Rules(networks=LOOPBACK, plain_http=True, seconds=1)) == 204


def test_who_does_not_speak_http(receiver: Receiver) -> None:
    receiver.answers = [lambda c: c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")]
    with pytest.raises(EgressFailed, match="no answer"):
        post(receiver.url(), b"", {}, LOCAL)


def test_nobody_listens() -> None:
    with receiving() as gone:
        url = gone.url()
    with pytest.raises(EgressFailed, match="no answer"):
        post(url, b"", {}, LOCAL)


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, name: str, seen: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.sni_callback = lambda _socket, asked, _context: seen.append(asked)
    return context


@pytest.fixture
def _trusted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr(egress, "_tls", lambda: context)


@pytest.mark.usefixtures("_trusted")
def test_tls_asks_for_the_name_at_the_checked_address(authority: trustme.CA) -> None:
    seen: list[str] = []
    with receiving(server_side(authority, "hooks.example", seen)) as receiver:
        assert post(receiver.url("hooks.example", "https"), b"", {}, LOCAL, lookup=answering("127.0.0.1")) == 200
        assert (len(receiver.got), seen) == (1, ["hooks.example"])


@pytest.mark.usefixtures("_trusted")
def test_a_certificate_of_another_name_is_refused(authority: trustme.CA) -> None:
    with receiving(server_side(authority, "other.example", [])) as receiver:
        with pytest.raises(EgressFailed, match="certificate"):
            post(receiver.url("hooks.example", "https"), b"", {}, LOCAL, lookup=answering("127.0.0.1"))
        assert receiver.got == []


def test_a_certificate_that_nobody_vouches_for_is_refused(authority: trustme.CA) -> None:
    with receiving(server_side(authority, "hooks.example", [])) as receiver:
        with pytest.raises(EgressFailed, match="certificate"):
            post(receiver.url("hooks.example", "https"), b"", {}, LOCAL, lookup=answering("127.0.0.1"))
        assert receiver.got == []


@pytest.mark.usefixtures("_trusted")
def test_a_handshake_that_never_ends_is_broken_off() -> None:
    rules = Rules(LOOPBACK, seconds=1)
    # The receiver speaks no TLS, and waits for more of what it takes for a request.
    with receiving() as receiver, pytest.raises(EgressFailed, match="no answer within 1 s"):
        post(receiver.url("hooks.example", "https"), b"", {}, rules, lookup=answering("127.0.0.1"))
