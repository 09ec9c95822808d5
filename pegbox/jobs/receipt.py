"""A job's receipt: made before its model is published, told in events, kept in its run directory."""

import hashlib
from pathlib import Path

from pegbox.engines.base import AdapterRef
from pegbox.engines.front import serving_template
from pegbox.engines.pool import EnginePool
from pegbox.errors import JobFailure, NotFound
from pegbox.jobs import submit
from pegbox.jobs.records import Tuning
from pegbox.jobs.submit import Desk
from pegbox.queue.store import Event
from pegbox.receipt import record
from pegbox.receipt.accounts import Accounts
from pegbox.receipt.case import Case, sampled_rows
from pegbox.receipt.examine import examine
from pegbox.receipt.record import Check, Receipt
from pegbox.settings import Settings
from pegbox.storage.scope import Scope
from pegbox.train.rundir import WHOLE_FILES, RunDir

CODE = "receipt_failed"


def issue(desk: Desk, pool: EnginePool, tuning: Tuning, run: RunDir, key: str) -> Receipt:
    """Look at what a run made, under that key of the adapters, and write down what was found, good or bad.

    Raises JobFailure where there is nothing to look at.
    """
    recipe, evidence = run.recipe(), run.evidence()
    if evidence is None:
        raise JobFailure(CODE, "The trainer left no evidence of what it did, so the model is not published.")
    resolved = desk.catalog.find(recipe.base)
    if resolved is None:
        raise JobFailure("model_not_found", f"The base model {recipe.base} was removed while the job ran.")
    began = recipe.base_key or resolved.base.name
    folder = desk.adapters.folder(recipe.base_key) if recipe.base_key else Path(resolved.base.folder)
    if recipe.base_key and not folder.exists():
        raise JobFailure("model_not_found", f"The model {tuning.model} was deleted while the job ran.")
    made, is_whole = desk.adapters.folder(key), recipe.weights == "all"
    weights = made / (WHOLE_FILES[0] if is_whole else "adapter_model.safetensors")
    case = Case(
        recipe=recipe,
        evidence=evidence,
        accounts=Accounts.load(run.path),
        rows=sampled_rows(run, evidence, run.lines()),
        template=serving_template(made if is_whole else folder, resolved.base.created_at),
        engine=lambda: pool.borrow(key, made) if is_whole else pool.borrow(began, folder),
        adapter=None if is_whole else AdapterRef(f"receipt of {tuning.id}", str(made)),
        adapter_sha256=_sha256(weights),
        base_engine=(lambda: pool.borrow(began, folder)) if is_whole else None,
    )
    receipt = examine(case)
    record.save(receipt, run.receipt_path)
    return receipt


def find(desk: Desk, scope: Scope, settings: Settings, job_id: str) -> Receipt:
    """Raises NotFound for a job that isn't there or has no receipt."""
    tuning = submit.get(desk, scope, job_id)
    receipt = record.load(RunDir(settings.root / "runs" / tuning.id).receipt_path)
    if receipt is None:
        text = f"{job_id} is {tuning.job.status} and has no receipt; one is made when training has ended well."
        raise NotFound(text, param="fine_tune_id", code="receipt_not_found")
    return receipt


def failure_of(receipt: Receipt) -> JobFailure | None:
    """What the job fails with, or None: a sentence and a remedy for each check that failed."""
    failed = receipt.having("failed")
    if not failed:
        return None
    said = " ".join(f"{check.name}: {_said(check)}" for check in failed)
    one = "a check" if len(failed) == 1 else f"{len(failed)} checks"
    return JobFailure(CODE, f"The model was trained but {one} of its receipt failed, so it is not published. {said}")


def receipt_events(receipt: Receipt) -> list[Event]:
    """The sum in a line, and a line for each check that did not pass."""
    passed, warned, failed = (len(receipt.having(status)) for status in ("passed", "warned", "failed"))
    parts = [f"{passed} check{'s' * (passed != 1)} passed"]
    parts += [f"{warned} warning{'s' * (warned != 1)}"] * bool(warned)
    parts += [f"{failed} failed"] * bool(failed)
    stop = next((check.text for check in receipt.checks if check.name == "stop_learned"), "")
    where = f"GET /v1/fine_tuning/jobs/{receipt.job_id}/receipt has them all"
    total = Event("receipt", f"Receipt: {', '.join(parts)}. {stop} {where}", data={"status": receipt.status})
    return [total, *(_event(check) for check in receipt.checks if check.status != "passed")]


def _event(check: Check) -> Event:
    data = {"check": check.name, "status": check.status, "ran": check.ran, **check.figures}
    level = "warn" if check.status == "warned" else "error"
    return Event(f"receipt:{check.name}", f"Receipt, {check.name}: {_said(check)}", level=level, data=data)


def _said(check: Check) -> str:
    return f"{check.text} {check.remedy}".strip()


def _sha256(path: Path) -> str:
    """Empty where the file is gone."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
