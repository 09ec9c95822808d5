import random
import time

import numpy as np
import pytest
from feeding import banking77, chat, corpus_of, gsm8k
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.quality import near
from pegbox.data.quality.base import Context, Deadline
from pegbox.data.quality.forest import Pairs, Search, Table, merge, pairs
from pegbox.data.quality.groups import joined
from pegbox.data.quality.shingles import jaccard, likeness, minima, passages, shingles, signatures
from pegbox.data.quality.text import normalise
from pegbox.data.quality.wording import common_words, difference, numbers

# --- texts as sets of runs -----------------------------------------------------------------------------------


def _runs_by_hand(text: str, dense: bool = False) -> set[str]:
    letters = "".join(c for c in text if c.isalnum())
    width = 3 if dense else 5
    return {letters[i : i + width] for i in range(len(letters))}


@pytest.mark.parametrize(
    ("one", "other", "dense"),
    [
        ("the cat sat on the mat", "the cat sat on a mat", False),
        ("where is my card?", "where is my new card", False),
        ("aaaaaaaa", "aaaa", False),
        ("返品はできますか", "返品できますか。", True),
        ("カードが届きません", "カードがまだ届きません", True),
    ],
)
def test_jaccard_is_that_of_the_runs_written_out(one: str, other: str, dense: bool) -> None:
    ours, theirs = _runs_by_hand(one, dense), _runs_by_hand(other, dense)
    assert jaccard(shingles(one), shingles(other)) == len(ours & theirs) / len(ours | theirs)


def test_punctuation_and_spaces_count_for_nothing_but_signs_do() -> None:
    assert jaccard(shingles("well, then: go!"), shingles("well then go")) == 1
    assert jaccard(shingles("3 + 5"), shingles("3 × 5")) < 1
    assert len(shingles("?!… 。")) == 0


def test_a_block_of_texts_is_hashed_as_each_alone() -> None:
    texts = ["", "one", "カードが届きません", "?", "a longer text, for a change", "ไทยแลนด์", "x"]
    together = minima(texts)
    for i, text in enumerate(texts):
        assert np.array_equal(together[i], minima([text])[0]), text


def test_a_union_has_the_lesser_minima() -> None:
    one, other = minima(["the first of two"])[0], minima(["and another"])[0]
    both = set(shingles("the first of two").tolist()) | set(shingles("and another").tolist())
    agree = likeness(
        signatures(np.minimum(one, other)[None]), signatures(minima(["the first of two"]) * 1)
    )  # the first is part of the union
    share = len(shingles("the first of two")) / len(both)
    assert abs(float(agree[0]) - share) < 0.2


def test_signatures_estimate_jaccard_without_bias() -> None:
    draw = random.Random(4)
    words = [f"{draw.choice('bdfgklmnprst')}{draw.choice('aeiou')}{draw.choice('lmnrst')}" for _ in range(300)]
    errors = []
    for _ in range(400):
        text = [draw.choice(words) for _ in range(30)]
        other = [word if draw.random() < 0.85 else draw.choice(words) for word in text]
        one, two = " ".join(text), " ".join(other)
        signs = signatures(minima([one, two]))
        errors.append(float(likeness(signs[:1], signs[1:])[0]) - jaccard(shingles(one), shingles(two)))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05  # the theory's 0.044 at most


def test_passages_are_the_same_wherever_they_stand() -> None:
    draw = random.Random(0)
    text = "".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(3_000))
    inside = passages(text[500:2_500])
    assert len(inside) > 60
    assert set(inside.tolist()) <= set(passages(text).tolist())
    assert len(passages("too short to hold one")) == 0


# --- sorted neighbours ---------------------------------------------------------------------------------------


def test_neighbours_are_those_of_comparing_all_with_all() -> None:
    texts = sorted({normalise(text) for text, _ in banking77()})[::4]
    table = Table(128)
    table.extend(signatures(minima(texts)))
    rows = np.arange(len(texts))
    signs = table.take(rows)

    def compare(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return likeness(table.take(one), table.take(other))

    found = pairs(table, rows, compare, Search(16, 8, 0.6), Deadline())
    got = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    true = set()
    for i in range(len(texts) - 1):
        alike = likeness(np.broadcast_to(signs[i], signs[i + 1 :].shape), signs[i + 1 :])
        true |= {(i, i + 1 + int(j)) for j in np.flatnonzero(alike >= 0.6)}
    assert got <= true
    assert len(got) / len(true) > 0.98
    assert whole_order(found)


def whole_order(found: Pairs) -> bool:
    order = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    return order == sorted(set(order)) and all(one < other for one, other in order)


def test_too_many_pairs_keep_the_most_alike() -> None:
    def of(*triples: tuple[int, int, float]) -> Pairs:
        one, other, like = zip(*triples, strict=True)
        return Pairs(np.array(one), np.array(other), np.array(like, dtype=np.float32))

    kept = merge(of((0, 1, 0.9), (2, 3, 0.5)), of((0, 1, 0.9), (1, 2, 0.7)), room=2)
    assert list(zip(kept.first.tolist(), kept.second.tolist(), strict=True)) == [(0, 1), (1, 2)]
    assert not kept.whole
    assert merge(of((0, 1, 0.9)), of((0, 1, 0.9))).whole


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=40))
def test_groups_are_the_connected_parts(n: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % n, b % n) for a, b in edges]
    label = list(range(n))
    for _ in range(n):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    one, other = (np.array([edge[i] for edge in edges], dtype=np.int64) for i in (0, 1))
    assert joined(n, [(one, other)]).tolist() == label


