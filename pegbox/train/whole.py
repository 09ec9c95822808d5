"""All weights of a model learnt: read, written as a model folder of its own, set aside for those of the base."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from pegbox.train.machine import RefusedError
from pegbox.train.model import load_base, trainable
from pegbox.train.optim import FlatModel
from pegbox.train.rundir import WHOLE_FILES

WEIGHTS, CONFIG = WHOLE_FILES[:2]


def load_whole(folder: str | Path, device: str = "cpu") -> torch.nn.Module:
    """A model whose every parameter learns, in fp32. Raises RefusedError where its weights are no plain numbers."""
    model = load_base(folder, "float32", device)
    odd = [name for name, p in model.named_parameters() if p.dtype != torch.float32]
    if odd or getattr(model.config, "quantization_config", None):
        raise RefusedError(
            "unsupported_weights",
            "The base's weights are quantised, so they can't be learnt. Leave out pegbox.weights to train an adapter, "
            "or take a base with plain weights.",
        )
    return model.requires_grad_(requires_grad=True)


def write_whole(folder: Path, model: torch.nn.Module, flat: FlatModel) -> None:
    """A folder that transformers, and so the engine, loads as a model: masters in fp32, the rest as the base has it."""
    base = Path(model.name_or_path)
    for name in WHOLE_FILES[2:]:
        if (base / name).exists():
            shutil.copyfile(base / name, folder / name)
    config = json.loads((base / CONFIG).read_text("utf-8"))
    for part in (config, config.get("text_config", {})):
        for key in part.keys() & {"dtype", "torch_dtype"}:
            part[key] = "float32"
    (folder / CONFIG).write_text(json.dumps(config, indent=2), "utf-8")
    save_file(_named(model, flat), folder / WEIGHTS, metadata={"format": "pt"})


def read_whole(folder: Path, flat: FlatModel) -> None:
    """Set the weights to those of a model folder, bit for bit."""
    at = 0
    for p in trainable(load_whole(folder)).values():
        flat.values[at : at + p.numel()].copy_(p.detach().flatten())
        at += p.numel()
    flat.renew()


@contextmanager
def as_base(flat: FlatModel, folder: str | Path) -> Iterator[None]:
    """Meanwhile the model is the one in that folder. Takes twice the weights in memory beside."""
    learnt = flat.values.clone()
    read_whole(Path(folder), flat)
    try:
        yield
    finally:
        flat.values.copy_(learnt)
        flat.renew()


def _named(model: torch.nn.Module, flat: FlatModel) -> dict[str, torch.Tensor]:
    """Masters and buffers by the names that they have in a file; tied weights once."""
    learnt = {name: flat.piece(p).master for name, p in trainable(model).items()}
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    others = {name: value for name, value in model.state_dict().items() if name not in tied}
    found = revert_weight_conversion(model, {**learnt, **others})
    return {name: found[name].contiguous() for name in sorted(found)}
