"""The JSON beside a model's weights, looked at before any library acts on it: transformers and PEFT take from it which
code to run, and how much memory to ask for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pegbox.data.strict_json import printable
from pegbox.data.weights import read_header

MAX_BYTES = 4 * 2**20
MAX_TEXT = 10_000  # characters of one value
_MAX_DEPTH = 64
_MAX_PARTS = 4_096  # layers of a model, experts of a layer: each is built before any weight is looked at
_MAX_RANK = 4_096
_CODE = {"auto_map", "custom_pipelines", "custom_generate", "auto_mapping", "megatron_config"}
_COUNTS = re.compile(r"(num|n)_(\w+_)?(layers?|experts)|\w+_layers|layers")
_KERNELS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
_WORD = re.compile(r"\w+")
_LAYER = re.compile(r"[\w.]+")


class ConfigError(ValueError):
    """A configuration that pegbox does not hand to a library; `str(error)` says which file, which key, and why."""


def check_config(file: Path) -> None:
    """A model's `config.json`. Raises ConfigError."""
    for key, value in _fields(file, read(file)):
        if key in _CODE and value is not None:
            raise ConfigError(f"the model brings its own code ({key}), which pegbox never runs")
        if key.endswith(("attn_implementation", "attn_implementation_internal", "experts_implementation")):
            _check_kernel(file, key, value)
        if key.endswith("_class") and isinstance(value, str) and not _WORD.fullmatch(value):
            raise ConfigError(f"{key} in {file.name} is {printable(value)!r}, no plain name of a class; remove the key")
        if _COUNTS.fullmatch(key) and isinstance(value, (int, float)) and value > _MAX_PARTS:
            raise ConfigError(f"{key} in {file.name} is {value:,}, more than {_MAX_PARTS:,}; mend the file")


def check_adapter(folder: Path) -> None:
    """An adapter in PEFT's format: LoRA, of a possible size, without code, its weights in a whole safetensors file.

    Raises ConfigError and WeightsError.
    """
    file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    values = read(file)
    for key, value in _fields(file, values):
        if key in _CODE and value is not None:
            raise ConfigError(f"the adapter brings its own code ({key}), which pegbox never runs")
    rank, targets = values.get("r"), values.get("target_modules")
    if values.get("peft_type") != "LORA":
        raise ConfigError(f"peft_type in {file.name} is not LORA")
    if not isinstance(rank, int) or not 0 < rank <= _MAX_RANK:
        raise ConfigError(f"r in {file.name} is not a whole number from 1 to {_MAX_RANK:,}")
    if not isinstance(targets, list) or not all(isinstance(t, str) and _LAYER.fullmatch(t) for t in targets):
        raise ConfigError(f"target_modules in {file.name} is not a list of layers' names")
    if values.get("rank_pattern") or values.get("alpha_pattern"):
        raise ConfigError(f"rank_pattern and alpha_pattern in {file.name} are not empty")
    read_header(weights)  # where it is missing PEFT would open a pickle


def read(file: Path) -> dict[str, object]:
    """A JSON object from a file of possible size. Raises ConfigError."""
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(f"{file.name} is {size:,} bytes long, more than the {MAX_BYTES:,} allowed")
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file.name} can't be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file.name} is no JSON object")
    return values


def _fields(file: Path, values: object, depth: int = _MAX_DEPTH) -> Iterator[tuple[str, object]]:
    """Every key with its value, however deep. Raises ConfigError for what is too deep or too long."""
    if depth == 0:
        raise ConfigError(f"{file.name} is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(values, str) and len(values) > MAX_TEXT:
        raise ConfigError(f"{file.name} holds a text of {len(values):,} characters, more than {MAX_TEXT:,}")
    if isinstance(values, dict):
        for key, value in values.items():
            yield key, value
            yield from _fields(file, value, depth - 1)
    elif isinstance(values, list):
        for value in values:
            yield from _fields(file, value, depth - 1)


def _check_kernel(file: Path, key: str, value: object) -> None:
    """The name of a kernel may be one of a repository that transformers would fetch and run."""
    for name in value.values() if isinstance(value, dict) else [value]:
        if name is not None and name not in _KERNELS:
            known = ", ".join(_KERNELS)
            raise ConfigError(f"{key} in {file.name} is {printable(str(name))!r}, none of {known}; remove the key")
