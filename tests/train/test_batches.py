"""How examples lie in a batch."""

import pytest
import torch

from pegbox.data.render import Example
from pegbox.train.batches import collate, micro_batches
from pegbox.train.losses import sharing_is_exact


def example(tokens: list[int], trained_from: int) -> Example:
    return Example(tokens, [i >= trained_from for i in range(len(tokens))])


def test_a_batch_by_hand() -> None:
    batch = collate([example([5, 6, 7, 8], 2), example([5, 9], 1)])
    assert batch.tokens.tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch.predicts.tolist() == [[False, True, True, False], [True, False, False, False]]
    assert batch.targets.tolist() == [7, 8, 9]
    assert batch.shared == 0, "one token is not worth it"


@pytest.mark.parametrize(
    ("second", "trained_from", "shared"),
    [
        ([*range(20), 99, 98], 21, 20),  # up to where they part
        ([*range(20), 50, 51], 21, 20),  # the position before the first trained token predicts: not shared
        ([*range(20), 50, 51], 10, 9),
        ([*range(5), 99, 98, 97, 96, 95], 9, 0),  # too short to be worth it
        ([99, *range(1, 21)], 20, 0),
    ],
)
def test_what_rows_begin_with_is_shared_up_to_the_first_prediction(
    second: list[int], trained_from: int, shared: int
) -> None:
    first = example([*range(20), 50, 51], 21)
    assert collate([first, example(second, trained_from)]).shared == shared


def test_one_row_shares_with_nobody() -> None:
    assert collate([example(list(range(30)), 25)]).shared == 0


def test_budget_cuts_and_tails_are_dropped() -> None:
    long, short = example(list(range(30)), 20), Example(list(range(10)), [False] * 4 + [True] + [False] * 5)
    empty = Example([1, 2, 3], [False] * 3)
    batches = micro_batches([short, long, empty, short], budget=12)
    assert [batch.tokens.shape for batch in batches] == [(1, 30), (2, 5)]
    assert sum(len(batch.targets) for batch in batches) == 12


def test_a_model_without_such_a_cache_is_found_out() -> None:
    class Forgetful(torch.nn.Module):
        """Takes a cache and does not heed it, so the rows' beginnings are lost."""

        def forward(self, input_ids: torch.Tensor, logits_to_keep: object, **_: object) -> object:
            class Cache:
                def batch_repeat_interleave(self, n: int) -> None: ...

            class Out:
                past_key_values = Cache()
                hidden = torch.nn.functional.one_hot(input_ids.cumsum(1) % 11, 11).float()
                logits = hidden[logits_to_keep] if isinstance(logits_to_keep, torch.Tensor) else hidden

            return Out()

    batch = collate([example([*range(1, 15), 3, 4], 15), example([*range(1, 15), 5, 6], 15)])
    assert batch.shared
    assert not sharing_is_exact(Forgetful(), [batch])
