import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.lines import MAX_LINE_BYTES, Line, read_lines

BOM = b"\xef\xbb\xbf"


def texts(content: bytes) -> list[str | None]:
    return [line.text for line in read_lines(io.BytesIO(content))]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\r\n", ["a\r"]),
        (b"a\rb\r", ["a\rb"]),
        (b"a\n\n\nb\n", ["a", "", "", "b"]),
        (BOM + b"a\nb", ["a", "b"]),
        (BOM, [""]),
        (BOM + b"\r\n" + BOM + b"b", ["", "\ufeffb"]),  # only at the start of the file
        ("a\u2028b\u0085c\x0bd\x0ce\x1cf\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce\x1cf"]),
        ("日本\n🙂".encode(), ["日本", "🙂"]),
    ],
)
def test_lines_end_at_lf_alone(content: bytes, wanted: list[str]) -> None:
    assert texts(content) == wanted


def test_numbers_count_as_an_editor_does() -> None:
    assert [line.number for line in read_lines(io.BytesIO(b"a\n\nb"))] == [1, 2, 3]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_named_and_end_the_file(encoding: str) -> None:
    (line,) = read_lines(io.BytesIO('{"a": "é"}\n{"b": 1}\n'.encode(encoding)))
    assert line == Line(1, None, "the file is UTF-16 or binary, not UTF-8; save it as UTF-8 text")


@pytest.mark.parametrize(
    ("bad", "byte"),
    [(b"ab\xff", 3), (b"\xed\xa0\x80", 1), (b"\xc0\x80", 1), ("é".encode("latin-1") + b"x", 1), (b"abc\xe6\x97", 4)],
)
def test_what_is_no_utf8_is_a_problem_of_its_line_alone(bad: bytes, byte: int) -> None:
    first, second, third = read_lines(io.BytesIO(b"ok\n" + bad + b"\nok\n"))
    assert first.text == third.text == "ok"
    assert second == Line(2, None, f"byte {byte} is not UTF-8; save the file as UTF-8 text")


@pytest.mark.parametrize("start", [b"", BOM])
@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_the_longest_line(start: bytes, ending: bytes) -> None:
    room = MAX_LINE_BYTES - len(start) - len(ending.removesuffix(b"\n"))
    whole, last = read_lines(io.BytesIO(start + b"x" * room + (ending or b"\n") + b"last"))
    assert whole.text == "x" * room
    assert last == Line(2, "last")


@pytest.mark.parametrize("start", [b"", BOM])
@pytest.mark.parametrize("extra", [1, 2, 3, 4, MAX_LINE_BYTES])
@pytest.mark.parametrize("ending", [b"", b"\n", b"\nlast"])
def test_a_line_that_is_too_long_is_one_problem(start: bytes, extra: int, ending: bytes) -> None:
    size = MAX_LINE_BYTES + extra
    lines = list(read_lines(io.BytesIO(start + b"x" * (size - len(start)) + ending)))
    whole = size + len(ending[:1])
    assert lines[0] == Line(1, None, f"the line is {whole:,} bytes long, more than 8 MiB; split the example")
    assert lines[1:] == ([Line(2, "last")] if ending == b"\nlast" else [])


class Endless(io.RawIOBase):
    """50 MB without a line's end, of which nothing is kept."""

    left = 50_000_000

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        n = min(self.left, len(buffer))
        buffer[:n] = b"x" * n
        self.left -= n
        return n


def test_memory_is_bounded_whatever_a_line_weighs() -> None:
    file = io.BufferedReader(Endless(), 1 << 20)
    tracemalloc.start()
    (line,) = read_lines(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.problem is not None
    assert "50,000,000 bytes" in line.problem
    assert peak < 4 * MAX_LINE_BYTES


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r\x00", codec="utf-8"))),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_text_comes_back(wanted: list[str], ending: str) -> None:
    content = "".join(line + ending for line in wanted).encode()
    if not content.startswith(BOM):
        assert texts(content) == wanted
