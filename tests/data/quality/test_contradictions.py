import random
import time

import pytest
from feeding import banking77, chat, corpus_of, feed, gsm8k, pair, score, some, talk

from pegbox.data.quality.answers import Verdict, compare, final, polarity
from pegbox.data.quality.base import Context, Deadline
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.contradictions import Contradictions
from pegbox.data.quality.findings import Finding
from pegbox.data.quality.near import prompt_pairs
from pegbox.data.quality.suspects import suspects

SAME, DIFFERENT, CONFLICT = Verdict.SAME, Verdict.DIFFERENT, Verdict.CONFLICT


# --- two answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("Yes.", "yes", SAME),
        ("refund", "card_arrival", CONFLICT),
        ("Yes", "No", CONFLICT),
        ("はい", "いいえ", CONFLICT),
        ("3 + 4 = 7\n#### 7", "First 3, then 4 more.\n#### 7.0", SAME),
        ("3 + 4 = 7\n#### 7", "3 + 4 = 8\n#### 8", CONFLICT),
        ("1,000 in all\n#### 1,000", "a thousand\n#### 1000", SAME),
        ("The sum is found in two steps, so the answer is 12.", "After all of these steps we see: the answer is 13.", CONFLICT),
        ("Yes, you can send it back to us within the month.", "No, things that were opened can't be sent back to us.", CONFLICT),
        ("はい、未開封の商品でしたら三十日以内に返品していただけます。", "いいえ、当店ではそのような対応は一切行っておりません。", CONFLICT),
        ("The parcel arrives within 3 working days of the order.", "The parcel arrives within 9 working days of the order.", CONFLICT),
        ("You can return opened strings to any of our shops.", "You can not return opened strings to any of our shops.", CONFLICT),
        ("Roses climb along the old wall, and nobody has cut them for years.",
         "My grandmother kept bees behind a shed that smelled of smoke and honey.", DIFFERENT),
        ("The parcel arrives within three days after you have ordered.", "The parcel arrives three days after you ordered it.", SAME),
        ("それは午前中だけの取り扱いで、料金は九千円です。", "実物を拝見してからの査定で、代金は当日にお渡しします。", DIFFERENT),
        ("営業時間は午前十時から午後七時までとなっております。", "営業時間は午前九時から午後七時までとなっております。", CONFLICT),
    ],
)  # fmt: skip
def test_two_answers(one: str, other: str, verdict: Verdict) -> None:
    assert compare(one, other) is verdict
    assert compare(other, one) is verdict


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("so much\n#### 1,234", "1234"),
        ("The answer is: blue.", "blue"),
        ("答えは12です。", "12"),
        ("no result here", ""),
    ],
)
def test_final(answer: str, told: str) -> None:
    assert final(answer) == told


def test_polarity() -> None:
    said = ("Yes, of course", "No.", "Notes are fine", "はい、そうです", "いいえ。", "Nein, danke", "")
    assert [polarity(answer) for answer in said] == [1, -1, 0, 1, -1, -1, 0]


# --- Q09 -----------------------------------------------------------------------------------------------------


def test_the_ceiling_by_hand() -> None:
    """Ten writers, seven of whom agree, and ten rows without dispute: 17 of 20."""
    rows = [chat("Is a whale a fish?", "no")] * 7 + [chat("is a whale a fish?", "Yes.")] * 3
    rows += [chat(f"What comes after {word}?", "nothing") for word in "abcdefghij"]
    found = feed(Contradictions, rows)["conflict"]
    assert (found.code, found.count, found.share, found.severity) == ("Q09", 10, 0.5, Severity.WARNING)
    assert found.lines == tuple(range(1, 11))
    assert found.data["ceiling_accuracy"] == 0.85
    assert found.data["groups"] == 1
    assert found.data["entropy"] == pytest.approx(0.5 * 0.8813, abs=1e-3)  # H(0.7) bits, on half of the rows
    assert "1 prompt (10 rows, 50 % of the file) has answers that contradict one another" in found.text
    assert [place.line for place in found.samples[0].places] == [1, 8]
    assert "whale" in found.samples[0].places[0].excerpt


def test_a_low_ceiling_is_an_error() -> None:
    rows = [chat("Is a whale a fish?", "no")] * 2 + [chat("Is a whale a fish?", "yes")] * 2
    found = feed(Contradictions, rows)["conflict"]
    assert found.data["ceiling_accuracy"] == 0.5
    assert found.severity is Severity.ERROR


def test_another_system_is_another_prompt() -> None:
    rows = [talk("s: Be brief.", "u: Is it open?", "a: Yes."), talk("s: Deny all.", "u: Is it open?", "a: No.")]
    assert feed(Contradictions, rows) == {}


def test_the_same_in_other_words_is_no_contradiction() -> None:
    rows = [chat("When does it come?", "The parcel arrives within three days after you have ordered."),
            chat("When does it come?", "The parcel arrives three days after you ordered it."),
            chat("And now?", "Yes."), chat("And now?", "yes")]  # fmt: skip
    assert feed(Contradictions, rows) == {}


def test_two_stories_are_told_apart_from_a_conflict() -> None:
    one = "Roses climb along the old wall, and nobody has cut them for years."
    other = "My grandmother kept bees behind a shed that smelled of smoke and honey."
    found = feed(Contradictions, [chat("Tell me a story.", one), chat("Tell me a story.", other)])
    assert set(found) == {"different-answers"}
    assert found["different-answers"].severity is Severity.INFO
    assert "ceiling_accuracy" not in found["different-answers"].data


def test_preferences_and_text_without_a_prompt_are_left_alone() -> None:
    assert feed(Contradictions, [pair("Who?", "me", "you"), pair("Who?", "you", "me")], method="dpo") == {}
    plain = [{"prompt": "", "completion": "one"}, {"prompt": "", "completion": "two"}]
    assert feed(Contradictions, plain) == {}


def test_no_time_is_said() -> None:
    rows = [chat(f"Is {i} odd?", answer) for i in range(5) for answer in ("yes", "no")]
    context = Context(deadline=Deadline(time.monotonic() - 1))
    corpus = corpus_of(rows, context=context)
    for found in Contradictions(context).found(corpus):
        assert "not all pairs were compared" in found.text


# --- Q10 -----------------------------------------------------------------------------------------------------


def test_a_comma_does_not_change_the_answer() -> None:
    rows = [chat("Has my top up gone through?", "pending"), chat("Has my top-up gone through", "reverted"),
            chat("What is the weather like over there?", "pending")]  # fmt: skip
    found = feed(Contradictions, rows)["near-conflict"]
    assert (found.code, found.count, found.lines, found.severity) == ("Q10", 2, (1, 2), Severity.INFO)
    assert found.data["ceiling_accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert found.data["lines_by_suspicion"] == [[1, 2]]
    assert len(found.samples[0].places) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Can I pay by card in your shop?", "Can't I pay by card in your shop?"),
        ("What do 5 of these cards cost me?", "What do 6 of these cards cost me?"),
        ("How long does a transfer take to Paris?", "How long does a transfer take to Rome?"),
        ("Why should I verify my identity?", "How should I verify my identity?"),
        ("この商品は返品できますか。", "この商品は返品できませんでしたか。"),
    ],
)
def test_what_changes_the_question_may_change_the_answer(one: str, other: str) -> None:
    assert feed(Contradictions, [chat(one, "yes"), chat(other, "no")]) == {}


def test_pairs_with_another_system_are_none() -> None:
    assert feed(Contradictions, [chat("Is it done?", "yes", "Be kind."), chat("Is it done", "no", "Be harsh.")]) == {}


def test_votes_name_the_likely_wrong_row() -> None:
    """Four ways to ask for one thing, three of them answered alike."""
    asked = (
        "My card payment did not work",
        "My card payments did not work",
        "My card payment did not work!!",
        "The card payment did not work",
    )
    rows = [
        chat(text, answer) for text, answer in zip(asked, ("declined", "declined", "declined", "lost"), strict=True)
    ]
    found = suspects(corpus_of(rows))
    assert found.pairs
    assert {one.likely_wrong for one in found.pairs if one.votes > 0} == {3}


def test_prompt_pairs_serve_other_checks() -> None:
    rows = [
        chat("How do I make soap at home?", "I can't help with that."),
        chat("How do I make soap at home", "Mix lye and fat."),
    ]
    found = prompt_pairs(corpus_of([*rows, chat("How can I make soap at home?", "Mix lye and fat.")]))
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) >= {(0, 2)}


# --- injected into real data ---------------------------------------------------------------------------------


def _told(found: dict[str, Finding], code: str) -> set[int]:
    return {line for one in found.values() if one.code == code for line in one.lines}


def _labels(n: int) -> tuple[list[dict[str, object]], list[str]]:
    rows = banking77()[:: max(1, 10_003 // n)]
    return [chat(asked, said, "Name the intent.") for asked, said in rows], sorted({said for _, said in rows})


def _reworded(text: str, draw: random.Random) -> str:
    ways = [
        text.rstrip("?.! ") + "!!",
        "Hi, " + text,
        text.replace("'", ""),
        text.upper(),
        text.replace(" the ", " ", 1),
    ]
    return draw.choice([way for way in ways if way != text])


def test_flipped_labels_in_banking77() -> None:
    rows, labels = _labels(3_400)
    draw = random.Random(5)
    before = feed(Contradictions, rows)
    known, near_known = _told(before, "Q09"), _told(before, "Q10")
    chosen = [i for i in some(300, len(rows), seed=1) if i + 1 not in known | near_known]
    exact, near = chosen[:120], chosen[120:240]

    def flipped(i: int, asked: str) -> dict[str, object]:
        said = rows[i]["messages"][2]["content"]
        return chat(asked, draw.choice([label for label in labels if label != said]), "Name the intent.")

    texts = {i: rows[i]["messages"][1]["content"] for i in chosen}
    added = [flipped(i, texts[i]) for i in exact] + [flipped(i, _reworded(texts[i], draw)) for i in near]
    found = feed(Contradictions, rows + added)
    end = len(rows)
    same = {i + 1 for i in exact} | {end + 1 + k for k in range(len(exact))}
    alike = {i + 1 for i in near} | {end + 1 + len(exact) + k for k in range(len(near))}
    precision, _ = score(_told(found, "Q09") - known, same | alike)  # upper case alone is the same prompt
    recall = score(_told(found, "Q09"), same)[1]
    print(f"Q09: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9
    assert recall >= 0.95
    told = _told(found, "Q10") | _told(found, "Q09")
    precision, recall = score((told - near_known - known) - same, alike)
    print(f"Q10: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9
    assert recall >= 0.9


def test_wrong_results_in_gsm8k() -> None:
    rows = [chat(asked, said) for asked, said in gsm8k()[:2_500]]
    assert feed(Contradictions, rows) == {}
    draw = random.Random(6)
    chosen = [i for i in some(200, len(rows), seed=2) if gsm8k()[i][1].rpartition("#### ")[2].isdigit()]
    added = []
    for i in chosen:
        asked, said = (message["content"] for message in rows[i]["messages"])
        head, _, result = said.rpartition("#### ")
        added.append(chat(asked if i % 2 else _reworded(asked, draw), f"{head}#### {int(result) + 1 + i % 9}"))
    found = feed(Contradictions, rows + added)
    precision, recall = score(
        _told(found, "Q09") | _told(found, "Q10"), {i + 1 for i in chosen} | {2_501 + k for k in range(len(added))}
    )
    print(f"gsm8k: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9
    assert recall >= 0.95


_JAPANESE = [
    (
        "この靴はサイズの交換ができますか。",
        "はい、未使用でしたら三十日以内に交換いたします。",
        "いいえ、サイズの交換は承っておりません。",
    ),
    ("店は日曜日も開いていますか。", "はい、日曜日も十時から開けております。", "日曜日は定休日をいただいております。"),
    ("送料はいくらになりますか。", "全国どこでも五百円で承ります。", "全国どこでも八百円で承ります。"),
    ("領収書を発行してもらえますか。", "はい", "いいえ"),
    ("会員登録をしないと買えませんか。", "登録なしでもお買い求めいただけます。", "会員の方だけがご購入になれます。"),
]


def test_contradictions_in_japanese() -> None:
    rows = [chat(asked, said) for asked, said, _ in _JAPANESE]
    assert feed(Contradictions, rows) == {}
    exact = feed(Contradictions, rows + [chat(asked, other) for asked, _, other in _JAPANESE])
    missed = {2, 7}  # "yes, we are" against "it is our day off": that they exclude one another, only a reader sees
    assert _told(exact, "Q09") == set(range(1, 11)) - missed
    ways = (("か。", "か？"), ("店は", "お店は"), ("しないと", "しないとね、"))
    reworded = [chat(_replaced(asked, ways), other) for asked, _, other in _JAPANESE]
    assert _told(feed(Contradictions, rows + reworded), "Q10") == set(range(1, 11)) - missed


def _replaced(text: str, ways: tuple[tuple[str, str], ...]) -> str:
    for one, other in ways:
        text = text.replace(one, other)
    return text


# --- what banking77 itself holds -----------------------------------------------------------------------------

# Read by a person: each pair asks for the same thing, under two labels.
_TRUE = [
    {"Has my top up gone through?", "Has my top-up gone through?"},
    {"There is a payment I don't recognize", "There is a payment I don't recognise!"},
    {"I transferred some money but it hasn't arrived.", "I transferred some money but it hasn't arrived yet"},
    {"My card payment didn't work", "The card payment didn't work"},
    {"Seems like my top-up has been cancelled", "Looks like my top-up has been cancelled"},
    {"How to verify my identity", "How do I verify my identity?"},
]


def test_the_most_suspicious_pairs_of_banking77_are_label_errors() -> None:
    corpus = corpus_of([chat(asked, said, "Name the intent.") for asked, said in banking77()])
    first = suspects(corpus).pairs[:10]
    prompts = [{corpus.item(one.one).prompt, corpus.item(one.other).prompt} for one in first]
    assert all(pair in prompts for pair in _TRUE)
    assert all(one.cost == 0 for one in first)
