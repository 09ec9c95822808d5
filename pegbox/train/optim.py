"""The optimizer and its schedule: AdamW, linear warm-up, linear decay to zero."""

import torch

from pegbox.train.recipe import Recipe

CLIP_NORM = 1.0


def make_optimizer(parameters: dict[str, torch.nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, weight_decay=0.0)


def learning_rate(step: int, total: int, recipe: Recipe) -> float:
    """The rate of optimizer step `step`, counted from 1."""
    rise = min(1.0, step / recipe.warmup_steps)
    fall = (total - step + 1) / total
    return recipe.learning_rate * rise * fall


def state_tensors(optimizer: torch.optim.AdamW, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """AdamW's memory under the adapter's names: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`."""
    return {
        f"{kind}.{name}": optimizer.state[p][kind]
        for name, p in parameters.items()
        for kind in ("exp_avg", "exp_avg_sq", "step")
    }


def load_state_tensors(
    optimizer: torch.optim.AdamW,
    parameters: dict[str, torch.nn.Parameter],
    tensors: dict[str, torch.Tensor],
) -> None:
    for name, p in parameters.items():
        optimizer.state[p] = {kind: tensors[f"{kind}.{name}"] for kind in ("exp_avg", "exp_avg_sq", "step")}
