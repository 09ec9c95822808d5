"""What a recipe's "auto" comes to."""

import pytest

from pegbox.train.recipe import auto_batch_size


@pytest.mark.parametrize(
    ("examples", "epochs", "size"),
    [
        (1, 1, 1),
        (10, 10, 1),  # OpenAI's rule: 100 steps
        (40, 3, 1),
        (50, 3, 3),
        (59, 3, 4),  # held-out loss 3.22, with 1 a step 3.81
        (100, 3, 4),
        (120, 3, 4),
        (200, 3, 8),
        (10_000, 2, 8),
    ],
)
def test_auto_batch_size(examples: int, epochs: int, size: int) -> None:
    assert auto_batch_size(examples, epochs)[0] == size
