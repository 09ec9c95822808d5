"""The routes below /v1/files."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from pegbox import metrics
from pegbox.api.deps import Paging, Project, ServerParts, page, paging
from pegbox.api.router import new_router
from pegbox.api.upload import Upload, receive_upload
from pegbox.catalog.table import DEFAULT_BASE
from pegbox.data.glance import glance
from pegbox.data.views.as_html import as_html
from pegbox.data.views.as_json import json_bytes
from pegbox.data.views.as_sarif import as_sarif
from pegbox.errors import InvalidRequest
from pegbox.files import File
from pegbox.jobs import reports
from pegbox.storage.paging import Slice
from pegbox.storage.room import look
from pegbox.wire import files as wire
from pegbox.wire.base import Deleted, Page

router = new_router()
_EXPIRES = range(3_600, 2_592_001)


@router.post("/v1/files")
async def create(request: Request, project: Project, parts: ServerParts) -> wire.File:
    settings = parts.settings
    room = await asyncio.to_thread(
        look, settings.root, kept_free=settings.keep_free_bytes, quota=settings.max_stored_bytes
    )
    written = await asyncio.to_thread(parts.desk.files.incoming)
    upload = await receive_upload(request, written, settings.max_file_bytes, room)
    try:
        purpose, expires_in = _fields(upload)
        details = await asyncio.to_thread(_look_at, upload.written) if purpose == "fine-tune" else None
        file = await asyncio.to_thread(
            parts.desk.files.keep,
            project,
            upload.written,
            filename=upload.filename,
            purpose=purpose,
            sha256=upload.sha256,
            expires_in=expires_in,
            status_details=details,
        )
    except BaseException:
        upload.written.unlink(missing_ok=True)
        raise
    metrics.UPLOAD_BYTES.inc(file.bytes)
    return to_wire(file)


@router.get("/v1/files")
def list_files(
    project: Project,
    parts: ServerParts,
    paging: Annotated[Paging, Depends(paging(10_000))],
    purpose: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page[wire.File]:
    found = parts.desk.files.list(
        project, purpose=purpose, after=paging.after, limit=paging.limit, newest_first=order == "desc"
    )
    return page(Slice([to_wire(file) for file in found.items], found.has_more), lambda file: file.id)


@router.get("/v1/files/{file_id}")
def retrieve(file_id: str, project: Project, parts: ServerParts) -> wire.File:
    return to_wire(parts.desk.files.get(project, file_id))


@router.get("/v1/files/{file_id}/report")
def report(
    file_id: str,
    project: Project,
    parts: ServerParts,
    model: str = DEFAULT_BASE,
    validation_file: str | None = None,
    format: Literal["json", "html", "sarif"] = "json",  # noqa: A002 - the query's own word
) -> Response:
    """What the data desk says of a training file. Not in OpenAI's API."""
    made = reports.report(parts.desk, project, parts.settings, file_id, model=model, validation_file=validation_file)
    if format == "html":
        return HTMLResponse(as_html(made))
    if format == "sarif":
        return Response(json.dumps(as_sarif(made)), media_type="application/sarif+json")
    return Response(json_bytes(made), media_type="application/json")


@router.delete("/v1/files/{file_id}")
def delete(file_id: str, project: Project, parts: ServerParts) -> Deleted:
    parts.desk.files.delete(project, file_id)
    reports.forget(parts.settings, file_id)
    return Deleted(id=file_id, object="file")


@router.get("/v1/files/{file_id}/content")
def content(
    file_id: str, project: Project, parts: ServerParts, encoding: Literal["plain", "base64"] = "plain"
) -> Response:
    """The bytes as they were uploaded. `?encoding=base64` is for scripts that decode OpenAI's result files."""
    file = parts.desk.files.get(project, file_id)
    # Whatever it holds, a browser saves it and shows nothing; "nosniff" stands in every answer.
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}"}
    if encoding == "base64":
        packed = base64.b64encode(parts.desk.files.path(file).read_bytes())
        return Response(packed, media_type="text/plain", headers=headers)
    headers["content-length"] = str(file.bytes)
    return StreamingResponse(parts.desk.files.chunks(file), media_type="application/octet-stream", headers=headers)


def _look_at(written: Path) -> str | None:
    with written.open("rb") as content:
        return glance(content)


def _fields(upload: Upload) -> tuple[str, int | None]:
    """Purpose, and seconds until the file expires. Raises InvalidRequest."""
    purpose = upload.fields.get("purpose", "")
    if not purpose:
        raise InvalidRequest(
            "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
        )
    if purpose not in wire.PURPOSES:
        raise InvalidRequest(
            f"'{purpose[:40]}' is not one of {list(wire.PURPOSES)} - 'purpose'", param="purpose", code="invalid_value"
        )
    anchor, seconds = (upload.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor not in (None, "created_at"):
        raise InvalidRequest(
            f"'{anchor[:40]}' is not one of ['created_at'] - 'expires_after.anchor'",
            param="expires_after.anchor",
            code="invalid_value",
        )
    if seconds is None and anchor is None:
        return purpose, None
    if seconds is None:
        raise InvalidRequest(
            "Missing required parameter: 'expires_after.seconds'.",
            param="expires_after.seconds",
            code="missing_required_parameter",
        )
    if not seconds.isdigit() or int(seconds) not in _EXPIRES:
        raise InvalidRequest(
            "expires_after[seconds] must be between 3600 and 2592000.", param="expires_after", code="invalid_value"
        )
    return purpose, int(seconds)


def to_wire(file: File) -> wire.File:
    return wire.File(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_at,
        filename=file.filename,
        purpose=file.purpose,
        status_details=file.status_details,
        expires_at=file.expires_at,
    )
