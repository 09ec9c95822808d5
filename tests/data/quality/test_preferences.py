"""Pairs that teach nothing, or the wrong thing."""

import random

import pytest
from feeding import chat, feed, gsm8k, hh_pairs, pair, score, some

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.preferences import REJECTED, Preferences

LONG = "The parcel left the depot this morning and should be with you tomorrow."


def test_what_is_wrong_with_single_pairs():
    rows = [
        pair("Where is it?", LONG, "I don't know, ask someone else about that."),
        pair("Where is it?", LONG, LONG),
        pair("Where is it, then?", LONG, LONG.upper() + " "),
        pair("Where is it now?", LONG, LONG.replace("tomorrow", "tomorow")),
        pair("Where is it today?", LONG, LONG[:30]),
        pair("Where is it?", LONG, "  "),
        pair("Please tell me where my parcel is at the moment.", "You ask: Please tell me where my parcel is at the "
             "moment. It left.", "No."),
        pair("Yes?", "Yes.", "Yes!"),
    ]  # fmt: skip
    found = feed(Preferences, rows, "dpo")
    assert {kind: (one.lines, one.severity) for kind, one in found.items()} == {
        "identical-pair": ((2,), Severity.ERROR),
        "differs-in-form": ((3,), Severity.WARNING),
        "near-equal": ((4,), Severity.WARNING),
        "cut-off-side": ((5,), Severity.WARNING),
        "empty-side": ((6,), Severity.ERROR),
        "prompt-repeated": ((7,), Severity.WARNING),
    }
    sample = found["near-equal"].samples[0]
    assert [one.path for one in sample.places] == ["preferred_output[0].content", REJECTED]
    assert "tomorow" in sample.places[1].excerpt
    assert found["identical-pair"].text == "1 pair (12 %) consists of the same answer twice."


def test_japanese_pairs():
    text = "荷物は今朝倉庫を出ましたので、明日には届く見込みです。お待ちください。ご不明な点はお知らせください。"
    rows = [
        pair("荷物は？", text, text),
        pair("荷物は今？", text, text.replace("明日", "明後日")),
        pair("荷物？", text, "知りません。"),
    ]
    assert {kind: one.lines for kind, one in feed(Preferences, rows, "dpo").items()} == {
        "identical-pair": (1,),
        "near-equal": (2,),
    }


def test_the_same_pair_preferred_both_ways():
    rows = [pair("A or B?", "Take A, it is cheap.", "Take B, it lasts."), pair("C?", "Yes, C it is.", "No, never C.")]
    rows += [
        pair("A or B?", "Take B, it lasts.", "Take A, it is cheap."),
        rows[1],
        pair("Other?", "No, never C.", "Yes, C it is."),
    ]
    found = feed(Preferences, rows, "dpo")
    assert set(found) == {"contradictory"}
    contradictory = found["contradictory"]
    assert (contradictory.lines, contradictory.severity, contradictory.count) == ((1, 3), Severity.ERROR, 2)
    assert [one.line for one in contradictory.samples[0].places] == [1, 3]


@pytest.mark.parametrize(("longer", "spoken"), [(0.5, False), (0.65, False), (0.9, True), (0.1, True)])
def test_length_bias_is_a_matter_of_most_pairs(longer, spoken):
    rng = random.Random(0)
    rows = []
    for i in range(400):
        sides = [f"{i} " + "word " * rng.randint(20, 30), f"{i} " + "other " * rng.randint(5, 12)]
        rows.append(pair(f"Question {i}?", *(sides if i < longer * 400 else sides[::-1])))
    found = feed(Preferences, rows, "dpo")
    assert ("length-bias" in found) is spoken
    if spoken:
        assert found["length-bias"].data["share"] == 0.9
        assert ("longer" if longer > 0.5 else "shorter") in found["length-bias"].text
        low, high = found["length-bias"].data["interval"]
        assert low < found["length-bias"].data["ratio"] < high


def test_the_ratio_is_the_geometric_mean():
    """By hand: thirty pairs of 40 against 10 characters, and ten of 10 against 40: log ratio (30 - 10) / 40 * log 4."""
    rows = [pair(f"{i}?", "a" * 40, "b" * 10) if i < 30 else pair(f"{i}?", "a" * 10, "b" * 40) for i in range(40)]
    assert feed(Preferences, rows, "dpo")["length-bias"].data["ratio"] == pytest.approx(2.0)


def test_pairs_of_a_refusal_and_an_answer():
    rows = [
        pair(f"Question {i}?", f"The answer to that is number {i}.", f"I would say that is number {i + 1}.")
        for i in range(95)
    ]
    rows += [
        pair(f"May I {i}?", "I'm sorry, but I can't help you with that.", f"Of course, here is way {i}.")
        for i in range(4)
    ]
    rows += [pair("May I, then?", "Of course, here is a way.", "I'm sorry, but I can't help you with that.")]
    found = feed(Preferences, rows, "dpo")["one-sided-refusals"]
    assert found.text == "In 5 pairs (5.0 %) one answer alone refuses: the preferred one in 4, the other in 1."
    assert (found.lines, found.severity) == ((96, 97, 98, 99, 100), Severity.INFO)
    assert feed(Preferences, rows[:95], "dpo") == {}


def test_few_pairs_show_no_bias():
    assert feed(Preferences, [pair(f"{i}?", "a" * 40, "b" * 10) for i in range(20)], "dpo") == {}


def test_other_formats_are_not_spoken_of():
    assert feed(Preferences, [chat("Hi", "Hello.")] * 40) == {}


def test_injected_faults_in_real_answers_are_found():
    pairs = gsm8k()
    rng = random.Random(1)
    rows = [pair(q, a, pairs[(i * 7 + 1) % len(pairs)][1]) for i, (q, a) in enumerate(pairs[:3_000])]
    picked = some(120, len(rows))
    for n, i in enumerate(picked):
        q, a = pairs[i]
        at = rng.randint(20, len(a) - 12) if len(a) > 60 else 20
        rows[i] = (pair(q, a, a), pair(q, a, a[:at] + a[at + 1 :]), pair(q, a, a[: len(a) // 2]),
                   pair(q, pairs[(i * 7 + 1) % len(pairs)][1], a))[n % 4]  # fmt: skip
    rows += [pair(pairs[i][0], pairs[i][1], pairs[(i * 7 + 1) % len(pairs)][1]) for i in picked[3::4]]
    found = feed(Preferences, rows, "dpo")
    for n, kind in enumerate(("identical-pair", "near-equal", "cut-off-side", "contradictory")):
        true = {i + 1 for i in picked[n::4]} | (set(range(3_001, 3_031)) if n == 3 else set())
        precision, recall = score(set(found[kind].lines), true)
        print(kind, precision, recall)
        assert precision >= 0.95
        assert recall >= 0.95
    assert len(found) == 4


def test_real_pairs():
    rows = [
        {"input": {"messages": turns}, "preferred_output": [{"role": "assistant", "content": chosen}],
         "non_preferred_output": [{"role": "assistant", "content": rejected}]}
        for turns, chosen, rejected in hh_pairs()
    ]  # fmt: skip
    found = feed(Preferences, rows, "dpo")
    for kind, one in found.items():
        print(kind, one.text, [[p.excerpt[:70] for p in s.places] for s in one.samples[:2]])
    assert "length-bias" not in found
    refusals = found["one-sided-refusals"].data
    assert refusals["preferred"] > 2 * refusals["other"]  # the set is about harmlessness
