"""The head: from hidden states to log-probabilities of the tokens to predict, without keeping the logits.

With a frozen head, d logp / d hidden is W[target] - softmax(W hidden) W, whatever the loss makes of it later. So it is
worked out in the forward, tile by tile while the logits are there, and backward is one product by number: two matrix
products instead of three, and never more than a tile of the vocabulary's width in memory. Softmax in fp32; a tile
always has the whole vocabulary, because partial sums in bf16 would bias the gradient.

A head that learns (all weights) needs the loss's own gradient before it can sum up its own, so there the tiles' logits
are made a second time, in backward: four products instead of autograd's three, and still a tile in memory.
"""

from collections.abc import Iterator
from typing import Any

import torch

TILE_BYTES = 64 * 2**20  # of fp32 logits


class _Head(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,  # (N, H)
        weight: torch.Tensor,  # (V, H)
        bias: torch.Tensor | None,  # (V,)
        targets: torch.Tensor,  # (N,) int64
    ) -> tuple[torch.Tensor, torch.Tensor]:
        learns = ctx.needs_input_grad[0]
        logps, hits = hidden.new_empty(len(hidden), dtype=torch.float32), torch.empty_like(targets, dtype=torch.bool)
        pull = torch.empty_like(hidden) if learns else hidden.new_empty(0)  # (N, H): d logp / d hidden
        for part in _tiles(hidden, weight):
            wanted = targets[part, None]  # (n, 1)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()  # (n, V)
            highest, likeliest = logits.max(-1, keepdim=True)  # (n, 1)
            hits[part] = (likeliest == wanted)[:, 0]
            told = logits.gather(1, wanted)  # (n, 1)
            total = logits.sub_(highest).exp_().sum(-1, keepdim=True)  # (n, 1)
            logps[part] = (told - highest - total.log())[:, 0]
            if learns:
                surprise = logits.div_(total)  # (n, V): softmax, then minus one at the target
                surprise.scatter_add_(1, wanted, surprise.new_full(wanted.shape, -1.0))
                pull[part] = surprise.to(weight.dtype) @ weight
        ctx.save_for_backward(pull)
        ctx.mark_non_differentiable(hits)
        return logps, hits

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (pull,) = ctx.saved_tensors
        return pull * -grads[0][:, None].to(pull.dtype), None, None, None


class _LearningHead(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,  # (N, H)
        weight: torch.Tensor,  # (V, H)
        bias: torch.Tensor | None,  # (V,)
        targets: torch.Tensor,  # (N,) int64
    ) -> tuple[torch.Tensor, torch.Tensor]:
        totals = hidden.new_empty(len(hidden), dtype=torch.float32)  # (N,): the logarithms of softmax's sums
        logps, hits = torch.empty_like(totals), torch.empty_like(targets, dtype=torch.bool)
        for part in _tiles(hidden, weight):
            wanted = targets[part, None]  # (n, 1)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()  # (n, V)
            totals[part] = logits.logsumexp(-1)
            logps[part] = logits.gather(1, wanted)[:, 0] - totals[part]
            hits[part] = logits.argmax(-1) == targets[part]
        ctx.save_for_backward(hidden, weight, bias, targets, totals)
        ctx.mark_non_differentiable(hits)
        return logps, hits

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, totals = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden)  # (N, H)
        to_weight = torch.zeros_like(weight, dtype=torch.float32)  # (V, H), summed over the tiles
        to_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)  # (V,)
        for part in _tiles(hidden, weight):
            wanted = targets[part, None]  # (n, 1)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()  # (n, V)
            share = logits.sub_(totals[part, None]).exp_()  # (n, V): softmax, then minus one at the target
            share.scatter_add_(1, wanted, share.new_full(wanted.shape, -1.0))
            pull = share.mul_(-grads[0][part, None])  # (n, V): d loss / d logits
            if to_bias is not None:
                to_bias += pull.sum(0)
            pull = pull.to(weight.dtype)
            to_hidden[part] = pull @ weight
            if pull.dtype == to_weight.dtype:
                to_weight.addmm_(pull.T, hidden[part])
            else:
                to_weight += pull.T @ hidden[part]
        return to_hidden, to_weight.to(weight.dtype), None if to_bias is None else to_bias.to(weight.dtype), None


def _tiles(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    size = max(1, TILE_BYTES // (4 * weight.shape[0]))
    return (slice(start, start + size) for start in range(0, len(hidden), size))


def log_probs(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of N targets at N hidden states (N, H): log-probabilities (N,) in fp32, and whether each is likeliest (N,)."""
    kind = _LearningHead if head.weight.requires_grad else _Head
    return kind.apply(hidden, head.weight, head.bias, targets)  # type: ignore[no-any-return]
