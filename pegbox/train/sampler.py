"""Which examples an optimizer step learns from. Torch-free and stateless."""

import random
from functools import lru_cache


def steps_per_epoch(examples: int, batch_size: int) -> int:
    return -(-examples // batch_size)


def examples_of(step: int, examples: int, batch_size: int, seed: int) -> list[int]:
    """The examples of optimizer step `step` (from 1), as indices: a pure function, so a run resumes anywhere.

    Each epoch sees every example once, in an order of its own; its last step may be smaller.
    """
    epoch, position = divmod(step - 1, steps_per_epoch(examples, batch_size))
    return list(_order(examples, seed, epoch)[position * batch_size : (position + 1) * batch_size])


@lru_cache(maxsize=2)  # an epoch's steps all ask for the same one
def _order(examples: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(examples))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return tuple(order)
