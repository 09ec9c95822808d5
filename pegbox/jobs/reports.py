"""Data reports that are kept, so that asking twice does not mean reading twice. They can always be made again: they
are removed with their file, and nothing depends on them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pegbox import durable
from pegbox.catalog.models import BaseModel
from pegbox.catalog.target import target_of
from pegbox.data.check import Looked, check, report_of
from pegbox.data.report import Report
from pegbox.data.survey import Target
from pegbox.data.views.as_json import from_json, json_bytes
from pegbox.errors import InvalidRequest
from pegbox.files import File
from pegbox.jobs.foresee import estimator
from pegbox.jobs.submit import Desk
from pegbox.settings import Settings
from pegbox.storage.scope import Scope

FOLDER = "reports"


def keep(
    desk: Desk,
    scope: Scope,
    settings: Settings,
    looked: Looked,
    files: Sequence[File],
    base: BaseModel,
    target: Target,
) -> None:
    """Keep what a job found in its files."""
    report = report_of(looked, [(f.filename, f.bytes) for f in files], target, estimator(settings, base))
    _write(_path(settings, [file.id for file in files], target), report)
    if desk.files.find(scope, files[0].id) is None:  # deleted meanwhile
        forget(settings, files[0].id)


def report(
    desk: Desk, scope: Scope, settings: Settings, file_id: str, *, model: str, validation_file: str | None = None
) -> Report:
    """What the data desk says of a file for a base model. Raises NotFound, and InvalidRequest for a model that is not
    here or a file that is no training file."""
    files = [desk.files.get(scope, id_) for id_ in (file_id, validation_file) if id_]
    for file in files:
        if file.purpose != "fine-tune":
            raise InvalidRequest(
                f"{file.id} has purpose '{file.purpose}'; only files with purpose 'fine-tune' have a report.",
                param="file_id",
                code="invalid_file_purpose",
            )
    adapter = desk.adapters.find(scope, model)
    resolved = desk.catalog.find(adapter.base if adapter else model)
    if resolved is None:
        raise InvalidRequest(f"Model {model} does not exist.", param="model", code="model_not_available")
    target = target_of(resolved)
    path = _path(settings, [file.id for file in files], target)
    if path.exists():
        return from_json(json.loads(path.read_bytes()))
    training, *valid = (desk.files.path(file) for file in files)
    made = check(
        training, valid[0] if valid else None, target=target, seconds=settings.check_seconds,
        foresee=estimator(settings, resolved.base), names=[file.filename for file in files],
    )  # fmt: skip
    _write(path, made)
    return made


def forget(settings: Settings, file_id: str) -> None:
    """Remove what was kept of a file."""
    for path in (settings.root / FOLDER).glob(f"*{file_id}*"):
        path.unlink(missing_ok=True)


def _path(settings: Settings, file_ids: Sequence[str], target: Target) -> Path:
    """Ids are ours and safe in a name; a model's name may hold a slash, so it is hashed with its limit."""
    of = hashlib.sha256(f"{target.name} {target.limit} {target.formats}".encode()).hexdigest()[:12]
    return settings.root / FOLDER / f"{'+'.join(file_ids)}.{of}.json"


def _write(path: Path, made: Report) -> None:
    durable.make_folder(path.parent, mode=0o700)
    durable.put(path, json_bytes(made), "report")
