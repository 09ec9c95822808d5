"""Attention over a trie of examples, under a name of our own in transformers' table: no model's code is touched.

Each node's tokens see all tokens of the nodes above, and their own up to themselves. So attention runs node by node:
at a root it is plain causal attention, below it the keys are those of the path. Nothing is computed for what can't be
seen, and no mask of all tokens by all tokens is ever made.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from transformers import AttentionInterface, AttentionMaskInterface

from pegbox.data.trie import Trie
from pegbox.train.ragged import Ragged, attend_ragged, kernel, ragged

NAME = "pegbox_trie"
# What a layer may ask of its attention that this one does not do.
_FOREIGN = ("sliding_window", "softcap", "s_aux", "head_mask", "position_bias")


class UnfitError(Exception):
    """A model whose attention is of another kind."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A node's S queries, and what they see: P keys of the nodes above, and their own."""

    path: tuple[int, ...]  # nodes from the root down, itself last
    mask: torch.Tensor | None  # (S, P + S) float, added to the scores; None at a root


@dataclass(frozen=True, slots=True)
class Layout:
    """A trie as attention needs it. Made once a micro-batch, for all layers."""

    sizes: list[int]  # tokens of each node, in the order of the layout
    segments: list[Segment]
    ragged: Ragged | None = None  # the same for a GPU's kernel, where there is one


def layout(trie: Trie, device: str = "cpu") -> Layout:
    sizes = [node.stop - node.start for node in trie.nodes]
    paths = [trie.path(i) for i in range(len(sizes))]
    if device != "cpu" and kernel() is not None:
        return Layout(sizes, [], ragged(sizes, paths, device))
    segments = []
    for size, path in zip(sizes, paths, strict=True):
        above = sum(sizes[n] for n in path[:-1])
        segments.append(Segment(tuple(path), _mask(above, size).to(device) if above else None))
    return Layout(sizes, segments)


def _mask(above: int, own: int) -> torch.Tensor:
    mask = torch.full((own, own), float("-inf")).triu(1)  # (S, S)
    return F.pad(mask, (above, 0))  # (S, P + S)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, G, T, D), G groups of heads
    value: torch.Tensor,  # (1, G, T, D)
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    trie: Layout | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' layers call it; gives (1, T, H, D)."""
    del module, attention_mask
    if trie is None or dropout or any(others.get(name) is not None for name in _FOREIGN):
        raise UnfitError("its attention is of another kind")
    if trie.ragged is not None:
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        fast = kernel()
        assert fast is not None, "the layout was made for it"
        return attend_ragged(fast, query, key, value, trie.ragged, scale), None
    q, k, v = (x.split(trie.sizes, dim=2) for x in (query, key, value))  # backward of a split is one cat
    grouped = query.shape[1] != key.shape[1]
    out = []
    for segment in trie.segments:
        keys = _along(k, segment.path)  # (1, G, P + S, D)
        values = _along(v, segment.path)  # (1, G, P + S, D)
        seen = F.scaled_dot_product_attention(
            q[segment.path[-1]], keys, values, _as(segment.mask, query),
            is_causal=segment.mask is None, scale=scaling, enable_gqa=grouped,
        )  # (1, H, S, D)  # fmt: skip
        out.append(seen)
    return torch.cat(out, dim=2).transpose(1, 2), None  # (1, T, H, D)


def _as(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    return None if mask is None else mask.to(query.dtype)


def _along(of_nodes: tuple[torch.Tensor, ...], path: tuple[int, ...]) -> torch.Tensor:
    return of_nodes[path[0]] if len(path) == 1 else torch.cat([of_nodes[n] for n in path], dim=2)


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask of all by all, which transformers would make: the layout says what is seen."""


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _no_mask)
