"""Sorted files, told from shuffled ones."""

import random

import numpy as np
import pytest
from feeding import banking77, chat, feed, gsm8k

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.order import Order, agreement, average_ranks


def test_the_chance_of_equal_neighbours_is_that_of_all_orders():
    """By hand: a a b has the orders aab, aba, baa; of their six neighbours two are alike."""
    alike, chance, z = agreement(np.array([1, 1, 2], dtype=np.uint64))
    assert (alike, chance) == (0.5, pytest.approx(1 / 3))
    assert z == pytest.approx((1 / 2 - 1 / 3) / (2 / 9 / 2) ** 0.5)


def test_ties_share_their_rank():
    assert average_ranks(np.array([7, 3, 7, 9], dtype=np.uint32)).tolist() == [1.5, 0.0, 1.5, 3.0]


def test_a_file_sorted_by_label_is_told_and_a_shuffled_one_not():
    pairs = banking77()
    found = feed(Order, [chat(q, a) for q, a in pairs])  # as it is published
    assert set(found) == {"by-answer"}
    assert found["by-answer"].severity is Severity.INFO
    assert found["by-answer"].data["alike"] > 0.95
    random.Random(0).shuffle(pairs)
    assert feed(Order, [chat(q, a) for q, a in pairs]) == {}


def test_lengths_in_order_or_in_blocks():
    pairs = gsm8k()[:3_000]
    assert feed(Order, [chat(q, a) for q, a in pairs]) == {}
    by_length = sorted(pairs, key=lambda pair: len(pair[1]))
    assert set(feed(Order, [chat(q, a) for q, a in by_length])) == {"by-length"}
    down = feed(Order, [chat(q, a) for q, a in reversed(by_length)])["by-length"]
    assert down.text.startswith("Answers grow shorter")
    middle = by_length[1_000:2_000] + by_length[:1_000] + by_length[2_000:] + by_length[1_000:2_000]
    assert "in-blocks" in feed(Order, [chat(q, a) for q, a in middle + by_length[:1_000]])


def test_false_alarms_are_rare():
    rng = random.Random(1)
    for trial in range(200):
        labels = rng.choice([2, 5, 20])
        rows = [chat("?", "x" * rng.randint(1, labels)) for _ in range(60)]
        assert feed(Order, rows) == {}, trial


def test_one_answer_for_all_has_no_order():
    assert feed(Order, [chat("?", "yes") for _ in range(200)]) == {}
