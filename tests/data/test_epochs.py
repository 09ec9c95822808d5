import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.epochs import auto_epochs, auto_preference_epochs
from pegbox.train.sampler import examples_of, steps_per_epoch


@pytest.mark.parametrize(
    ("examples", "epochs"),
    [
        # OpenAI's published table
        (1, 25), (2, 25), (3, 25), (4, 25), (5, 20), (10, 10), (20, 5), (30, 3), (8_333, 3), (8_334, 2), (20_000, 1),
        # its rule, at the edges: 100 div n below 34, 25000 div n from 8334
        (6, 16), (12, 8), (33, 3), (34, 3), (101, 3), (12_500, 2), (12_501, 1), (25_000, 1), (1_000_000, 1),
    ],
)  # fmt: skip
def test_auto_epochs(examples: int, epochs: int) -> None:
    n, reason = auto_epochs(examples)
    assert n == epochs
    assert str(examples) in reason
    assert str(n) in reason


def test_no_examples_at_all() -> None:
    assert auto_epochs(0)[0] == 25
    assert auto_preference_epochs(0)[0] == 10


@pytest.mark.parametrize(
    ("pairs", "epochs"),
    [(1, 10), (10, 10), (11, 9), (20, 5), (33, 3), (34, 3), (3_333, 3), (3_334, 2), (5_000, 2), (5_001, 1), (10**6, 1)],
)
def test_auto_preference_epochs(pairs: int, epochs: int) -> None:
    """100 div n below 34, at most 10; 10000 div n from 3334."""
    n, reason = auto_preference_epochs(pairs)
    assert n == epochs
    assert str(pairs) in reason
    assert str(n) in reason


# --- which examples a step learns from: the sampler, which the counts above are for --------------------------


@given(examples=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_each_epoch_sees_every_example_once(examples: int, batch: int, epochs: int, seed: int) -> None:
    steps = steps_per_epoch(examples, batch)
    for epoch in range(epochs):
        taken = [examples_of(epoch * steps + i, examples, batch, seed) for i in range(1, steps + 1)]
        assert sorted(i for step in taken for i in step) == list(range(examples))
        assert [len(step) for step in taken[:-1]] == [batch] * (steps - 1)
        assert len(taken[-1]) == examples - batch * (steps - 1)


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    def epoch(number: int, seed: int) -> list[int]:
        return [i for step in range(1, 6) for i in examples_of(number * 5 + step, 50, 10, seed)]

    random.seed(1)
    first = epoch(0, 7)
    random.seed(2)
    assert epoch(0, 7) == first  # nobody's global state, so a run resumes anywhere
    assert len({tuple(epoch(n, seed)) for n in range(3) for seed in (7, 8, 71)}) == 9


def test_the_order_is_the_same_in_every_release() -> None:
    """A run that was begun by an older pegbox resumes with a newer one: write this down once."""
    assert [examples_of(step, 5, 2, 42) for step in range(1, 7)] == [[4, 1], [0, 3], [2], [0, 3], [1, 2], [4]]
