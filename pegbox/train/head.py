"""The head: from hidden states to log-probabilities of the tokens to predict, without keeping the logits.

With a frozen head, d logp / d hidden is W[target] - softmax(W hidden) W, whatever the loss makes of it later. So it is
worked out in the forward, tile by tile while the logits are there, and backward is one product by number: two matrix
products instead of three, and never more than a tile of the vocabulary's width in memory. Softmax in fp32; a tile
always has the whole vocabulary, because partial sums in bf16 would bias the gradient.
"""

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
        tile = max(1, TILE_BYTES // (4 * weight.shape[0]))
        for start in range(0, len(hidden), tile):
            part = slice(start, start + tile)
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


def log_probs(head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of N targets at N hidden states (N, H): log-probabilities (N,) in fp32, and whether each is the likeliest (N,).

    Where the head itself learns (full weights), autograd does it, with all logits in memory.
    """
    if not head.weight.requires_grad:
        return _Head.apply(hidden, head.weight, head.bias, targets)  # type: ignore[no-any-return]
    logits = head(hidden).float()  # (N, V)
    hits = logits.detach().argmax(-1) == targets
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none"), hits
