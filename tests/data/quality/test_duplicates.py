import random

import pytest
from feeding import banking77, chat, corpus_of, feed, gsm8k, score, some, talk

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.duplicates import Duplicates, near_groups
from pegbox.data.quality.findings import MAX_SAMPLES


def test_clean_rows_say_nothing() -> None:
    rows = [chat("Where is my card?", "On its way."), chat("Do you take cheques?", "No, we don't.")]
    assert feed(Duplicates, rows) == {}
    assert list(Duplicates(Context()).found(corpus_of([]))) == []


def test_copies_are_counted_without_the_first() -> None:
    rows = [chat("Where is my card?", "On its way."), chat("Do you take cheques?", "No.")]
    found = feed(Duplicates, [*rows, rows[0], rows[0]])["exact-duplicates"]
    assert (found.code, found.count, found.lines, found.severity) == ("Q06", 2, (3, 4), Severity.WARNING)
    assert found.data == {"groups": 1, "largest": 3}
    assert [place.line for place in found.samples[0].places] == [1, 3]
    assert "2 rows of 4" in found.text


def test_few_copies_in_a_large_file_are_told_but_do_not_warn() -> None:
    rows = [chat(f"{word} is what?", "It is a word.") for word in map(_word, range(300))]
    assert feed(Duplicates, [*rows, rows[7]])["exact-duplicates"].severity is Severity.INFO


def _word(i: int) -> str:
    draw = random.Random(i)
    return "".join(draw.choice("bcdfghklmnprstaeiou") for _ in range(24))


def test_exact_copies_are_not_near_ones_too() -> None:
    row = chat("How do I change the address of my account?", "In the settings.")
    found = feed(Duplicates, [row, row, chat("How do I change the adress of my account?", "In the settings.")])
    assert found["exact-duplicates"].lines == (2,)
    assert found["near-duplicates"].lines == (3,)
    assert len(found["near-duplicates"].samples) == 1


def test_other_answers_are_no_duplicates() -> None:
    rows = [chat("My card payment didn't work", "declined"), chat("The card payment didn't work", "reverted")]
    assert feed(Duplicates, rows) == {}


def test_one_answer_to_many_questions_is_no_duplicate() -> None:
    told = "I am sorry, but I can't help with that. Please write to our service, which answers within a day. " * 3
    assert feed(Duplicates, [chat("Is it safe?", told), chat("Who are you?", told), chat("And the price?", told)]) == {}


def test_the_same_talk_under_two_systems_is_nearly_the_same_row() -> None:
    rows = [talk("s: Be brief.", "u: Where is it?", "a: Here."), talk("s: Be kind.", "u: Where is it?", "a: Here.")]
    groups = near_groups(corpus_of(rows))
    assert groups.tolist() == [0, 0]


# --- injected into real data ---------------------------------------------------------------------------------

_SYNONYMS = {"money": "cash", "need": "require", "want": "wish", "buys": "purchases", "total": "whole", "payment": "purchase",
             "help": "assist", "each": "every", "change": "modify", "account": "profile", "cancel": "annul"}  # fmt: skip


def _typo(text: str, draw: random.Random) -> str:
    at = draw.choice(
        [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha() and text[i] != text[i + 1]]
    )
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _dropped(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    small = [
        i
        for i, word in enumerate(words)
        if word.lower() in ("the", "a", "is", "my", "to", "i", "in", "of", "for", "it")
    ]
    if len(words) < 6 or not small:
        return text
    del words[draw.choice(small)]
    return " ".join(words)


def _punctuation(text: str, draw: random.Random) -> str:
    return draw.choice([str.upper, str.lower])(text.rstrip(".?!").replace(",", "")) + draw.choice(["", "!!", "..."])


def _synonym(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    known = [i for i, word in enumerate(words) if word in _SYNONYMS]
    if len(words) < 10 or not known:
        return text
    at = draw.choice(known)
    words[at] = _SYNONYMS[words[at]]
    return " ".join(words)


@pytest.mark.parametrize("edit", [_typo, _dropped, _punctuation, _synonym])
@pytest.mark.parametrize("data", [gsm8k, banking77])
def test_edited_copies_in_real_data(edit, data) -> None:
    clean = [chat(asked, said) for asked, said in data()[::3]]
    known = feed(Duplicates, clean)
    before = {line for one in known.values() for line in one.lines}
    draw = random.Random(edit.__name__)
    copies = []
    for i in some(400, len(clean), seed=3):
        asked, said = (message["content"] for message in clean[i]["messages"])
        edited = edit(asked, draw)
        if edited != asked and i + 1 not in before:
            copies.append(chat(edited, said))
        if len(copies) == 100:
            break
    found = feed(Duplicates, [*clean, *copies])
    told = {line for one in found.values() if one.code in ("Q06", "Q07") for line in one.lines} - before
    precision, recall = score(told, {len(clean) + 1 + i for i in range(len(copies))})
    print(f"{data.__name__} {edit.__name__}: {len(copies)} copies, precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9
    assert recall >= 0.95


_JAPANESE = [
    ("注文した靴のサイズを交換したいのですが、送料はかかりますか。", "未使用でしたら送料無料で交換できます。"),
    ("先週頼んだ荷物がまだ届いていません。今どこにありますか。", "配送番号を確認しますので少々お待ちください。"),
    ("パスワードを忘れてしまい、ログインできなくなりました。", "ログイン画面の「再設定」からお手続きください。"),
    ("領収書を会社の名前で発行してもらうことはできますか。", "はい、注文履歴の画面から発行できます。"),
    ("プレゼント用に包装をお願いしたいのですが、料金はいくらですか。", "包装は無料で承っております。"),
    ("ポイントの有効期限が切れる前に知らせてもらえますか。", "期限の一か月前にメールでお知らせします。"),
    ("クレジットカードを使わずに支払う方法を教えてください。", "コンビニ払いと銀行振込がご利用いただけます。"),
    ("定期購入を来月だけお休みすることは可能でしょうか。", "マイページから次回分を休止できます。"),
    (
        "届いた商品が割れていたので、新しいものと取り替えてほしいです。",
        "お詫び申し上げます。すぐに代わりの品をお送りします。",
    ),
    ("店舗での受け取りに変更するには、どうすればいいですか。", "発送前であれば注文画面で変更できます。"),
]


def test_edited_copies_in_japanese() -> None:
    rows = [chat(asked, said) for asked, said in _JAPANESE]
    copies = [
        chat(asked.replace("。", "").replace("、", " "), said) for asked, said in _JAPANESE[:3]
    ] + [chat(asked.replace("です", "でーす").replace("ますか", "ますかね").replace("ください", "下さい").replace("した", "したよ"), said) for asked, said in _JAPANESE[3:7]] + [
        chat(asked[:5] + asked[6:], said) for asked, said in _JAPANESE[7:]
    ]  # fmt: skip
    found = feed(Duplicates, rows + copies)
    assert set(found) <= {"exact-duplicates", "near-duplicates"}
    told = {line for one in found.values() for line in one.lines}
    assert told == set(range(11, 21))


def test_full_width_letters_are_the_same() -> None:
    rows = [chat("ABC123を注文したい", "承知しました。"), chat("ＡＢＣ１２３を注文したい", "承知しました。")]
    assert {line for one in feed(Duplicates, rows).values() for line in one.lines} == {2}


def test_samples_are_few() -> None:
    rows = [chat(f"{_word(i)} {tail}", "Yes, it is.") for i in range(20) for tail in ("is what", "is what?")]
    found = feed(Duplicates, rows)["near-duplicates"]
    assert found.count == 20
    assert len(found.samples) == MAX_SAMPLES
