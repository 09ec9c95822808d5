"""A linear layer with its low-rank adapter as one function: y = x Wᵀ + b + s (x Aᵀ) Bᵀ, W frozen.

PEFT's own forward does the same in five steps and keeps more for backward. The layers stay PEFT's, so adapters are
read and written in its format; only how they compute is ours. A test holds both to each other. A and B are computed
with as `FlatAdapter` holds them ready, in the base's dtype; what they learn is added to its fp32 sums in place.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear

from pegbox.train.optim import FlatAdapter, Piece

_ADAPTER = "default"


class _Lora(torch.autograd.Function):  # type: ignore[misc]
    """T tokens of width I to width O through rank R."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,  # (…, I)
        _: torch.Tensor,  # a trained tensor, so that autograd comes by even where x is not trained
        base: torch.nn.Linear,  # weight (O, I)
        a: Piece,  # (R, I)
        b: Piece,  # (O, R)
        scale: float,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (T, I)
        low = flat @ a.working.T  # (T, R)
        y = torch.nn.functional.linear(flat, base.weight, base.bias)  # (T, O)
        y.addmm_(low, b.working.T, alpha=scale)
        ctx.save_for_backward(flat, low)
        ctx.base, ctx.a, ctx.b, ctx.scale = base, a, b, scale
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, low = ctx.saved_tensors
        base, a, b = ctx.base, ctx.a, ctx.b
        dy = grads[0].reshape(-1, base.out_features)  # (T, O)
        dlow = (dy @ b.working).mul_(ctx.scale)  # (T, R)
        _add_product(a.gradient, dlow.T, flat)
        _add_product(b.gradient, dy.T, low, ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ base.weight  # (T, I)
            dx.addmm_(dlow, a.working)
            dx = dx.view(*grads[0].shape[:-1], base.in_features)
        return dx, None, None, None, None, None


def _add_product(into: torch.Tensor, x: torch.Tensor, y: torch.Tensor, scale: float = 1.0) -> None:
    if into.dtype == x.dtype:
        into.addmm_(x, y, alpha=scale)
    else:
        into.add_(x @ y, alpha=scale)


def use_own_linear(model: torch.nn.Module, adapter: FlatAdapter) -> int:
    """Let every plain LoRA layer compute as above; the others stay as they are. Returns how many do."""
    changed = 0
    for module in model.modules():
        if isinstance(module, Linear) and _is_plain(module):
            module.forward = _forward_of(module, adapter)
            changed += 1
    return changed


def use_peft_linear(model: torch.nn.Module) -> None:
    """Undo `use_own_linear`."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.__dict__.pop("forward", None)


def _is_plain(layer: Linear) -> bool:
    """No dropout, no variant (DoRA and its kin), nothing merged, one adapter, a stock linear layer below."""
    return (
        type(layer.base_layer) is torch.nn.Linear
        and list(layer.lora_A) == [_ADAPTER]
        and isinstance(layer.lora_dropout[_ADAPTER], torch.nn.Identity)
        and not layer.lora_variant
        and not layer.merged
        and not layer.lora_bias[_ADAPTER]
    )


def _forward_of(layer: Linear, adapter: FlatAdapter) -> Any:
    base, trained = layer.base_layer, layer.lora_A[_ADAPTER].weight
    a, b = adapter.piece(trained), adapter.piece(layer.lora_B[_ADAPTER].weight)
    scale = layer.scaling[_ADAPTER]

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if layer.disable_adapters:
            return base(x)
        return _Lora.apply(x, trained, base, a, b, scale)

    return forward
