"""Which examples an optimizer step learns from. Torch-free and stateless."""

import random


def steps_per_epoch(examples: int, batch_size: int) -> int:
    return -(-examples // batch_size)


def examples_of(step: int, examples: int, batch_size: int, seed: int) -> list[int]:
    """The examples of optimizer step `step` (from 1), as indices: a pure function, so a run resumes anywhere.

    Each epoch sees every example once, in an order of its own; its last step may be smaller.
    """
    epoch, position = divmod(step - 1, steps_per_epoch(examples, batch_size))
    order = list(range(examples))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order[position * batch_size : (position + 1) * batch_size]
