"""An HTTP server for tests that receives what the server under test sends out, and answers as it is told."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from following import wait_for


@dataclass(frozen=True)
class Got:
    """A request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


# Writes an answer to a connection, whatever that may be.
Answer = Callable[[socket.socket], None]


def status(code: int, headers: str = "", body: bytes = b"") -> Answer:
    head = f"HTTP/1.1 {code} Whatever\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


@dataclass
class Receiver:
    port: int
    got: list[Got] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)  # one a request, in turn; then 200

    def wait(self, n: int = 1, seconds: float = 60) -> list[Got]:
        wait_for(lambda: len(self.got) >= n, f"{n} requests", seconds)
        return self.got

    def url(self, host: str = "127.0.0.1", scheme: str = "http", path: str = "/hook") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65536)
        answer = self.answers.pop(0) if self.answers else status(200)
        self.got.append(Got(line, headers, body))
        answer(connection)


@contextmanager
def receiving(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver on a free port of the loopback address."""
    listener = socket.create_server((host, 0))
    receiver = Receiver(listener.getsockname()[1])
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        try:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            receiver.serve(connection)
        except OSError:
            pass  # the other side has gone, which some tests want
        finally:
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=one, args=[connection], daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    yield receiver
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join(5)
    for thread in threads:
        thread.join(5)
