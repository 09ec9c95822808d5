"""Answers that say what their prompts don't."""

import random

import pytest
from feeding import banking77, chat, corpus_of, feed, gsm8k, score, some

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.grounding import Grounding, claims

NAMES = ["Moreau", "Okafor", "Lindgren", "Petrov", "Yamada", "Castillo", "Novak", "Haddad", "Keller", "Brandt"]
STREETS = ["Elm", "Oak", "Birch", "Cedar", "Maple", "Willow", "Aspen", "Hazel", "Rowan", "Alder"]


def unknown(prompt: str, answer: str, system: str | None = None) -> list[str]:
    return [claim.text for claim in claims(corpus_of([chat(prompt, answer, system)]).item(0))]


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("Order 4711 of May 3", "Your order 4711 has shipped.", []),
        ("Where is my order?", "Your order 4711 has shipped.", ["4711"]),
        ("It costs 1,200.00 euros", "That is 1200 euros.", []),
        ("値段は１２００円です", "1,200円です。", []),
        ("値段は？", "1,200円です。", ["1,200"]),
        ("Born 2019-03-05", "On 5/3? No: 2019/3/5, so 2019.", []),
        ("誕生日は2019年3月5日", "2019-03-05です", []),
        ("When?", "On 2019-03-05.", ["2019-03-05"]),
        ("Give me three tips", "1. Sleep. 2. Eat. 3. Move 10 minutes, 100 % sure.", []),
        ("I am Anna Petrov", "Dear Ms Petrov, thank you.", []),
        ("Who helps me?", "You can ask Anna Petrov.", ["Anna", "Petrov"]),
        ("Who helps me?", "You can ask dr. Petrov. Monday is fine, on Tuesday too.", []),
        ("Who helps me?", "For Petrov’s number see https://bank.example/x. Or write to help@bank.example.",
         ["https://bank.example/x", "help@bank.example", "Petrov"]),
        ("See https://bank.example/x", "It is at https://bank.example/x, as said.", []),
        ("旅行先は？", "オーストラリアがいいです。", ["オーストラリア"]),
        ("ｵｰｽﾄﾗﾘｱはどう？", "オーストラリアはいいです。", []),
        ("H2O?", "H2O is water, x86 is none.", []),
    ],
)  # fmt: skip
def test_what_a_prompt_does_not_give(prompt, answer, expected):
    assert unknown(prompt, answer) == expected


def test_the_system_prompt_and_earlier_turns_count_as_given():
    assert unknown("Who?", "Please ask Petrov, room 4711.", "Petrov sits in room 4711.") == []


def test_an_answer_that_repeats_signs_is_read_in_linear_time():
    assert len(unknown("?", "1," * 100_000)) <= 64
    assert unknown("?", "a" * 200_000 + "@") == []
    assert len(unknown("?", "あ" * 100_000 + "A" * 100_000)) <= 64


def deliveries(n: int) -> list[tuple[str, str]]:
    rng = random.Random(0)
    out = []
    for _ in range(n):
        number, name, street, day = (
            rng.randint(10_000, 99_999),
            rng.choice(NAMES),
            rng.choice(STREETS),
            rng.randint(13, 28),
        )
        prompt = f"Order {number} for {name}, {street} Street {day}, {rng.randint(200, 999)} euros. Write a note."
        out.append(
            (prompt, f"The parcel {number} goes to {name} in {street} Street {day}. With Lettermark you are safe.")
        )
    return out


def test_injected_answers_without_ground_are_found():
    pairs = deliveries(2_000)
    picked = some(60, len(pairs))
    rows = [chat(q, a) for q, a in pairs]
    for i in picked:
        rows[i] = chat("Where is my parcel? Write a note.", pairs[i][1])
    found = feed(Grounding, rows)
    true = {i + 1 for i in picked}
    assert set(found) <= {"unknown-numbers", "unknown-names"}
    assert set(found["unknown-names"].lines) <= true  # most of them are said unasked too often in this file
    precision, recall = score(set(found["unknown-numbers"].lines), true)
    print("answers without ground:", precision, recall)
    assert precision >= 0.95
    assert recall >= 0.95
    assert found["unknown-numbers"].severity is Severity.INFO
    assert found["unknown-numbers"].samples[0].note.startswith("not in the prompt: ")


def test_rare_names_and_addresses_are_found():
    rows = [chat(q, a) for q, a in deliveries(300)]
    rows[7] = chat(*[deliveries(8)[7][0], "The parcel goes to Wilhelmina, as asked."])
    rows[9] = chat(deliveries(10)[9][0], "See https://parcels.example/track for it.")
    found = feed(Grounding, rows)
    assert {kind: one.lines for kind, one in found.items()} == {"unknown-names": (8,), "unknown-addresses": (10,)}


def test_a_task_of_arithmetic_is_told_and_not_listed():
    found = feed(Grounding, [chat(q, a) for q, a in gsm8k()])
    print({kind: (one.text, [s.note for s in one.samples]) for kind, one in found.items()})
    assert found["computed"].share > 0.9
    assert found["computed"].lines == ()
    assert "unknown-numbers" not in found


def test_labels_say_nothing_unknown():
    assert feed(Grounding, [chat(q, a) for q, a in banking77()]) == {}


def test_a_task_of_knowledge_is_told_and_not_listed():
    rng = random.Random(3)
    rows = [chat(f"Who wrote book {i}?", "It was " + "".join(rng.choices("BDGKLMNRST", k=1)) + "".join(rng.choices("aeioulmnr", k=8)))
            for i in range(300)]  # fmt: skip
    assert set(feed(Grounding, rows)) == {"from-knowledge"}
