"""The optimizer and its schedule: AdamW over one flat buffer, linear warm-up, linear decay to zero.

An adapter has hundreds of small matrices. They are views into one buffer, and their gradients into another, so a step,
a norm, a reset and a checkpoint are each one call. So it is with all weights of a model, where those are learnt.
"""

from dataclasses import dataclass
from functools import partial

import torch

from pegbox.train.recipe import Recipe

CLIP_NORM = 1.0
_STRETCH = 1 << 20  # numbers whose squares are summed in one go


@dataclass(frozen=True, slots=True)
class Piece:
    """One matrix: views into the flat buffers."""

    master: torch.Tensor  # float32
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
            part = slice(at, at + p.numel())
            piece = Piece(
                self.values[part].view_as(p), self.working[part].view_as(p), self.values.grad[part].view_as(p)
            )
            self._lend(p, piece)
            self._pieces[id(p)] = piece
            at += p.numel()

    def _lend(self, parameter: torch.nn.Parameter, piece: Piece) -> None:
        """An adapter's matrices are the masters; who computes with the working copy asks for the piece."""
        parameter.data = piece.master
        parameter.grad = piece.gradient

    @property
    def gradient(self) -> torch.Tensor:
        """(P,) summed since the last step."""
        assert self.values.grad is not None, "made with the values, and never given up"
        return self.values.grad

    def norm(self) -> torch.Tensor:
        """Of the gradient; a scalar."""
        return self.gradient.norm()

    def piece(self, parameter: torch.nn.Parameter) -> Piece:
        """Where one of the parameters lives."""
        return self._pieces[id(parameter)]

    def renew(self) -> None:
        """The values have changed: let the working copy follow."""
        if self.working is not self.values:
            self.working.copy_(self.values)


class FlatModel(FlatAdapter):
    """The same of all weights of a model. The layers compute with the parameters themselves, so these are the working
    copy; and where that is not fp32, what a micro-batch gives is added to the fp32 sums as it comes."""

    def _lend(self, parameter: torch.nn.Parameter, piece: Piece) -> None:
        parameter.data = piece.working
        if piece.working.dtype == piece.gradient.dtype:
            parameter.grad = piece.gradient
        else:
            parameter.register_post_accumulate_grad_hook(partial(_add_to, piece.gradient))

    def norm(self) -> torch.Tensor:
        """In stretches: a CPU sums a hundred million squares in fp32 to two digits only."""
        return torch.stack([part.norm() for part in self.gradient.split(_STRETCH)]).norm()


def _add_to(total: torch.Tensor, parameter: torch.Tensor) -> None:
    assert parameter.grad is not None, "the hook follows its making"
    total.add_(parameter.grad)
    parameter.grad = None


def make_optimizer(adapter: FlatAdapter, recipe: Recipe) -> torch.optim.AdamW:
    # Fused, it needs no memory beside its own. The adapters of old runs were made without: those go on as they were.
    fused = True if isinstance(adapter, FlatModel) else None
    return torch.optim.AdamW([adapter.values], lr=recipe.learning_rate, weight_decay=0.0, fused=fused)


def step(optimizer: torch.optim.AdamW, adapter: FlatAdapter, rate: float) -> None:
    """Clip the gradient's norm, move, and begin a new sum."""
    gradient = adapter.gradient
    gradient.mul_((CLIP_NORM / (adapter.norm() + 1e-6)).clamp(max=1.0))
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
    """All that the next step depends on: the adapter, and AdamW's memory of it. A whole model's weights lie beside."""
    memory = {kind: optimizer.state[adapter.values][kind] for kind in ("exp_avg", "exp_avg_sq", "step")}
    return memory if isinstance(adapter, FlatModel) else {"adapter": adapter.values, **memory}


def load_state_tensors(optimizer: torch.optim.AdamW, adapter: FlatAdapter, tensors: dict[str, torch.Tensor]) -> None:
    place = adapter.values.device
    memory = {kind: tensors[kind].to(place) for kind in ("exp_avg", "exp_avg_sq")}
    counted = tensors["step"]
    if isinstance(adapter, FlatModel):
        counted = counted.to(place)  # where a fused step counts
    else:
        adapter.values.copy_(tensors["adapter"])
        adapter.renew()
    optimizer.state[adapter.values] = {**memory, "step": counted}
