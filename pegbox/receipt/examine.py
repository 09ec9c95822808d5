"""All checks, in the order in which they are shown."""

import time
from pathlib import Path

from pegbox.receipt import data_checks, token_checks
from pegbox.receipt.case import Case
from pegbox.receipt.engine_checks import engine_checks
from pegbox.receipt.record import Check, Receipt


def examine(case: Case) -> Receipt:
    """Look at everything, also after something failed: the user is told all of it at once."""
    began = time.monotonic()
    checks: list[Check] = [
        data_checks.row_accounting(case),
        data_checks.supervised_tokens(case),
        token_checks.mask(case),
        data_checks.truncation(case),
        token_checks.token_parity(case),
        token_checks.single_bos(case),
        token_checks.stop_learned(case),
        *engine_checks(case),
        data_checks.template_rewrites_turns(case),
        data_checks.learnt(case),
    ]
    recipe, evidence = case.recipe, case.evidence
    began_with = recipe.adapter_folder or recipe.base_key
    return Receipt(
        job_id=recipe.job_id,
        created_at=int(time.time()),
        base=recipe.base,
        base_fingerprint=recipe.base_fingerprint,
        trained_on_from=Path(began_with).parent.name if began_with else None,
        method=evidence.method,
        step=evidence.step,
        seed=evidence.seed,
        threads=evidence.threads,
        dtype=evidence.dtype,
        seconds=round(evidence.seconds + time.monotonic() - began, 2),
        versions=evidence.versions,
        hashes=evidence.hashes,
        checks=tuple(checks),
    )
