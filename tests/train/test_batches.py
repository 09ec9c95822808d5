"""How examples lie in a trie: by hand, and against its definition for random ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data import trie
from pegbox.data.render import Example
from pegbox.train.attention import layout
from pegbox.train.batches import alone, micro_batches
from pegbox.train.samples import Sample


def example(tokens: list[int], trained_from: int) -> Example:
    return Example(tokens, [i >= trained_from for i in range(len(tokens))])


def test_a_trie_by_hand() -> None:
    # be brief two 2 . / be brief one 1 . as the module draws it; what is predicted last is not laid out
    laid = trie.build([example([7, 8, 3, 4, 9], 2), example([7, 8, 1, 2, 9], 2)])
    assert laid.tokens.tolist() == [7, 8, 1, 2, 3, 4]
    assert laid.depths.tolist() == [0, 1, 2, 3, 2, 3]
    assert laid.ends.tolist() == [6, 6, 4, 4, 6, 6]
    assert [(n.start, n.stop, n.parent) for n in laid.nodes] == [(0, 2, -1), (2, 4, 0), (4, 6, 0)]
    # The last shared token predicts the first token of both.
    assert (laid.owners.tolist(), laid.rows.tolist(), laid.targets.tolist()) == (
        [0, 0, 0, 1, 1, 1],
        [1, 4, 5, 1, 2, 3],
        [3, 4, 9, 1, 2, 9],
    )
    assert laid.unshared == 8


def test_what_follows_the_last_trained_token_is_not_laid_out() -> None:
    laid = trie.build([Example([1, 2, 3, 4, 5], [False, True, False, True, False]), Example([9, 9], [True, False])])
    assert laid.tokens.tolist() == [1, 2, 3]
    assert laid.targets.tolist() == [2, 4]
    assert laid.owners.tolist() == [0, 0]


def test_one_text_twice_and_one_inside_another() -> None:
    laid = trie.build([example([1, 2, 3], 1), example([1, 2, 3], 1), example([1, 2], 1)])
    assert laid.tokens.tolist() == [1, 2]
    assert len(laid.nodes) == 1
    assert laid.rows.tolist() == [0, 1, 0, 1, 0]


texts = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.lists(st.booleans(), min_size=9, max_size=9)),
    min_size=1, max_size=9,
).map(lambda pairs: [Example(tokens, trained[: len(tokens)]) for tokens, trained in pairs])  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(texts)
def test_every_prediction_sees_exactly_its_own_text(examples: list[Example]) -> None:
    laid = trie.build(examples)
    ends = laid.ends
    expected = [
        (i, e.tokens[:at], e.tokens[at])
        for i, e in enumerate(examples)
        for at in range(1, len(e.tokens))
        if e.trained[at]
    ]
    found = []
    for owner, row, target in zip(laid.owners.tolist(), laid.rows.tolist(), laid.targets.tolist(), strict=True):
        seen = [j for j in range(row + 1) if row < ends[j]]
        assert [int(laid.depths[j]) for j in seen] == list(range(len(seen)))
        found.append((owner, [int(laid.tokens[j]) for j in seen], target))
    assert found == expected
    assert len(laid.tokens) == len({tuple(e.tokens[: n + 1]) for e in examples for n in range(last(e))}), (
        "each beginning once"
    )


def last(e: Example) -> int:
    return max((i for i in range(1, len(e.tokens)) if e.trained[i]), default=-1)


@settings(deadline=None, max_examples=200)
@given(texts)
def test_the_layout_of_attention_sees_the_same(examples: list[Example]) -> None:
    laid = trie.build(examples)
    ends = laid.ends
    made = layout(laid)
    starts = [node.start for node in laid.nodes]
    for node, segment in zip(laid.nodes, made.segments, strict=True):
        keys = [j for n in segment.path for j in range(starts[n], starts[n] + made.sizes[n])]
        for i in range(node.start, node.stop):
            allowed = keys[: len(keys) - (node.stop - i - 1)]  # causal: its own up to itself
            if segment.mask is not None:
                row = segment.mask[i - node.start]
                assert [k for k, m in zip(keys, row.tolist(), strict=True) if m == 0] == allowed
            assert allowed == [j for j in range(i + 1) if i < ends[j]]


@settings(deadline=None, max_examples=200)
@given(texts, st.integers(1, 30))
def test_micro_batches_hold_every_example_once_within_the_budget(examples: list[Example], budget: int) -> None:
    groups = list(trie.cut(examples, budget))
    useful = [i for i, e in enumerate(examples) if last(e) > 0]
    assert sorted(i for group in groups for i in group) == useful
    for group in groups:
        assert len(group) == 1 or len(trie.build([examples[i] for i in group]).tokens) <= budget


def test_a_batch_says_whose_its_predictions_are() -> None:
    samples = alone([example([5, 6, 7], 2), example([1, 2], 1), example([5, 6, 8], 2)])
    (batch,) = micro_batches(samples, 100)
    assert batch.samples == (1, 0, 2)
    assert [batch.samples[i] for i in batch.owners.tolist()] == [1, 0, 2]
    assert batch.targets.tolist() == [2, 7, 8]
    assert (batch.unshared, batch.tokens) == (5, 3)
    assert [b.samples for b in micro_batches(samples, 100, together=False)] == [(1,), (0,), (2,)]


def test_the_answers_of_a_pair_stay_together() -> None:
    pairs = [
        Sample(0, (example([5, 6, 7, 1], 2), example([5, 6, 8, 1], 2))),
        Sample(1, (example([1, 2, 3], 1), example([1, 4, 3], 1))),
    ]
    for together, packs in ((True, 1), (False, 2)):
        batches = micro_batches(pairs, 1, together=together)
        assert [b.samples for b in batches] == [(1,), (0,)]
        assert [len(b.packs) for b in batches] == [packs, packs]
        assert batches[1].targets.tolist() == [7, 1, 8, 1]
        assert batches[1].owners.tolist() == [0, 0, 1, 1]
    (both,) = micro_batches(pairs, 100)
    assert both.samples == (1, 0)
    assert both.examples == 4


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_an_example_longer_than_the_budget_stands_alone(budget: int) -> None:
    assert len(micro_batches(alone([example([1, 2, 4, 9], 1), example([1, 2, 5, 9], 1)]), budget)) == 2
