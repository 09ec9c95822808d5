"""A file in two, for training and validation, so that no row of one is known from the other.

Rows that share their prompt, or are alike, are a group, and a group stays on one side. Where answers are classes, each
keeps its share on both sides. The same seed gives the same split.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pegbox.data.lines import read_lines
from pegbox.data.mending.changes import OutputError, copy_line, part, refuse_to_lose, settle
from pegbox.data.quality.base import Context
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.duplicates import near_pairs
from pegbox.data.quality.leakage import groups as together
from pegbox.data.quality.near import prompt_pairs
from pegbox.data.quality.text import digest
from pegbox.data.rows import guess_method
from pegbox.data.survey import survey

Numbers = NDArray[np.int64]
BY = ("prompt", "row")
_CLASSES = 0.05  # distinct answers, as a share of the rows, up to which they are classes
_NO_PROMPT = digest("")
_ROLL = 4_096


def _silent(_done: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SplitResult:
    """`rows == train + valid`. Rows that can't be read go to training, where `pegbox check` names them."""

    rows: int
    train: int
    valid: int
    unreadable: int
    groups: int  # of rows that must stay together
    largest: int  # rows of the largest group
    classes: int  # by which the split was balanced; 0: the answers are no classes
    shared: int  # prompts on both sides, and pairs of like rows with one on each; 0, as is counted anew
    train_path: Path
    valid_path: Path


