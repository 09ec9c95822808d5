"""A linear layer with its low-rank adapter as one function: y = x Wᵀ + b + s (x Aᵀ) Bᵀ, W frozen.

PEFT's own forward does the same in five steps and keeps more for backward. The layers stay PEFT's, so adapters are
read and written in its format; only how they compute is ours. A test holds both to each other.
"""

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear

_ADAPTER = "default"


class _Lora(torch.autograd.Function):  # type: ignore[misc]
    """T tokens of width I to width O through rank R."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,  # (…, I)
        weight: torch.Tensor,  # (O, I)
        bias: torch.Tensor | None,  # (O,)
        a: torch.Tensor,  # (R, I)
        b: torch.Tensor,  # (O, R)
        scale: float,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (T, I)
        low = flat @ a.T  # (T, R)
        y = flat @ weight.T if bias is None else torch.addmm(bias, flat, weight.T)  # (T, O)
        y.addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scale = scale
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, weight, a, b, low = ctx.saved_tensors
        dy = grads[0].reshape(-1, weight.shape[0])  # (T, O)
        dlow = (dy @ b).mul_(ctx.scale)  # (T, R)
        da = dlow.T @ flat  # (R, I)
        db = (dy.T @ low).mul_(ctx.scale)  # (O, R)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ weight  # (T, I)
            dx.addmm_(dlow, a)
            dx = dx.view(*grads[0].shape[:-1], a.shape[1])
        return dx, None, None, da, db, None


def use_own_linear(model: PeftModel) -> int:
    """Let every plain LoRA layer compute as above; the others stay as they are. Returns how many do."""
    changed = 0
    for module in model.modules():
        if isinstance(module, Linear) and _is_plain(module):
            module.forward = _forward_of(module)
            changed += 1
    return changed


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


def _forward_of(layer: Linear) -> Any:
    base, a, b = layer.base_layer, layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER]
    scale = layer.scaling[_ADAPTER]

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if layer.disable_adapters:
            return base(x)
        return _Lora.apply(x, base.weight, base.bias, a.weight, b.weight, scale)

    return forward
