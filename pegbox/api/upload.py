"""Read a multipart upload as it arrives and write the file to disk: memory stays at a few chunks, whatever the
size. The framework's own form parser would spool, then copy."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from pegbox import durable
from pegbox.errors import BodyTooLarge, InvalidRequest
from pegbox.storage.room import Room, claim

_FIELDS = 16
_FIELD_BYTES = 16 * 1024
_WRITE_BYTES = 1 << 20
_WHAT = "an upload"


@dataclass(frozen=True, slots=True)
class Upload:
    """A form that was read to its end: one file, fsynced, and the plain fields."""

    written: Path
    filename: str
    sha256: str
    fields: dict[str, str]


@dataclass(slots=True)
class _Form:
    """The parser's callbacks collect here. `pending` is what is yet to be written to disk."""

    max_file_bytes: int
    room: Room
    fields: dict[str, bytearray] = field(default_factory=dict)
    filename: str | None = None
    pending: bytearray = field(default_factory=bytearray)
    file_bytes: int = 0
    disposition: bytes = b""
    header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    part: str = ""
    in_file: bool = False
    complete: bool = False

    def part_begin(self) -> None:
        self.disposition = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.header[1].extend(data[start:end])

    def header_end(self) -> None:
        name, value = self.header
        if name.lower() == b"content-disposition":
            self.disposition = bytes(value)
        self.header = (bytearray(), bytearray())

    def headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition)
        self.part = options.get(b"name", b"").decode("utf-8", "replace")
        self.in_file = self.part == "file"
        if self.in_file:
            if self.filename is not None:
                raise InvalidRequest("The form holds more than one file; send one.", param="file")
            # Old clients send no name of their own but the literal "file".
            self.filename = _plain_name(options.get(b"filename") or b"file")
            return
        self.fields[self.part] = bytearray()
        if len(self.fields) > _FIELDS:
            raise InvalidRequest(f"The form has more than {_FIELDS} fields.", param=self.part[:40])

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self.in_file:
            self.file_bytes += end - start
            if self.file_bytes > self.max_file_bytes:
                limit = f"{self.max_file_bytes:,}"
                raise BodyTooLarge(f"The file is larger than the {limit} bytes allowed.", code="file_too_large")
            if self.file_bytes > self.room.left:
                claim(self.room, self.file_bytes, _WHAT)
            self.pending += data[start:end]
            return
        self.fields[self.part] += data[start:end]
        if sum(map(len, self.fields.values())) > _FIELD_BYTES:
            raise InvalidRequest("The form's fields are too long.", param=self.part[:40])

    def end(self) -> None:
        self.complete = True

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self.part_begin,
                "on_header_field": self.header_field,
                "on_header_value": self.header_value,
                "on_header_end": self.header_end,
                "on_headers_finished": self.headers_finished,
                "on_part_data": self.part_data,
                "on_end": self.end,
            },
        )


async def receive_upload(request: Request, written: Path, max_file_bytes: int, room: Room) -> Upload:
    """Stream the form's file to `written`. On any error nothing is left there.

    Raises InvalidRequest for what is no proper form with one file, BodyTooLarge, and StorageFull: before the body is
    read, where the client says how long it is.
    """
    told = request.headers.get("content-length", "")
    claim(room, int(told) if told.isdigit() else 0, _WHAT)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest("Send the file as multipart/form-data with the parts 'file' and 'purpose'.")
    form = _Form(max_file_bytes, room)
    try:
        with written.open("xb") as out:
            digest = await _stream(request, form, options[b"boundary"], out)
    except BaseException:
        written.unlink(missing_ok=True)  # noqa: ASYNC240 - at once, even when cancelled
        raise
    assert form.filename is not None, "checked by _stream"
    fields = {name: bytes(value).decode("utf-8", "replace") for name, value in form.fields.items()}
    return Upload(written, form.filename, digest, fields)


def _plain_name(sent: bytes) -> str:
    """A file's name as the user knows it. Clients write three characters in percent, as browsers do."""
    name = sent.decode("utf-8", "replace")
    for written, meant in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        name = name.replace(written, meant)
    return name


async def _stream(request: Request, form: _Form, boundary: bytes, out: BinaryIO) -> str:
    digest = hashlib.sha256()

    def drain() -> None:
        digest.update(form.pending)
        out.write(form.pending)
        form.pending.clear()

    def finish() -> None:
        drain()
        durable.sync(out, "upload")

    try:
        parser = form.parser(boundary)
        async for chunk in request.stream():
            parser.write(chunk)
            if len(form.pending) >= _WRITE_BYTES:
                await asyncio.to_thread(drain)
    except MultipartParseError as error:
        raise InvalidRequest(f"The multipart form is malformed: {error}.") from None
    except ClientDisconnect:
        raise InvalidRequest("The upload broke off.") from None
    if not form.complete:
        raise InvalidRequest("The multipart form has no end; the upload broke off.")
    if form.filename is None:
        raise InvalidRequest("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    await asyncio.to_thread(finish)
    return digest.hexdigest()
