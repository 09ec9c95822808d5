"""Attention over a trie on a GPU: one call of a ragged kernel (`torch.nn.attention.varlen`) a layer.

Each node is a sequence of queries whose keys are those of its path, gathered; causality is aligned at the end, so a
node's tokens see all of the path above and their own up to themselves. The kernel's interface has changed from one
torch to the next, so it is looked at, and its first answers are held to plain attention before it is used.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

Kernel = Callable[..., torch.Tensor]
_TOLERANCE = 2e-2  # of bf16


@dataclass(frozen=True, slots=True)
class Ragged:
    """A trie of T tokens in M nodes, as the kernel takes it. On the device, but for the two lengths."""

    keys: torch.Tensor  # (K,) int64: the positions that each node's path is made of, node by node
    query_starts: torch.Tensor  # (M + 1,) int32
    key_starts: torch.Tensor  # (M + 1,) int32
    longest_query: int
    longest_key: int


def ragged(sizes: Sequence[int], paths: Sequence[Sequence[int]], device: str) -> Ragged:
    """From the nodes' sizes, in the order of the layout, and the path to each, root first, itself last."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    keys = [position for path in paths for n in path for position in range(starts[n], starts[n + 1])]
    lengths = [sum(sizes[n] for n in path) for path in paths]
    key_starts = [0]
    for length in lengths:
        key_starts.append(key_starts[-1] + length)
    return Ragged(
        torch.tensor(keys, device=device),
        torch.tensor(starts, dtype=torch.int32, device=device),
        torch.tensor(key_starts, dtype=torch.int32, device=device),
        max(sizes, default=0),
        max(lengths, default=0),
    )


def attend_ragged(
    kernel: Kernel,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, G, T, D)
    value: torch.Tensor,  # (1, G, T, D)
    trie: Ragged,
    scale: float,
) -> torch.Tensor:
    """Gives (1, T, H, D)."""
    q = query[0].transpose(0, 1) * (scale * query.shape[-1] ** 0.5)  # (T, H, D): the kernel divides by the root of D
    times = query.shape[1] // key.shape[1]
    k, v = (x[0].transpose(0, 1).index_select(0, trie.keys) for x in (key, value))  # (K, G, D)
    if times > 1:
        k, v = (x.repeat_interleave(times, 1) for x in (k, v))  # (K, H, D)
    lengths = trie.query_starts, trie.key_starts, trie.longest_query, trie.longest_key
    return kernel(q.contiguous(), k, v, *lengths)[None]


@cache
def kernel() -> Kernel | None:
    """The installed torch's ragged kernel, made causal; None where there is none, or where it errs on this GPU."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if "window_size" in known:
        found: Kernel = lambda *args: varlen_attn(*args, window_size=(-1, 0))  # noqa: E731
    elif "is_causal" in known:
        found = lambda *args: varlen_attn(*args, is_causal=True)  # noqa: E731
    else:
        return None
    return found if _is_right(found, "cuda", torch.bfloat16) else None


def _is_right(found: Kernel, device: str, dtype: torch.dtype) -> bool:
    """Whether the kernel, forward and backward, is plain attention: for a node of 5 below one of 19, and for those."""
    random = torch.Generator(device=device).manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, 24, 64, generator=random, device=device, dtype=dtype).requires_grad_() for _ in range(3)
    )
    try:
        ours = attend_ragged(found, q, k, v, ragged([19, 5], [[0], [0, 1]], device), 0.125)
        ours.float().square().sum().backward()
        gradients = [x.grad.clone() for x in (q, k, v) if x.grad is not None]
        q.grad = k.grad = v.grad = None
        plain = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.125).transpose(1, 2)
        plain.float().square().sum().backward()
    except (RuntimeError, TypeError, ValueError):
        return False
    expected = [x.grad for x in (q, k, v) if x.grad is not None]
    pairs = zip([ours, *gradients], [plain, *expected], strict=True)
    return all(bool((a - b).float().norm() < _TOLERANCE * b.float().norm()) for a, b in pairs)
