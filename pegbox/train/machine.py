"""What this machine is good at, found out before the first step and then written into the recipe: which dtype is
faster at the model's own matrix shapes, and how many tokens fit into memory. Both change the last bits of the result,
so a run that is resumed keeps them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from pegbox.train.recipe import Recipe

_TOKENS = 512  # rows of the matrices that are timed
_SECONDS = 0.05  # for each
_WORTH_IT = 1.3  # bf16 keeps three digits; it must pay
_SHARE = 0.6  # of free memory that activations may take
_FEWEST = 512  # tokens
_STATE_BYTES = {"float32": 16, "bfloat16": 18}  # a learnt weight: master, gradient, two moments; in bf16 a working copy


class RefusedError(Exception):
    """A run that can't begin, or go on, on this machine. The message is the user's, with a remedy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Machine:
    device: str  # "cpu" or "cuda"
    free_bytes: int


def this_machine() -> Machine:
    if torch.cuda.is_available():
        return Machine("cuda", torch.cuda.mem_get_info()[0])
    return Machine("cpu", _free_memory())


def settle(recipe: Recipe, machine: Machine) -> Recipe:
    """The recipe with what it leaves to the machine decided. A settled one comes back as it is.

    Raises RefusedError where all weights are to be learnt and what that takes is more than there is.
    """
    if recipe.settled:
        return recipe
    config = AutoConfig.from_pretrained(recipe.base_folder, trust_remote_code=False)
    reasons = dict(recipe.reasons)
    dtype = recipe.dtype
    if dtype == "auto":
        dtype, reasons["dtype"] = _choose_dtype(config, machine)
    free = machine.free_bytes
    if recipe.weights == "all":
        free -= _state(config, dtype, free)
    room = int(free * _SHARE / _bytes_a_token(config, dtype))
    most = recipe.micro_batch_tokens if machine.device == "cpu" else max(recipe.micro_batch_tokens, 65_536)
    tokens = max(_FEWEST, min(most, room))
    reasons["micro_batch_tokens"] = f"{machine.free_bytes / 2**30:.1f} GiB of memory were free"
    return replace(recipe, dtype=dtype, micro_batch_tokens=tokens, reasons=reasons, settled=True)


def _state(config: PretrainedConfig, dtype: str, free: int) -> int:
    """Bytes that all weights take while they are learnt. Raises RefusedError if no room is left to compute in."""
    with torch.device("meta"):
        weights: int = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    state = weights * _STATE_BYTES[dtype]
    least = int(_FEWEST * _bytes_a_token(config, dtype) / _SHARE)
    if state + least <= free:
        return state
    needed, here = (f"{value / 2**30:,.1f} GiB" for value in (state + least, free))
    raise RefusedError(
        "insufficient_memory",
        f"To learn all {weights:,} weights takes at least {needed} of memory ({_STATE_BYTES[dtype]} bytes a weight for "
        f"values, gradients and the optimizer's two moments, and {least / 2**30:,.1f} GiB to compute in), but {here} "
        "are free. Leave out pegbox.weights to train an adapter, take a smaller base, or free memory.",
    )


def _choose_dtype(config: PretrainedConfig, machine: Machine) -> tuple[str, str]:
    if machine.device == "cuda":
        fits = torch.cuda.is_bf16_supported()
        return ("bfloat16", "the GPU computes in it") if fits else ("float32", "the GPU has no bf16")
    wide, narrow = speed(config, torch.float32), speed(config, torch.bfloat16)
    told = (
        f"matrix products at this model's shapes: {wide / 1e9:.0f} GFLOP/s in float32, {narrow / 1e9:.0f} in bfloat16"
    )
    return ("bfloat16" if narrow > _WORTH_IT * wide else "float32"), told


def speed(config: PretrainedConfig, dtype: torch.dtype, device: str = "cpu") -> float:
    """Floating-point operations a second of this model's matrix products."""
    config = getattr(config, "text_config", config)
    width: int = config.hidden_size
    inner: int = getattr(config, "intermediate_size", None) or 4 * width
    flops = seconds = 0.0
    for a, b in ((width, width), (width, inner), (inner, width)):
        x, w = (torch.ones(size, dtype=dtype, device=device) for size in ((_TOKENS, a), (b, a)))
        rounds, took = _timed(lambda x=x, w=w: torch.nn.functional.linear(x, w))  # type: ignore[misc]
        flops += 2.0 * _TOKENS * a * b * rounds
        seconds += took
    return flops / seconds


def _timed(work: Callable[[], object]) -> tuple[int, float]:
    work()
    rounds = 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < _SECONDS:
        work()
        rounds += 1
    return rounds, took


def _bytes_a_token(config: PretrainedConfig, dtype: str) -> float:
    """Of activations kept for backward: norms, projections and their inputs, in every layer; with a half again for
    what stock modules keep beside."""
    config = getattr(config, "text_config", config)
    width: int = config.hidden_size
    inner: int = getattr(config, "intermediate_size", None) or 4 * width
    layers: int = getattr(config, "num_hidden_layers", 12)
    size = 4 if dtype == "float32" else 2
    return 1.5 * layers * (8 * width + 3 * inner) * size


def _free_memory() -> int:
    """Bytes that this process may still take: the machine's, or what its container leaves it."""
    free = 4 * 2**30
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
        if limit != "max":
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text("ascii")))
    except (OSError, ValueError):
        pass  # no such files here: the first guess stands
    return free
