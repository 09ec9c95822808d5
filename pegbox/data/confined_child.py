"""`python -m pegbox.data.confined_child CPU_SECONDS MEMORY_BYTES TEXT_BYTES`: renders chat templates, with limits on
what they use up. Knows no model, no file and no secret.

A message is a line with a number of bytes, then these. In: a request as JSON. Out: a letter before the number, and a
text: (T) the template's, (E) of what went wrong, (L) nothing, for the template looked into an `Opaque`.
"""

import resource
import sys
from contextlib import suppress
from functools import lru_cache
from json import loads
from typing import BinaryIO

import jinja2

from pegbox.data.jinja import FAULTS, environment
from pegbox.data.opaque import LookedIntoError, Opaque

_REFUSES = "the model's chat template refuses these messages"
_OPEN_FILES = 64


def main() -> None:
    cpu_seconds, memory_bytes, text_bytes = map(int, sys.argv[1:4])
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    inbox, out = sys.stdin.buffer, sys.stdout.buffer
    while size := inbox.readline():
        request = inbox.read(int(size))
        _let_work(cpu_seconds)
        _answer(out, *_rendered(request, text_bytes))


def _rendered(request: bytes, text_bytes: int) -> tuple[str, bytes]:
    """The letter of the answer, and its text."""
    asked = loads(request)
    messages = asked["messages"]
    for i in asked["opaque"]:
        messages[i]["content"] = Opaque(messages[i]["content"])
    try:
        text = str(_compiled(asked["source"]).render(messages=messages, **asked["given"])).encode()
    except LookedIntoError:
        return "L", b""
    except UnicodeEncodeError:
        return "E", f"{_REFUSES}: it writes half of a surrogate pair, which is no character".encode()
    except MemoryError:
        return "E", f"{_REFUSES}: it takes more memory than the {_allowed()} MiB allowed".encode()
    except FAULTS as error:
        return "E", f"{_REFUSES}: {error}"[:2000].encode("utf-8", "backslashreplace")
    if len(text) > text_bytes:
        most, size = text_bytes // 2**20, len(text) / 2**20
        return "E", f"{_REFUSES}: it writes {size:,.0f} MiB of text, more than the {most} MiB allowed".encode()
    return "T", text


@lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    return environment().from_string(source)


def _answer(out: BinaryIO, kind: str, text: bytes) -> None:
    out.write(f"{kind}{len(text)}\n".encode() + text)
    out.flush()


def _let_work(seconds: int) -> None:
    """The kernel ends this process when it has used that much processor time from now on, and a second."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit(what: int, most: int) -> None:
    """Lower a limit, never raise it, where the system has it."""
    _, hard = resource.getrlimit(what)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(what, (value, value))


def _allowed() -> int:
    return resource.getrlimit(resource.RLIMIT_AS)[0] // 2**20


if __name__ == "__main__":
    main()