def split(
    path: Path,
    share: float,
    prefix: Path | None = None,
    *,
    seed: int = 0,
    by: str = "prompt",
    method: str | None = None,
    force: bool = False,
    tick: Callable[[int], None] = _silent,
) -> SplitResult:
    """Write PREFIX.train.jsonl and PREFIX.valid.jsonl, the latter with about `share` of the rows (or, from 1 on, that
    many rows). `prefix` is the file's own name if not given. `by` is prompt or row: what keeps rows together.

    Raises OutputError where a file is in the way, or all rows belong together.
    """
    prefix = prefix or path.with_name(path.name.removesuffix(".jsonl"))
    train, valid = (prefix.with_name(f"{prefix.name}.{side}.jsonl") for side in ("train", "valid"))
    for side in (train, valid):
        refuse_to_lose(side, path, force=force)
    with path.open("rb") as file:
        found = survey(
            file, method=method or guess_method(file), which="training", target=None, context=Context(), keep=True,
            tick=lambda done, _: tick(done // 2),
        )  # fmt: skip
        if found.problems and "UTF-16" in found.problems[0].text:
            raise OutputError(f"{path} can't be split: {found.problems[0].text}; `pegbox prepare` reads it as it is")
        corpus = found.corpus
        groups = groups_of(corpus, by)
        classes = classes_of(corpus.answers.load())
        chosen = choose(groups, classes, _wanted(share, len(groups)), seed)
        if not chosen.any():
            raise OutputError(_together(path, groups, by))
        rows = _copy(path, (train, valid), corpus.lines.load()[chosen], tick)
        shared = _shared(corpus, chosen, by)
    return SplitResult(
        rows=rows,
        train=rows - int(chosen.sum()),
        valid=int(chosen.sum()),
        unreadable=found.bad,
        groups=len(np.unique(groups)),
        largest=int(np.bincount(groups).max()),
        classes=len(np.unique(classes)) if len(np.unique(classes)) > 1 else 0,
        shared=shared,
        train_path=train,
        valid_path=valid,
    )


# --- which rows go together ----------------------------------------------------------------------------------


def groups_of(corpus: Corpus, by: str) -> Numbers:
    """Of each good row the number of its group, from 0. By prompt, rows are together that are equal or nearly so, or
    whose prompts are; by row, only equal ones."""
    if not len(corpus):
        return np.zeros(0, np.int64)
    return _numbered(together(corpus) if by == "prompt" else corpus.rows.load())


def classes_of(answers: NDArray[np.uint64]) -> Numbers:
    """Of each row the number of its answer, from 0; all 0 where answers are no classes."""
    found = _numbered(answers)
    many = len(found) and int(found.max()) + 1 > max(2, _CLASSES * len(found))
    return np.zeros(len(found), np.int64) if many else found


def _numbered(keys: NDArray[np.uint64] | Numbers) -> Numbers:
    """Equal keys get equal numbers, from 0, in the order in which they first occur."""
    _, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.empty(len(index), np.int64)
    order[np.argsort(index)] = np.arange(len(index))
    return order[inverse.reshape(-1)]


def _shared(corpus: Corpus, chosen: NDArray[np.bool_], by: str) -> int:
    """What stands on both sides after all."""
    keys = corpus.prompts.load() if by == "prompt" else corpus.rows.load()
    both = np.intersect1d(keys[chosen], keys[~chosen])
    pairs = (prompt_pairs(corpus), near_pairs(corpus)) if by == "prompt" else ()
    return int(np.count_nonzero(both != _NO_PROMPT)) + sum(
        int(np.count_nonzero(chosen[alike.first] != chosen[alike.second])) for alike in pairs
    )


# --- which groups validate -----------------------------------------------------------------------------------


def choose(groups: Numbers, classes: Numbers, wanted: int, seed: int) -> NDArray[np.bool_]:
    """The rows to validate on: whole groups, drawn by the seed, about `wanted` rows, each class by its share.

    A group is drawn only where each of its classes has room for it and has another group that stays.
    """
    if not len(groups):
        return np.zeros(0, np.bool_)
    n_classes = int(classes.max()) + 1
    cells, rows = np.unique(groups * n_classes + classes, return_counts=True)  # a cell: one class in one group
    starts = np.searchsorted(cells, np.arange(int(groups.max()) + 2) * n_classes).tolist()
    of = (cells % n_classes).tolist()
    sizes = rows.tolist()
    room = _quotas(np.bincount(classes), wanted).tolist()
    left = np.bincount(cells % n_classes).tolist()  # groups of each class that are not drawn
    drawn = np.zeros(len(starts) - 1, np.bool_)
    for group in np.random.default_rng(seed).permutation(len(drawn)).tolist():
        parts = range(starts[group], starts[group + 1])
        if all(sizes[cell] <= room[of[cell]] and left[of[cell]] > 1 for cell in parts):
            drawn[group] = True
            for cell in parts:
                room[of[cell]] -= sizes[cell]
                left[of[cell]] -= 1
    return drawn[groups]


def _quotas(rows: Numbers, wanted: int) -> Numbers:
    """The wanted rows shared out to classes by their size: the largest remainders get what rounding leaves."""
    exact = rows * wanted / max(1.0, rows.sum())
    quotas: Numbers = np.floor(exact).astype(np.int64)
    for class_ in np.argsort(quotas - exact, kind="stable")[: wanted - int(quotas.sum())]:
        quotas[class_] += 1
    return quotas


def _wanted(share: float, rows: int) -> int:
    if share >= 1:
        return min(int(share), rows - 1)
    return max(1, round(share * rows))


def _together(path: Path, groups: Numbers, by: str) -> str:
    if not len(groups):
        return f"{path} holds no row that can be read, so there is nothing to split"
    largest = int(np.bincount(groups).max())
    advice = "; --by row keeps only equal rows together" if by == "prompt" else ""
    return f"{path} can't be split: {largest:,} of its {len(groups):,} rows belong together{advice}"


# --- the two files -------------------------------------------------------------------------------------------


def _copy(path: Path, sides: tuple[Path, Path], valid: NDArray[np.uint32], tick: Callable[[int], None]) -> int:
    """Every row into one of the files, byte for byte. The number of rows."""
    half = path.stat().st_size // 2
    rows = at = 0
    with ExitStack() as stack:
        listed, source = (stack.enter_context(path.open("rb")) for _ in range(2))
        for side in sides:
            stack.callback(part(side).unlink, missing_ok=True)
        out = [stack.enter_context(part(side).open("wb")) for side in sides]
        for line in read_lines(listed):
            if line.text is not None and (not line.text or line.text.isspace()):
                continue
            validates = at < len(valid) and line.number == int(valid[at])
            at += validates
            source.seek(line.offset)
            copy_line(source, out[validates])
            rows += 1
            if rows % _ROLL == 0:
                tick(half + line.offset // 2)
        for file in out:
            settle(file, keep=True)
        for side in sides:
            part(side).replace(side)
    return rows
