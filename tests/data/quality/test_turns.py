"""Turns in an odd order, or empty."""

from feeding import chat, feed, gsm8k, hh_pairs, score, some, talk

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.turns import Turns

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Kobe"}'}}


def called(*after: dict[str, object]) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": "Weather in Kobe?"},
            {"role": "assistant", "tool_calls": [CALL]},
            *after,
        ]
    }


RESULT = {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"}
SAID = {"role": "assistant", "content": "It is 21 degrees."}


def test_ordinary_talks_are_not_spoken_of():
    rows = [
        chat("Hi", "Hello."),
        chat("Hi", "Hello.", "Be brief."),
        talk("s: Be brief.", "d: Use English.", "u: Hi", "a: Hello.", "u: Bye", "a: Bye."),
        called(),
        called(RESULT, SAID),
        called(RESULT, RESULT, SAID, {"role": "user", "content": "Thanks"}, SAID),
        called(RESULT, {"role": "assistant", "tool_calls": [CALL]}, RESULT, SAID),
        {"prompt": "One", "completion": " two"},
    ]
    assert feed(Turns, rows) == {}


def test_each_oddity_is_named_with_its_line_and_turn():
    rows = [
        talk("u: Hi", "a: Hello.", "u: Bye"),
        talk("u: Hi", "u: Anyone?", "a: Hello."),
        talk("u: Hi", "a: Hello.", "a: How are you?"),
        chat("   ", "Hello."),
        chat("Hi", "Hello.", ""),
        chat("Hi", "\n \n"),
        chat("Hi", "　"),  # a full-width space
        talk("u: Hi", "s: Be brief.", "a: Hello."),
        talk("a: Welcome!", "u: Hi", "a: Hello."),
        talk("u: Hi", "t: 21 degrees", "a: Hello."),
        called({"role": "user", "content": "Well?"}, SAID),
    ]
    found = feed(Turns, rows)
    assert {kind: one.lines for kind, one in found.items()} == {
        "last-not-assistant": (1,),
        "same-role-twice": (2, 3),
        "empty-content": (4, 5),
        "empty-answer": (6, 7),
        "system-not-first": (8,),
        "starts-with-assistant": (9,),
        "result-without-call": (10,),
        "call-without-result": (11,),
    }
    assert found["empty-answer"].severity is Severity.ERROR
    assert found["starts-with-assistant"].severity is Severity.INFO
    assert [s.places[0].path for s in found["same-role-twice"].samples] == [
        "messages[1].content",
        "messages[2].content",
    ]
    assert found["same-role-twice"].text == "In 2 rows (18 %) the same role speaks twice in a row."
    assert found["same-role-twice"].share == 2 / 11


def test_a_row_counts_once_however_odd():
    found = feed(Turns, [talk("u: 1", "u: 2", "u: 3", "a: 4", "a: 5"), chat("Hi", "Hello.")])
    assert found["same-role-twice"].count == 1


def test_empty_prompts_may_be_meant():
    meant = feed(Turns, [{"prompt": "", "completion": f"Story {i}."} for i in range(10)])
    assert meant["empty-prompt"].severity is Severity.INFO
    slip = feed(Turns, [{"prompt": "Tell a story." if i else "", "completion": f"Story {i}."} for i in range(10)])
    assert slip["empty-prompt"].severity is Severity.WARNING
    assert slip["empty-prompt"].lines == (1,)
    assert slip["empty-prompt"].samples[0].places[0].path == "prompt"


def test_injected_faults_are_found_and_nothing_else():
    pairs = gsm8k()[:2_000]
    rows = [chat(q, a) for q, a in pairs]
    picked = some(60, len(rows))
    for n, i in enumerate(picked):
        q, a = pairs[i]
        rows[i] = (talk(f"u: {q}", f"a: {a}", "u: Thanks"), talk(f"u: {q}", "u: Please.", f"a: {a}"), chat(" ", a))[
            n % 3
        ]
    found = feed(Turns, rows)
    for n, kind in enumerate(("last-not-assistant", "same-role-twice", "empty-content")):
        assert score(set(found[kind].lines), {i + 1 for i in picked[n::3]}) == (1.0, 1.0)
    assert len(found) == 3


def test_real_dialogues_have_no_odd_turns():
    rows = [{"messages": [*turns, {"role": "assistant", "content": answer}]} for turns, answer, _ in hh_pairs()]
    assert len(rows) > 2_000
    assert set(feed(Turns, rows)) <= {"empty-content", "same-role-twice"}
