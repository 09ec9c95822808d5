"""Which rows are trained and which are held out to validate on; the files of a run that say so."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pegbox.data.check import Looked
from pegbox.data.rows import read_rows
from pegbox.data.survey import EMPTY, UNREADABLE, Survey
from pegbox.jobs import foresee
from pegbox.jobs.records import Tuning
from pegbox.receipt.accounts import Account, Accounts
from pegbox.settings import Settings
from pegbox.train.rundir import RunDir

HOLDOUT_KEY = "pegbox.holdout"  # metadata of a job; "off" trains on every row


def hold_out(looked: Looked, tuning: Tuning, settings: Settings) -> NDArray[np.intp]:
    """Examples (from 0) to validate on where no file says which: a seeded tenth, equal rows kept on one side."""
    off = (tuning.request.metadata or {}).get(HOLDOUT_KEY) == "off" or not settings.holdout
    room = foresee.held_out(looked.training.used)
    if looked.validation is not None or off or not room:
        return np.array([], dtype=np.intp)
    digests = looked.training.digests.load()
    texts, copies = np.unique(digests[digests != 0], return_counts=True)
    chosen: list[int] = []
    for i in np.random.default_rng(tuning.seed).permutation(len(texts)):
        if copies[i] <= room:
            chosen.append(texts[i])
            room -= int(copies[i])
        if not room:
            break
    return np.flatnonzero(np.isin(digests, chosen))


def lay_out(
    run: RunDir, looked: Looked, contents: Sequence[BinaryIO], held: NDArray[np.intp], beat: Callable[[], None]
) -> None:
    used = looked.training.digests.load() != 0
    trained = used.copy()
    trained[held] = False
    run.lines_path.write_text(json.dumps((np.flatnonzero(trained) + 1).tolist()), "utf-8")
    _accounts(looked, len(held)).save(run.path)
    _copy_rows(contents[0], run.train_data, trained, beat)
    if len(held):
        _copy_rows(contents[0], run.valid_data, used & ~trained, beat)
    if looked.validation is not None:
        _copy_rows(contents[1], run.valid_data, looked.validation.digests.load() != 0, beat)


def _accounts(looked: Looked, held: int) -> Accounts:
    def account(survey: Survey, held_out: int) -> Account:
        refused = {reason: n for reason, n in ((UNREADABLE, survey.bad), (EMPTY, len(survey.empty))) if n}
        return Account(
            survey.rows, survey.used, refused, held_out, survey.cut_rows, survey.cut_trained, survey.kept_trained
        )

    return Accounts(account(looked.training, held), account(looked.validation, 0) if looked.validation else None)


def _copy_rows(content: BinaryIO, target: Path, wanted: NDArray[np.bool_], beat: Callable[[], None]) -> None:
    """The rows that are wanted, byte for byte as the user wrote them (bar BOM and CR)."""
    content.seek(0)
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for row in read_rows(content):
            beat()
            if wanted[row.example - 1]:
                out.write(row.text + "\n")
