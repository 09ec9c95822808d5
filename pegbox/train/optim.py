"""The optimizer and its schedule: AdamW over one flat buffer, linear warm-up, linear decay to zero.

An adapter has hundreds of small matrices. They are views into one buffer, and their gradients into another, so a step,
a norm, a reset and a checkpoint are each one call.
"""

from dataclasses import dataclass

import torch

from pegbox.train.recipe import Recipe

CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """One matrix of an adapter: views into the flat buffers."""

    working: torch.Tensor  # what is computed with, in the base's dtype
    gradient: torch.Tensor  # float32, summed since the last step


class FlatAdapter:
    """P numbers of an adapter, in the order of their names, as one vector of fp32; and, where the base computes in
    another dtype, a copy in that one, renewed at each step."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], dtype: torch.dtype = torch.float32) -> None:
        """The parameters become views; whoever holds them sees every step."""
        self.values = torch.cat([p.detach().flatten() for p in parameters.values()]).float()  # (P,)
        self.values.grad = torch.zeros_like(self.values)  # (P,)
        self.working = self.values if dtype == torch.float32 else self.values.to(dtype)  # (P,)
        self._pieces: dict[int, Piece] = {}
        at = 0
        for p in parameters.values():
            piece = slice(at, at + p.numel())
            p.data = self.values[piece].view_as(p)
            p.grad = self.values.grad[piece].view_as(p)
            self._pieces[id(p)] = Piece(self.working[piece].view_as(p), p.grad)
            at += p.numel()

    @property
    def gradient(self) -> torch.Tensor:
        """(P,) summed since the last step."""
        assert self.values.grad is not None, "made with the values, and never given up"
        return self.values.grad

    def piece(self, parameter: torch.nn.Parameter) -> Piece:
        """Where one of the parameters lives."""
        return self._pieces[id(parameter)]

    def renew(self) -> None:
        """The values have changed: let the working copy follow."""
        if self.working is not self.values:
            self.working.copy_(self.values)


def make_optimizer(adapter: FlatAdapter, recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW([adapter.values], lr=recipe.learning_rate, weight_decay=0.0)


def step(optimizer: torch.optim.AdamW, adapter: FlatAdapter, rate: float) -> None:
    """Clip the gradient's norm, move, and begin a new sum."""
    gradient = adapter.gradient
    gradient.mul_((CLIP_NORM / (gradient.norm() + 1e-6)).clamp(max=1.0))
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()
    gradient.zero_()
    adapter.renew()


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """The rate of optimizer step `step`, counted from 1."""
    rise = min(1.0, step / recipe.warmup_steps)
    fall = (total - step + 1) / total
    return recipe.learning_rate * rise * fall


def state_tensors(optimizer: torch.optim.AdamW, adapter: FlatAdapter) -> dict[str, torch.Tensor]:
    """All that the next step depends on: the adapter, and AdamW's memory of it."""
    memory = optimizer.state[adapter.values]
    return {"adapter": adapter.values, **{kind: memory[kind] for kind in ("exp_avg", "exp_avg_sq", "step")}}


def load_state_tensors(optimizer: torch.optim.AdamW, adapter: FlatAdapter, tensors: dict[str, torch.Tensor]) -> None:
    adapter.values.copy_(tensors["adapter"])
    adapter.renew()
    place = adapter.values.device
    memory = {kind: tensors[kind].to(place) for kind in ("exp_avg", "exp_avg_sq")}
    optimizer.state[adapter.values] = {**memory, "step": tensors["step"]}
