"""Turns of unusual length, and answers that were cut off."""

import random

import pytest
from feeding import banking77, chat, feed, gsm8k, hh_pairs, score, some

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.endings import Endings
from pegbox.data.quality.lengths import Lengths

NOUNS = ["river", "market", "teacher", "window", "garden", "letter", "bridge", "summer", "doctor", "island"]
VERBS = ["crosses", "remembers", "paints", "repairs", "forgets"]


def sentence(rng: random.Random) -> str:
    return f"The {rng.choice(NOUNS)} {rng.choice(VERBS)} a {rng.choice(NOUNS)} and a {rng.choice(NOUNS)}"


def essays(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [". ".join(sentence(rng) for _ in range(rng.randint(2, 6))) + "." for _ in range(n)]


def japanese(n: int) -> list[str]:
    rng = random.Random(1)
    parts = [
        "今日は天気がいいです",
        "明日は友だちと海へ行きます",
        "昨日の会議は長かったです",
        "駅前の店で本を買いました",
    ]
    return ["。".join(rng.sample(parts, rng.randint(2, 4))) + f"。{i}番目の話です。" for i in range(n)]


# --- lengths -------------------------------------------------------------------------------------------------


def test_much_longer_and_much_shorter_turns_are_listed_by_role():
    rows = [chat(f"What is number {i}?", text) for i, text in enumerate(essays(200))]
    rows[20] = chat("What is this? " + "x" * 5_000, essays(1)[0])
    rows[30] = chat("What is number 30?", "y" * 40_000)
    rows[40] = chat("What is number 40?", "No.")
    found = feed(Lengths, rows)
    assert {kind: one.lines for kind, one in found.items()} == {
        "long-user": (21,), "long-assistant": (31,), "short-assistant": (41,),
    }  # fmt: skip
    assert found["long-assistant"].severity is Severity.INFO
    assert found["long-assistant"].samples[0].places[0].path == "messages[1].content"
    assert found["long-user"].text.startswith("In 1 row (0.5 %) a user turn is far longer than its like: 5,014")


def test_the_figure_is_the_robust_z():
    """By hand: of 31 lengths ten are 100 and twenty 400. The median is log 400 and the MAD is 0, so that the floor
    counts: z = 0.6745 * log(40000 / 400) / 0.15 = 20.7."""
    rows = [chat("q" * 10, "a" * (400 if i % 3 else 100)) for i in range(30)] + [chat("q" * 10, "a" * 40_000)]
    assert feed(Lengths, rows)["long-assistant"].data["z"] == pytest.approx(20.7, abs=0.05)


def test_near_constant_lengths_do_not_flood():
    rows = [chat("q" * 300, "a" * (100 + i % 3)) for i in range(500)] + [chat("q" * 320, "a" * 250)]
    assert feed(Lengths, rows) == {}


def test_labels_and_small_files_are_not_spoken_of():
    assert "long-assistant" not in feed(Lengths, [chat(q, a) for q, a in banking77()[:3_000]])
    assert feed(Lengths, [chat("Hi", "a" * (10 if i else 9_000)) for i in range(20)]) == {}


def test_pasted_texts_in_real_data_are_found():
    pairs = gsm8k()
    rows = [chat(q, a) for q, a in pairs]
    picked = some(40, len(rows))
    for i in picked:
        rows[i] = chat(pairs[i][0], " ".join(a for _, a in pairs[i % 100 : i % 100 + 30]))
    precision, recall = score(set(feed(Lengths, rows)["long-assistant"].lines), {i + 1 for i in picked})
    print("pasted answers:", precision, recall)
    assert precision >= 0.95
    assert recall >= 0.95


# --- cut off -------------------------------------------------------------------------------------------------


def cut(text: str, rng: random.Random) -> str:
    return text[: rng.randint(len(text) // 5, len(text) * 9 // 10)]


def injected(pairs: list[tuple[str, str]], share: float, seed: int) -> tuple[list[dict[str, object]], set[int]]:
    rng = random.Random(seed)
    picked = set(some(round(share * len(pairs)), len(pairs), seed))
    rows = [chat(q, cut(a, rng) if i in picked else a) for i, (q, a) in enumerate(pairs)]
    return rows, {i + 1 for i in picked}


@pytest.mark.parametrize("share", [0.005, 0.02, 0.04, 0.1])
def test_cut_answers_of_real_data_are_found(share):
    rows, true = injected(gsm8k(), share, 3)
    found = feed(Endings, rows)["answer-cut-off"]
    precision, recall = score(set(found.lines), true)
    print(f"gsm8k {share:.1%} cut: precision {precision:.3f}, recall {recall:.3f}; {found.text}")
    assert precision >= 0.9
    assert recall >= (0.95 if share < 0.05 else 0.85)
    assert found.severity is Severity.WARNING


@pytest.mark.parametrize("texts", [essays(1_000), japanese(1_000)], ids=["english", "japanese"])
def test_cut_prose_is_found(texts):
    rows, true = injected([(f"Tell me story {i}.", text) for i, text in enumerate(texts)], 0.03, 5)
    precision, recall = score(set(feed(Endings, rows)["answer-cut-off"].lines), true)
    print("prose:", precision, recall)
    assert precision >= 0.95
    assert recall >= 0.85  # a cut right behind a full stop can't be seen


def test_code_and_json_left_open_are_found():
    rng = random.Random(2)
    code = [f"Use this:\n```python\ndef f{i}(x):\n    return x + {i}\n```\n{sentence(rng)}." for i in range(100)]
    code[7] = "Use this:\n```python\ndef f7(x):\n    return x."
    data = [f'{{"name": "{sentence(rng)}", "tags": ["{i}", "b"]}}' for i in range(100)]
    data[9] = '{"name": "The river crosses a garden and a bridge", "tags": ["9", '
    assert feed(Endings, [chat("How?", a) for a in code])["answer-cut-off"].lines == (8,)
    assert feed(Endings, [chat("How?", a) for a in data])["answer-cut-off"].lines == (10,)


def test_files_without_the_habit_are_not_spoken_of():
    rng = random.Random(4)
    labels = [chat(q, a) for q, a in banking77()[:4_000]]
    loose = [chat("Go on", sentence(rng) + rng.choice([".", "", " -", "!"])) for _ in range(500)]
    answers = [chat("2 + 2?", str(rng.randint(1, 10_000))) for _ in range(500)]
    yes = [chat(f"Is {i} even?", "Yes, it is an even number." if i % 9 else "No") for i in range(500)]
    for rows in (labels, loose, answers, yes):
        assert feed(Endings, rows) == {}


def test_whole_real_files_are_nearly_silent():
    found = feed(Endings, [chat(q, a) for q, a in gsm8k()])
    assert sum(one.count for one in found.values()) <= 5
    rows = [{"messages": [*turns, {"role": "assistant", "content": a}]} for turns, a, _ in hh_pairs()]
    found = feed(Endings, rows)
    print(
        "hh-rlhf:", {kind: (one.text, [s.places[0].excerpt[-60:] for s in one.samples]) for kind, one in found.items()}
    )