# --- what is nearly the same ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("how do i change the pin of my new bank card?", "how do i change the pin of my old bank card?"),
        ("how do i change the pin of my new bank card?", "how do i chnage the pin of my new bank card"),
        ("where is my card", "where is my card?!"),
        (
            "料金の支払い方法を変更したいのですが、どうすればいいですか。",
            "料金の支払い方法を変更したいんですが、どうすればいいですか",
        ),
    ],
)
def test_nearly_the_same(one: str, other: str) -> None:
    assert near.is_near(one, other) >= 0.85


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("where is my card?", "where is my refund?"),
        ("how do i activate my card?", "how do i cancel my account?"),
        ("返品はできますか。", "交換はできますか、それとも修理ですか。"),
        ("a" * 400, "b" * 400),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert near.is_near(one, other) == 0


def test_a_shared_system_prompt_makes_nothing_alike() -> None:
    told = "You are a helpful assistant of a bank, and you answer in one word. " * 20
    corpus = corpus_of([chat("where is my card?", "transit", told), chat("do you take cheques?", "no", told)])
    assert len(near.prompt_pairs(corpus)) == 0
    assert len(near.talk_pairs(corpus)) == 0


def test_pairs_are_found_once_and_kept() -> None:
    corpus = corpus_of(
        [chat("how long does a transfer take?", "two days"), chat("How long do transfers take?", "a day")]
    )
    found = near.prompt_pairs(corpus)
    assert (found.first.tolist(), found.second.tolist()) == ([0], [1])
    assert near.prompt_pairs(corpus) is found


def test_problems_that_differ_in_their_numbers_are_no_pair() -> None:
    asked = "Tom has {} apples and buys {} more at the market on Sunday. How many apples does Tom have now?"
    told = "He has {0} + {1} = {2} apples.\n#### {2}"
    rows = [chat(asked.format(a, b), told.format(a, b, a + b)) for a, b in ((3, 4), (5, 8), (20, 17))]
    corpus = corpus_of(rows)
    assert len(near.prompt_pairs(corpus)) == 0
    assert len(near.talk_pairs(corpus)) == 0
    same = corpus_of([chat(asked.format(3, 4), told.format(3, 4, 7)), chat(asked.format(4, 3), told.format(4, 3, 7))])
    assert len(near.talk_pairs(same)) == 1  # they come to the same


def test_no_time_is_said() -> None:
    context = Context(deadline=Deadline(time.monotonic() - 1))
    corpus = corpus_of([chat(f"question number {i}", "yes") for i in range(50)], context=context)
    assert not near.talk_pairs(corpus).whole


def test_no_two_of_gsm8ks_problems_are_called_the_same() -> None:
    rows = [chat(question, answer) for question, answer in gsm8k()[:2_000]]
    assert len(near.talk_pairs(corpus_of(rows))) == 0


# --- how wordings differ -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,200 or 1200.0 or 1200", ("1200", "1200", "1200")),
        ("on 3/4 at 10:30.", ("10:30", "3/4")),
        ("it is -5 degrees, 3-5 days", ("-", "3", "5", "5")),
        ("三個で五百円", ("三", "五百")),
        ("none here", ()),
    ],
)
def test_numbers(text: str, found: tuple[str, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Has my top up gone through?", "has my top-up gone through"),
        ("There is a payment I don't recognize", "There is a payment I don't recognise!"),
        ("How do I recieve my card?", "How do I receive my card?"),
        ("My card payment didn't work", "The card payment didn't work"),
        ("order a card", "ordering a card, please"),
        ("配送先を変えたいです。", "すみません、配送先を変えたいのですが"),
    ],
)
def test_nothing_that_matters_differs(one: str, other: str) -> None:
    assert difference(one, other).cost() == 0


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("Can I use it?", "Can't I use it?", "negation"),
        ("I want to transfer money", "I cant transfer money", "negation"),
        ("予約を変更できますか", "予約を変更できないのですか", "negation"),
        ("two cards please", "three cards please", "numbers"),
        ("it costs 5 euros", "it costs 6 euros", "numbers"),
        ("How do I verify my identity?", "Why do I verify my identity?", "question"),
        ("how long does a transfer take", "how long does a US transfer take", "names"),
        ("a trip from here to Paris", "a trip from here to Rome", "names"),
        ("ロンドンに送れますか", "パリに送れますか", "names"),
    ],
)
def test_what_differs_changes_the_meaning(one: str, other: str, what: str) -> None:
    found = difference(one, other)
    assert getattr(found, what)
    assert found.cost() >= 2


def test_one_thing_for_another_is_another_question() -> None:
    assert difference("how do I activate my card?", "how do I cancel my card?").cost() >= 2
    assert difference("when will my card come?", "when will my new card come?").cost() == 1


def test_common_words() -> None:
    assert common_words("the cat sat", "the cat ran") == pytest.approx(2 / 3)
    assert common_words("", "x") == 0
    assert common_words("返品できます", "返品できます。") == 1
    assert common_words("それは午前中だけの取り扱いです", "営業は夜七時までです") < 0.2
