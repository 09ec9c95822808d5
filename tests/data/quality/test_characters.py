"""Broken and invisible characters are told from good writing, and mended without touching it."""

import random
import time

import pytest
from feeding import banking77, chat, feed, gsm8k
from hypothesis import example, given
from hypothesis import strategies as st

from pegbox.data.quality.characters import Characters, mend, odd
from pegbox.data.quality.codes import Severity

GOOD = [
    "本日の東京は晴れ、最高気温は２１度です。「ﾃｽﾄ」も～ＯＫ！　足が縺れて、糸が纏わる。",
    "👩‍🚀👨‍👩‍👧‍👦 🏳️‍🌈 ❤️‍🔥 👍🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f ☕️",
    "می‌خواهم کتاب‌ها را بخوانم.",
    "क्‍ष और क्‌ष; ශ්‍රී ලංකා",
    "שלום \u200f(123)\u200e world",
    "ภาษา\u200bไทย",
    "« Où est le café ? » demanda-t-il à 20 % : « À l’Hôtel… »",
    "“AMANHÔ, «CAFÉ», »Ä«, MAÑANA…, 'PÂTÉ' – ‘É’ — São João",
    "Die „Größe“ beträgt 5 m², 100 €, § 3, 20 °C. Ärger über Öl.",
    "Żółć, wąż, źrebię; Zażółć gęślą jaźń. Příliš žluťoučký kůň.",
    "Đây là tiếng Việt; Türkçe: İstanbul ığdır; ÅÄÖ på svenska. Ænima.",
    "W\xa0domu i\xa0ogrodzie; v\xa0Praze.",
    "ផ្ទះ\u200b\u200bថ្មី \u200bនេះ",
    "Привет, «мир»! Ελληνικά; 안녕하세요. 你好，世界。",
    "def f(x):\n\treturn x ** 2  # naïve\r\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_writing_stays_as_it_is(text):
    assert odd(text) == []
    assert mend(text) == text


@pytest.mark.parametrize(
    ("text", "kind", "meant"),
    [
        ("schÃ¶n", "mojibake", "schön"),
        ("i Â«%sÂ» for", "mojibake", "i «%s» for"),
        ("donâ€™t â€œgoâ€\x9d", "mojibake", "don’t “go”"),
        ("Ã\xa0 la carte, Â£5", "mojibake", "à la carte, £5"),
        ("DÃ©jÃ\xa0 vu Ã‰COLE", "mojibake", "Déjà vu ÉCOLE"),
        ("wÅ‚adza", "mojibake", "władza"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "mojibake", "привет"),
        ("縺薙ｓ縺ｫ縺｡縺ｯ、世界", "mojibake", "縺薙ｓ縺ｫ縺｡縺ｯ、世界"),  # only part of the word is garbled
        ("縺薙ｓ縺ｫ縺｡縺ｯ", "mojibake", "こんにちは"),
        ("‚±‚ñ‚É‚¿‚Í", "mojibake", "こんにちは"),
        ("ðŸ˜€ ok", "mojibake", "😀 ok"),
        ("it was lost: \ufffd\ufffd", "replacement", "it was lost: \ufffd\ufffd"),
        ("a\x00b\x07", "control", "ab"),
        ("\x1b[1;31mred\x1b[0m", "control", "red"),
        ("page\x0cnext", "control", "page\nnext"),
        ("\x93quoted\x94", "control", "“quoted”"),
        ("zero\u200bwidth\ufeff, soft\xadhyphen, a\u200db", "invisible", "zerowidth, softhyphen, ab"),
        ("if access\u202e\u2066 // admin", "invisible", "if access // admin"),
        ("aa\xa0bb c\u2003d", "space", "aa bb c d"),
        ("one\u2028two", "space", "one\ntwo"),
    ],
)
def test_odd_characters_are_named_and_mended(text, kind, meant):
    assert {hit.kind for hit in odd(text)} == {kind}
    assert mend(text) == meant
    assert mend(meant) == meant


_LETTERS = st.text(
    st.sampled_from("あいうえおカキクケコ漢字東京。、「」ーabcXYZéèàçñöüß«»“”… \nąęłżČğışПривет안녕你好ا‌بЖ123")
)


@given(_LETTERS)
def test_letters_of_many_languages_in_any_order_are_good(text):
    text = text.replace("\u200c", "")
    assert mend(text) == text


@given(st.lists(st.sampled_from(GOOD), max_size=4).map(" ".join))
def test_good_texts_together_are_good(text):
    assert mend(text) == text


@example("Â\x1f\x80")
@given(st.text())
def test_mending_is_done_once_and_for_all(text):
    once = mend(text)
    assert mend(once) == once
    assert {hit.kind for hit in odd(once)} <= {"replacement", "mojibake"}


@given(st.text(st.sampled_from("あいうえおのはがをカキクケコ日本語東京都"), min_size=2))
def test_japanese_read_as_latin_1_comes_back(text):
    assert mend(text.encode().decode("latin-1")) == text


@pytest.mark.parametrize(
    "unit",
    [
        "â",
        "Ã",
        "ã\x81",
        "縺",
        "‚±",
        "\u200b",
        "\x1b[",
        "é\xa0»",
        "\xa0",
        "\u200f",
        "\u2067a",
        "ð",
        "Ð¿",
        "あ",
        "e\u0301",
    ],
)
def test_time_is_linear_whatever_the_text(unit):
    text = (unit * 500_000)[:500_000]
    start = time.process_time()
    mend(text)
    assert time.process_time() - start < 10


def test_rows_are_counted_by_kind_and_samples_spell_out_what_is_not_seen():
    found = feed(
        Characters,
        [chat("Hi", "CafÃ© and thÃ©"), chat("Hi\u200b", "Hello"), chat("Hi", "Hello"), chat("lost \ufffd", "Hello")],
    )
    assert set(found) == {"mojibake", "invisible", "replacement"}
    garbled = found["mojibake"]
    assert (garbled.count, garbled.share, garbled.lines, garbled.severity) == (1, 0.25, (1,), Severity.WARNING)
    assert garbled.data == {"learnt_rows": 1, "characters": {"Ã©": 2}}
    assert found["invisible"].severity is Severity.INFO
    assert found["invisible"].samples[0].places[0].excerpt == "Hi<U+200B>"
    assert found["replacement"].data["learnt_rows"] == 0


def test_recall_and_precision_on_garbled_real_rows():
    clean = [question for question, _ in banking77()] + [answer for _, answer in gsm8k()]
    false = sum(any(hit.kind == "mojibake" for hit in odd(text)) for text in clean)
    rng = random.Random(3)
    parts = ["’", "“yes”", "é", "£", "–", "café", "naïve", "…", "東京", "カード", "привет", "😀", "Größe", "ça"]
    missed = unmended = 0
    for text in rng.sample(clean, 500):
        words = text.split(" ")
        words.insert(rng.randrange(len(words) + 1), rng.choice(parts))
        whole = " ".join(words)
        bad = "".join(
            chr(b) if b in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else bytes([b]).decode("cp1252") for b in whole.encode()
        )
        missed += not any(hit.kind == "mojibake" for hit in odd(bad))
        unmended += mend(bad) != mend(whole)
    print(f"false alarms {false} of {len(clean)}; missed {missed}, not mended {unmended} of 500")
    assert false == 0
    assert missed <= 10
    assert unmended <= 10
