"""The losses, as pure functions of log-probabilities."""

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name


def of_examples(logps: torch.Tensor, owners: torch.Tensor, examples: int) -> torch.Tensor:
    """Sums of N tokens' log-probabilities, (N,), by the example they belong to, (examples,)."""
    return logps.new_zeros(examples).index_add(0, owners, logps)


def supervised(logps: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihoods (nats) of the examples, from the log-probabilities of each one's answers; (S,)."""
    return -logps


def dpo(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Direct preference optimization (arXiv 2305.18290), the sigmoid loss.

    `policy` and `reference` are log-probabilities (S, 2) of the chosen and the rejected answers of S pairs. Gives the
    pairs' losses (S,) and the implicit rewards (S, 2): beta times the log-ratio to the reference.
    """
    rewards = beta * (policy - reference)  # (S, 2)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards
