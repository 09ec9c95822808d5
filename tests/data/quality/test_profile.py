"""System prompts, tools, and what answers have in common."""

import random

from feeding import banking77, chat, feed, gsm8k, hh_pairs, score, some

from pegbox.data.quality.affixes import Affixes
from pegbox.data.quality.boilerplate import Boilerplate, closing, opening
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.profile import Profile

SYSTEM = "You are the help desk of a small bank. Answer in two sentences."


def asked(n: int, system: str | None = SYSTEM) -> list[dict[str, object]]:
    return [chat(f"What about case {i}?", f"Case {i} is closed.", system) for i in range(n)]


# --- system prompts ------------------------------------------------------------------------------------------


def test_one_system_prompt_for_all_is_good_to_know():
    found = feed(Profile, asked(100))
    assert set(found) == {"one-system"}
    assert found["one-system"].text == "One system prompt is used in 100 rows."
    assert found["one-system"].severity is Severity.INFO


def test_no_system_prompt_anywhere_is_not_spoken_of():
    assert feed(Profile, asked(100, None)) == {}
    assert feed(Profile, asked(100, " ")) == {}
    assert feed(Profile, [{"prompt": "a", "completion": "b"}] * 20) == {}


def test_rows_without_one_beside_rows_with_one():
    rows = asked(97) + asked(3, None)
    found = feed(Profile, rows)["some-without"]
    assert (found.lines, found.count, found.severity) == ((98, 99, 100), 3, Severity.WARNING)
    assert found.text == "3 rows (3.0 %) have no system prompt; others have one."
    found = feed(Profile, asked(1) + asked(99, None))["some-without"]
    assert (found.lines, found.text) == ((1,), "1 row (1.0 %) has a system prompt; others have none.")


def test_slips_in_the_system_prompt():
    rows = asked(95)
    rows += asked(2, SYSTEM + " ") + asked(1, SYSTEM.replace("bank", "bnak")) + asked(1, SYSTEM.lower())
    rows += asked(1, "Translate into French.")
    found = feed(Profile, rows)
    near = found["near-system"]
    assert near.lines == (96, 97, 98, 99)
    assert near.severity is Severity.WARNING
    assert near.text == "4 rows use a slightly different system prompt from the usual one of 95 rows."
    assert [len(sample.places) for sample in near.samples] == [2, 2, 2]
    assert found["several-systems"].data == {"distinct": 5, "main_share": 0.95}


def test_blanks_filled_in_are_no_slips():
    dated = [chat("Hi", f"Hello {i}.", f"{SYSTEM} Today is {2020 + i % 7}-01-{i % 28 + 1:02}.") for i in range(300)]
    assert "near-system" not in feed(Profile, dated + asked(100, SYSTEM + " Today is 2019-01-01."))
    named = [
        chat("Hi", f"Hello {i}.", f"{SYSTEM} You talk to Mr {chr(65 + i % 26)}{chr(97 + i // 26)}.") for i in range(300)
    ]
    assert "near-system" not in feed(Profile, named + asked(300, SYSTEM + " You talk to Mr Xy."))


def test_every_row_its_own():
    rows = [chat("Hi", "Hello.", f"{i} {random.Random(i).random()} You are number {i}.") for i in range(300)]
    assert feed(Profile, rows)["several-systems"].text.startswith(
        "Nearly every row has a system prompt of its own: 300"
    )


# --- tools ---------------------------------------------------------------------------------------------------


def tool(name: str, about: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "description": about, "parameters": {"type": "object"}}}


def test_tools_described_in_two_ways():
    weather, clock = tool("weather", "The weather of a city."), tool("clock", "The time.")
    rows = [row | {"tools": [weather, clock]} for row in asked(50)]
    assert set(feed(Profile, rows)) == {"one-system"}
    rows[10] = asked(1)[0] | {"tools": [clock, tool("weather", "Weather")]}
    rows[11] = asked(1)[0] | {"tools": [clock]}
    found = feed(Profile, rows)["tool-versions"]
    assert (found.lines, found.severity) == ((11,), Severity.WARNING)
    assert found.data == {"tools": {"weather": 2}}
    found = feed(Profile, rows + asked(4))["some-without-tools"]
    assert (found.lines, found.severity) == ((51, 52, 53, 54), Severity.INFO)


# --- boilerplate ---------------------------------------------------------------------------------------------


def test_openings_and_endings_are_cut_where_people_pause():
    assert opening("Sure! Here is the list of all things") == "sure!"
    assert opening("I am happy to help you with that") == "i am happy to help"
    assert opening("ご質問ありがとうございます。まず電源を切ってください。") == "ご質問ありがとう"
    assert opening("はい、できます。まず電源を切ってください。") == ""
    assert opening('{"name": "Anna"}') == ""
    assert closing("And so on. Let me know if you need anything else!") == "if you need anything else!"
    assert closing("詳しくは、お気軽にお問い合わせください。") == "問い合わせください。"
    assert closing("total = 3 + 4\n#### 7") == ""


