"""What a job can show for itself: its receipt, and what each of its rows cost. Not in OpenAI's API."""

from typing import Annotated

from fastapi import Query

from pegbox.api.deps import Project, ServerParts
from pegbox.api.router import new_router
from pegbox.jobs import receipt, rows
from pegbox.jobs.rows import Order, RowStory
from pegbox.receipt.record import Check
from pegbox.wire import receipt as wire

router = new_router("/v1/fine_tuning/jobs")


@router.get("/{job_id}/receipt")
def retrieve_receipt(job_id: str, project: Project, parts: ServerParts) -> wire.Receipt:
    """What was checked before the job's model was published."""
    found = receipt.find(parts.desk, project, parts.settings, job_id)
    return wire.Receipt(
        fine_tuning_job_id=found.job_id,
        created_at=found.created_at,
        status=found.status,
        base=found.base,
        base_fingerprint=found.base_fingerprint,
        trained_on_from=found.trained_on_from,
        method=found.method,
        step=found.step,
        seed=found.seed,
        threads=found.threads,
        dtype=found.dtype,
        seconds=found.seconds,
        versions=dict(found.versions),
        sha256=dict(found.hashes),
        checks=[_check(check) for check in found.checks],
    )


@router.get("/{job_id}/rows")
def list_rows(
    job_id: str,
    project: Project,
    parts: ServerParts,
    order: Order = "hardest",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 30,
) -> wire.JobRows:
    """Training rows by what they cost, the hardest first; `suspect` gives only those that look wrong."""
    found = rows.find(parts.desk, project, parts.settings, job_id, order, limit)
    return wire.JobRows(
        fine_tuning_job_id=found.job_id,
        epochs=found.epochs,
        rows=found.rows,
        never_learnt=found.never_learnt,
        looks_mislabelled=found.looks_mislabelled,
        data=[_row(story) for story in found.shown],
    )


def _check(check: Check) -> wire.Check:
    return wire.Check(
        name=check.name,
        status=check.status,
        ran=check.ran,
        text=check.text,
        remedy=check.remedy or None,
        figures=dict(check.figures),
    )


def _row(story: RowStory) -> wire.JobRow:
    return wire.JobRow(
        example=story.example,
        line=story.line,
        first=story.first,
        last=story.last,
        losses=list(story.losses),
        far=story.far,
        never_learnt=story.never_learnt,
        looks_mislabelled=story.looks_mislabelled,
        asked=story.asked,
        answer=story.answer,
    )
