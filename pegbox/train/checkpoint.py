"""Checkpoints: an adapter in PEFT's format, or a whole model, and the optimizer's memory; committed by rename, never
pickled."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from pegbox import durable
from pegbox.train import optim
from pegbox.train.machine import RefusedError
from pegbox.train.optim import FlatAdapter, FlatModel
from pegbox.train.rundir import MANIFEST, RunDir
from pegbox.train.whole import read_whole, write_whole

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
_OPTIMIZER = "state.safetensors"
_SPARE = 256 * 2**20  # bytes of the disk that a whole model leaves free


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands after `step` optimizer steps."""

    step: int
    trained_tokens: int
    served: bool  # a checkpoint that users may talk to, not just a snapshot to resume from


def save(run: RunDir, state: State, model: torch.nn.Module, adapter: FlatAdapter, optimizer: torch.optim.AdamW) -> None:
    """Commit a checkpoint and drop those it makes superfluous: snapshots; of whole models all but the newest for users
    and the best.

    Raises RefusedError, with nothing written, where the disk has no room for a whole model.
    """
    if isinstance(adapter, FlatModel):
        _see_that_it_fits(run, adapter)
    target = run.checkpoints / folder_name(state.step)
    for left in run.checkpoints.glob("incoming-*"):  # only one trainer works here, so it is a dead one's
        shutil.rmtree(left)
    beside = run.checkpoints / f"incoming-{os.getpid()}"
    beside.mkdir()
    if isinstance(adapter, FlatModel):
        write_whole(beside, model, adapter)
    else:
        _write_adapter(beside, model)
    save_file(optim.state_tensors(optimizer, adapter), beside / _OPTIMIZER)
    values = {"step": state.step, "trained_tokens": state.trained_tokens, "served": state.served}
    (beside / "state.json").write_text(json.dumps(values), "utf-8")
    _seal(beside)
    run.settle()
    if target.exists():  # damaged, or it would have been resumed from
        shutil.rmtree(target)
    durable.rename(beside, target, "checkpoint")
    if isinstance(adapter, FlatModel):
        _drop_whole(run, target)
        return
    for older in _whole(run):
        if older != target and not _state(older).served:
            shutil.rmtree(older)


def folder_name(step: int) -> str:
    return f"step-{step:06d}"


def resume(run: RunDir, adapter: FlatAdapter, optimizer: torch.optim.AdamW) -> State:
    """Take up the newest whole checkpoint, bit for bit; step 0 where there is none."""
    for folder in reversed(_whole(run)):
        if isinstance(adapter, FlatModel):
            read_whole(folder, adapter)
        optim.load_state_tensors(optimizer, adapter, load_file(folder / _OPTIMIZER))
        return _state(folder)
    return State(step=0, trained_tokens=0, served=False)


def restore(run: RunDir, step: int, adapter: FlatAdapter) -> None:
    """Set the adapter to what it was after a step that was saved."""
    folder = run.checkpoints / folder_name(step)
    if isinstance(adapter, FlatModel):
        read_whole(folder, adapter)
        return
    tensors = load_file(folder / _OPTIMIZER)
    adapter.values.copy_(tensors["adapter"])
    adapter.renew()


def _see_that_it_fits(run: RunDir, flat: FlatModel) -> None:
    needed = 3 * flat.values.nbytes + _SPARE  # weights and two moments
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise RefusedError(
            "insufficient_disk",
            f"A checkpoint of all weights takes {needed / 2**30:,.1f} GiB of disk, and {free / 2**30:,.1f} are free "
            "where the data directory is. Free some and create the job again.",
        )


def _drop_whole(run: RunDir, newest: Path) -> None:
    """Of those before the newest only what may become the model is kept, and of it only the weights."""
    older = [folder for folder in sorted(run.checkpoints.glob("step-*")) if folder != newest]
    served = [folder for folder in older if _state(folder).served]
    kept = {f"step-{run.best_step() or 0:06d}", *(folder.name for folder in served[-1:] if not _state(newest).served)}
    for folder in older:
        if folder in served and folder.name in kept:
            (folder / _OPTIMIZER).unlink(missing_ok=True)  # it is whole no more, so nobody resumes from it
        else:
            shutil.rmtree(folder)


def _write_adapter(folder: Path, model: PeftModel) -> None:
    tensors = get_peft_model_state_dict(model)
    save_file(dict(sorted(tensors.items())), folder / ADAPTER_FILES[0], metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config["inference_mode"] = True
    # PEFT keeps the names of layers in a set, whose order changes from run to run.
    text = json.dumps(config, indent=1, sort_keys=True, default=sorted)
    (folder / ADAPTER_FILES[1]).write_text(text, "utf-8")


def _seal(folder: Path) -> None:
    """Write the manifest, last: name and sha256 of every file."""
    manifest = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            manifest[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        durable.sync_file(path, "checkpoint")
    with durable.written(folder / MANIFEST, "checkpoint") as out:
        out.write(json.dumps(manifest).encode())
    durable.sync_folder(folder)


def _whole(run: RunDir) -> list[Path]:
    """Checkpoints whose every file is what the manifest says, oldest first."""
    return [folder for folder in sorted(run.checkpoints.glob("step-*")) if _verified(folder)]


def _verified(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        for name, digest in manifest.items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
    except (OSError, ValueError):
        return False
    return True


def _state(folder: Path) -> State:
    return State(**json.loads((folder / "state.json").read_text("utf-8")))