def test_boilerplate_in_real_answers_is_found():
    pairs = gsm8k()[:2_000]
    assert feed(Boilerplate, [chat(q, a) for q, a in pairs]) == {}
    picked = set(some(600, len(pairs)))
    end = " I hope that this helps you!"
    rows = [chat(q, f"Sure! {a}{end}" if i in picked else a) for i, (q, a) in enumerate(pairs)]
    found = feed(Boilerplate, rows)
    for kind in ("same-opening", "same-ending"):
        precision, recall = score(set(found[kind].lines), {i + 1 for i in picked})
        assert precision == 1.0
        assert recall >= 0.99  # a very short answer is not looked at
        assert found[kind].severity is Severity.INFO
    assert found["same-opening"].text == "Many answers open with the same words: “sure!” (30 %)."
    assert list(found["same-ending"].data["phrases"]) == ["hope that this helps you!"]
    few = [chat(q, f"Sure! {a}" if i % 10 == 0 else a) for i, (q, a) in enumerate(pairs)]
    assert feed(Boilerplate, few) == {}


def test_boilerplate_in_japanese():
    words = ["電源", "画面", "設定", "保存", "印刷", "送信", "受信", "検索"]
    rng = random.Random(0)
    rows = [
        chat("どうすれば？", f"ご質問ありがとうございます。{''.join(rng.choices(words, k=9))}を{i}回確認してください。")
        for i in range(200)
    ]
    assert set(feed(Boilerplate, rows)) >= {"same-opening"}


def test_labels_and_short_answers_are_not_boilerplate():
    assert feed(Boilerplate, [chat(q, a) for q, a in banking77()[:3_000]]) == {}
    assert feed(Boilerplate, [chat(f"{i}?", "Sure! Fine.") for i in range(200)]) == {}
    assert (
        feed(
            Boilerplate,
            [chat("Who?", f'{{"name": "n{i}", "kind": "a long enough kind", "n": {i}}}') for i in range(99)],
        )
        == {}
    )


def test_real_dialogues():
    rows = [{"messages": [*turns, {"role": "assistant", "content": a}]} for turns, a, _ in hh_pairs()]
    print({kind: one.text for kind, one in feed(Boilerplate, rows).items()})


# --- prompt and completion -----------------------------------------------------------------------------------


def completion(prompt: str, answer: str) -> dict[str, object]:
    return {"prompt": prompt, "completion": answer}


def test_what_all_prompts_and_completions_share():
    rows = [completion(f"Summarise: text {i} ends{i % 3}\n\n###\n\n", f" Summary: it says {i}. END") for i in range(50)]
    found = feed(Affixes, rows)
    assert {kind: one.text for kind, one in found.items()} == {
        "common-prompt-prefix": "All prompts begin with “Summarise: text”.",
        "common-prompt-suffix": "All prompts end with “\\n\\n###\\n\\n”.",
        "common-completion-prefix": "All completions begin with “Summary: it says”.",
        "common-completion-suffix": "All completions end with “. END”.",
    }
    assert all(one.severity is Severity.INFO for one in found.values())


def test_spaces_between_prompt_and_completion():
    rows = [completion(f"{i} questions of {'abc'[i % 3]}", f" {i} it is, of {'def'[i % 3]}") for i in range(50)]
    assert feed(Affixes, rows) == {}
    rows[3] = completion("3 questions of a", "it is 3")
    rows[4] = completion("4 questions of b ", "4 it is")
    found = feed(Affixes, rows)
    assert found["no-leading-space"].lines == (4,)
    assert (
        found["no-leading-space"].text
        == ("1 completion (2.0 %) begins right behind the prompt, without a space, 48 others do.")
        or found["no-leading-space"].text
    )
    assert found["trailing-space"].lines == (5,)


def test_capitals_and_east_asian_rows():
    loud = [completion(f"{i} QUESTIONS, {'ABC'[i % 3]}", f" {i} IS IT, {'DEF'[i % 3]}") for i in range(20)]
    assert set(feed(Affixes, loud)) == {"upper-case-prompts", "upper-case-completions"}
    assert (
        feed(Affixes, [completion(f"{i}番の質問{'あいう'[i % 3]}", f"{'かきく'[i % 3]}{i}です{i}") for i in range(20)])
        == {}
    )


def test_chat_rows_are_none_of_its_business():
    assert feed(Affixes, asked(50)) == {}
