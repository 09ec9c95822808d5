"""Labels that are rare, that rule, or that are written in several ways."""

import random

from feeding import banking77, chat, feed, gsm8k, score, some

from pegbox.data.quality.balance import Balance
from pegbox.data.quality.codes import Severity


def labelled(counts: dict[str, int], seed: int = 0) -> list[dict[str, object]]:
    answers = [label for label, n in counts.items() for _ in range(n)]
    random.Random(seed).shuffle(answers)
    return [chat(f"Which kind is message {i}?", answer) for i, answer in enumerate(answers)]


def test_rare_labels_are_named_with_their_lines():
    rows = labelled({"refund": 100, "delivery": 90, "greeting": 9, "complaint": 2})
    found = feed(Balance, rows)
    assert set(found) == {"rare-answers"}
    rare = found["rare-answers"]
    answers = [row["messages"][-1]["content"] for row in rows]
    assert rare.lines == tuple(i + 1 for i, a in enumerate(answers) if a in ("greeting", "complaint"))
    assert rare.count == 11
    assert rare.share == 11 / 201
    assert rare.text == "2 of 4 labels have fewer than 10 rows: “complaint” (2), “greeting” (9)."
    assert rare.data["histogram"] == {"refund": 100, "delivery": 90, "greeting": 9, "complaint": 2}


def test_one_label_rules_beyond_what_the_number_of_labels_allows():
    """Of two, 75 % is the line; of four, 62.5 %."""
    assert feed(Balance, labelled({"yes": 74, "no": 26})) == {}
    assert feed(Balance, labelled({"yes": 76, "no": 24}))["dominant-answer"].threshold == 0.75
    assert feed(Balance, labelled({"a": 62, "b": 13, "c": 13, "d": 12})) == {}
    dominant = feed(Balance, labelled({"a": 64, "b": 12, "c": 12, "d": 12}))["dominant-answer"]
    assert (dominant.count, dominant.severity) == (64, Severity.WARNING)
    assert "one-answer" in feed(Balance, labelled({"yes": 200}))


def test_the_same_label_written_in_several_ways():
    rows = labelled({
        "card_arrival": 80, "card arrival": 3, "Card_arrival": 2, "card_arrival.": 1, " card_arrival": 1,
        "top_up_limits": 60, "top_up_limit": 2, "top_up_limtis": 1, "level_1": 50, "level_2": 3,
        "振込の遅れ": 40, "振込のおくれ": 12, "カード到着": 30, "ｶｰﾄﾞ到着": 2,
    })  # fmt: skip
    variants = feed(Balance, rows)["label-variants"]
    pairs = {(v["written"], v["meant"]) for v in variants.data["variants"]}
    assert pairs == {
        ("card arrival", "card_arrival"), ("Card_arrival", "card_arrival"), ("card_arrival.", "card_arrival"),
        ("card_arrival", "card_arrival"),  # the leading space; excerpts have none
        ("top_up_limit", "top_up_limits"), ("top_up_limtis", "top_up_limits"), ("ｶｰﾄﾞ到着", "カード到着"),
    }  # fmt: skip
    assert variants.count == 12
    assert variants.severity is Severity.WARNING


def test_variants_do_not_count_as_rare_labels():
    found = feed(Balance, labelled({"card_arrival": 80, "card arrival": 3, "lost_card": 60, "top_up": 4}))
    assert found["rare-answers"].data["rare"] == {"top_up": 4}
    assert found["label-variants"].count == 3


def test_labels_one_letter_apart_that_are_both_frequent_are_two_labels():
    assert feed(Balance, labelled({"supported": 50, "supporter": 40})) == {}
    assert feed(Balance, labelled({"agree": 50, "agreed": 30, "class 1": 30, "class 2": 30})) == {}
    assert (
        feed(
            Balance, labelled({"C": 50, "C++": 30, "C#": 30, "A-": 20, "A": 30, "-1": 20, "1": 30, "1.5": 20, "15": 20})
        )
        == {}
    )


def test_answers_that_are_no_labels_are_not_spoken_of():
    assert feed(Balance, [chat(q, a) for q, a in gsm8k()[:2_000]]) == {}
    rng = random.Random(0)
    assert feed(Balance, [chat("2 + 2?", str(rng.randint(0, 90))) for _ in range(3_000)]) == {}
    assert feed(Balance, [chat("Hi", f"Hello, number {i}.") for i in range(300)]) == {}
    assert feed(Balance, [chat("Hi", "yes") for _ in range(5)]) == {}


def test_injected_misspellings_in_real_labels_are_found():
    pairs = banking77()
    clean = feed(Balance, [chat(q, a) for q, a in pairs])
    assert "label-variants" not in clean
    rng = random.Random(7)
    picked = some(100, len(pairs))
    rows = [chat(q, a) for q, a in pairs]
    for n, i in enumerate(picked):
        label = pairs[i][1]
        at = rng.randint(1, len(label) - 2)
        wrong = (label.replace("_", " "), label.title(), label + ".", label[:at] + label[at + 1 :])[n % 4]
        rows[i] = chat(pairs[i][0], wrong if wrong != label else label + " ")
    precision, recall = score(set(feed(Balance, rows)["label-variants"].lines), {i + 1 for i in picked})
    print("misspelt labels:", precision, recall)
    assert precision == 1.0
    assert recall >= 0.95


def test_rare_classes_of_real_labels():
    found = feed(Balance, [chat(q, a) for q, a in banking77()])
    print({kind: one.text for kind, one in found.items()})
    assert set(found) <= {"rare-answers"}
