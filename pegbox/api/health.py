"""How the server is, for whoever watches it: /healthz, /readyz, /metrics."""

import logging
import shutil
from collections.abc import Iterator

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from sqlalchemy import func, select

from pegbox import __version__, metrics
from pegbox.api.deps import Parts, ServerParts
from pegbox.api.router import new_router
from pegbox.api.shell import CALLER
from pegbox.auth.access import Caller
from pegbox.errors import Forbidden
from pegbox.queue.states import Status
from pegbox.storage.scope import DEFAULT
from pegbox.storage.tables import jobs

log = logging.getLogger(__name__)
router = new_router()
_JOBS = {s: Gauge(f"pegbox_jobs_{s}", f"jobs that are {s}", registry=metrics.REGISTRY) for s in Status}
_DISK_FREE = Gauge("pegbox_disk_free_bytes", "room left for the data directory", registry=metrics.REGISTRY)
_INFO = Gauge("pegbox_info", "1, for the version beside it", ["version"], registry=metrics.REGISTRY)
_INFO.labels(__version__).set(1)


@router.head("/healthz", include_in_schema=False)  # as monitors ask
@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers. Whoever restarts servers asks this."""
    return {"status": "ok", "version": __version__}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
def ready(parts: ServerParts) -> JSONResponse:
    """It can do its work. Whoever sends it requests asks this; 503 says why it should get none."""
    reasons = list(_reasons(parts))
    if reasons:
        return JSONResponse({"status": "not ready", "reasons": reasons}, status_code=503)
    return JSONResponse({"status": "ready", "reasons": []})


@router.get("/metrics")
def show_metrics(request: Request, parts: ServerParts) -> Response:
    """Prometheus' text format. The figures are the whole server's: for keys of the default project, or, where the
    operator opened this page, for everybody."""
    caller: Caller | None = request.scope[CALLER]
    if caller is not None and caller.scope != DEFAULT:
        raise Forbidden("Figures of the whole server are shown to keys of the default project.", code="missing_scope")
    with parts.desk.db.read() as tx:
        counted = tx.execute(select(jobs.c.status, func.count().label("number")).group_by(jobs.c.status)).all()
    found = {str(row.status): int(row.number) for row in counted}
    for status, gauge in _JOBS.items():
        gauge.set(found.get(status, 0))
    _DISK_FREE.set(shutil.disk_usage(parts.settings.root).free)
    return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _reasons(parts: Parts) -> Iterator[str]:
    """Why not, in words that tell an outsider nothing about this machine."""
    if parts.drain.begun:
        yield "the server is shutting down"
    try:
        with parts.desk.db.read() as tx:
            tx.execute(select(jobs.c.seq).limit(1)).all()
    except Exception:
        log.exception("the database does not answer")
        yield "the database does not answer"
    if parts.desk.db.doubt.is_there:
        yield "the disk failed while something was being stored; nothing is stored until it is well again"
    try:
        free = shutil.disk_usage(parts.settings.root).free
    except OSError:
        log.exception("the data directory can't be looked at")
        yield "the data directory can't be looked at"
    else:
        if free < parts.settings.min_free_bytes:
            yield f"the disk is nearly full: {free:,} bytes left, {parts.settings.min_free_bytes:,} wanted"
    dead = sum(not thread.alive for thread in parts.threads)
    if dead:
        yield f"{dead} of {len(parts.threads)} worker threads have ended"
