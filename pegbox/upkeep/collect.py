"""The garbage collector: bytes that no row refers to, what crashes left half-made, what ended jobs no longer need.

It may run beside a server. What is garbage is decided while nobody names bytes (`Blobs.alone`), and the adapters of a
job that has not ended are never garbage: its worker stores them long before it names them.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass

from pegbox.storage.room import stored
from pegbox.train.rundir import RunDir
from pegbox.upkeep.store import References, Store, references

REPORTS = "reports"


@dataclass(frozen=True, slots=True)
class Collected:
    """How many of each were removed."""

    blobs: int
    halves: int  # uploads and folders that were never finished
    runs: int  # run directories of ended jobs that still held rows or checkpoints
    reports: int  # data reports of deleted files


def collect(store: Store) -> Collected:
    halves = store.blobs.sweep_incoming()
    candidates = store.blobs.keys()  # what gets a name from now on is none
    with store.blobs.alone():
        store.db.doubt.settle(of_others=True)  # a row that comes back after a crash must find its bytes
        with store.db.read() as tx:
            wanted = references(tx)
        garbage = [key for key in candidates if not is_wanted(key, wanted)]
        for key in garbage:
            store.blobs.delete(key)
        _drop_empty_folders(store, wanted)
    return Collected(len(garbage), halves, _end_runs(store, wanted), _forget_reports(store, wanted))


def is_wanted(key: str, wanted: References) -> bool:
    """Whether a stored thing has a row, or may be about to get one."""
    if not key.startswith("adapters/"):
        return key in wanted.files
    parts = key.split("/")
    return parts[1] in wanted.unfinished or "/".join(parts[:3]) in wanted.adapters


def _drop_empty_folders(store: Store, wanted: References) -> None:
    for folder in (store.blobs.root / "adapters").glob("*"):
        if folder.name not in wanted.unfinished:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _end_runs(store: Store, wanted: References) -> int:
    """Of an ended job what outlives it stays; of a job that there is not, nothing does."""
    ended = 0
    for path in (store.root / "runs").glob("*"):
        if path.name.partition(".")[0] in wanted.unfinished:  # JOB, or JOB.TOKEN where a worker lays it out
            continue
        run, before = RunDir(path), stored(path)
        if path.name in wanted.jobs:
            run.tidy()
        else:
            shutil.rmtree(path, ignore_errors=True)
        ended += stored(path) < before
    return ended


def _forget_reports(store: Store, wanted: References) -> int:
    """Reports are called by the ids of their files, joined by `+`."""
    forgotten = 0
    for path in (store.root / REPORTS).glob("*.json"):
        if not all(file_id in wanted.files for file_id in path.name.split(".")[0].split("+")):
            path.unlink(missing_ok=True)
            forgotten += 1
    return forgotten
