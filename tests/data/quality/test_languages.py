"""Languages of questions and answers, and answers in another one than the question's."""

import sys

import pytest
from feeding import banking77, chat, feed, gsm8k, score, some

from pegbox.data.quality import tongues
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.languages import Languages
from pegbox.data.quality.tongues import LATIN, tongue

pytest.importorskip("py3langid", reason="languages in Latin script are told by py3langid")

SHORT = {
    "en": ["When will my new card arrive?", "I have sent you a replacement today.", "Where can I see the exchange rate?"],
    "de": ["Wann kommt meine neue Karte an?", "Bitte starten Sie das Gerät neu.", "Wir liefern auch nach Österreich."],
    "fr": ["Quand ma nouvelle carte va-t-elle arriver ?", "Votre commande partira demain matin.", "Merci de votre patience, madame."],
    "es": ["¿Cuándo llegará mi tarjeta nueva?", "Su pedido saldrá mañana por la mañana.", "Reinicie el dispositivo, por favor."],
    "ja": ["カードはいつ届きますか？", "本日発送いたしました。", "キャンセル", "APIキーを再発行してください。", "ＰＩＮを変更したい"],
    "zh": ["我的新卡什么时候能寄到？请告诉我。", "您的订单将于明天上午发出，请耐心等待。"],
    "ko": ["새 카드는 언제 도착하나요?", "주문하신 상품은 내일 발송됩니다."],
    "ru": ["Когда придёт моя новая карта?"],
    "ar": ["متى ستصل بطاقتي الجديدة؟"],
    "th": ["บัตรใหม่ของฉันจะมาถึงเมื่อไหร่"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("language", "text"), [(language, text) for language, texts in SHORT.items() for text in texts]
)
def test_short_texts_of_many_languages(language, text):
    assert tongue(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "", "42", "card_arrival", "balance_not_updated_after_cheque_or_cash_deposit", "Yes.", "OK, thanks", "#### 72",
        "48/2 = 24; 48 + 24 = 72", '{"name": "weather", "arguments": {"city": "Kobe"}}', "SELECT name FROM users WHERE id = 1",
        "```python\nfor i in range(10):\n    print(i, the_list[i], and_so_on)\n```", "東京都", "返金処理完了", "New York",
        "https://acme.io/where/is/the/card/that/you/have/sent", "x = (a + b) * c - d / e ** f",
    ],
)  # fmt: skip
def test_texts_without_a_language(text):
    assert tongue(text) is None


def test_a_foreign_word_does_not_make_a_foreign_text():
    assert tongue("What does the Japanese word こんにちは mean, and when would I use it?") == "en"
    assert tongue("英語の “I beg your pardon” はどういう意味ですか。") == "ja"
    assert tongue("The name Müller is common in Germany, and so is Schmidt.") == "en"


def test_an_answer_in_another_language_is_an_accident_where_few_are():
    rows = [chat("カードはいつ届きますか？", f"{n}日に届く予定です。") for n in range(1, 29)]
    rows.insert(4, chat("カードを止めたいのですが", "You can freeze your card in the app at any time."))
    rows.insert(9, chat("手数料はいくらですか。", "42"))
    found = feed(Languages, rows)
    assert set(found) == {"mismatch"}
    one = found["mismatch"]
    assert (one.count, one.lines, one.severity) == (1, (5,), Severity.WARNING)
    assert one.data == {"told": 29, "share_of_told": 1 / 29, "pairs": {"ja-en": 1}}
    assert one.text.startswith("1 answer is in another language than the question (3.4% of the 29 rows")
    assert one.samples[0].note == "Japanese → English"


def test_a_task_that_changes_the_language_is_for_information():
    rows = [chat("カードはいつ届きますか？", f"It will arrive on day {n} of the month.") for n in range(1, 20)]
    found = feed(Languages, rows)
    assert found["mismatch"].severity is Severity.INFO
    assert found["mismatch"].count == 19


def test_what_asks_for_another_language_gets_it():
    rows = [
        chat("次の文を英訳してください。「カードはいつ届きますか」", "When will the card arrive, please?"),
        chat("カードはいつ届きますか？", "When will the card arrive, please?", "Translate what the user says."),
        chat("Please tell me about Kyoto in Japanese.", "京都は日本の古都です。"),
    ]
    assert "mismatch" not in feed(Languages, rows)


def test_a_mix_is_told_with_its_shares():
    rows = [chat("When will my new card arrive?", "It will be there by the end of the week.")] * 6
    rows += [chat("Wann kommt meine neue Karte an?", "Sie ist bis zum Ende der Woche bei Ihnen.")] * 2
    found = feed(Languages, rows)
    assert set(found) == {"mix"}
    mix = found["mix"]
    assert mix.text == "Questions are in English (75%), German (25%); answers in English (75%), German (25%)"
    assert (mix.count, mix.lines, mix.severity) == (2, (7, 8), Severity.INFO)
    assert mix.data == {"questions": {"en": 6, "de": 2}, "answers": {"en": 6, "de": 2}}


def test_real_rows_in_one_language_say_nothing():
    rows = banking77()[:2000] + gsm8k()[:2000]
    assert feed(Languages, [chat(*row) for row in rows]) == {}


def test_recall_and_precision_on_answers_put_into_real_rows():
    rows = [chat(*row) for row in gsm8k()[:3000]]
    true = set(some(120, len(rows)))
    foreign = [
        "Sie verkaufte im Mai halb so viele, das sind zusammen zweiundsiebzig Stück.",
        "Elle en a vendu la moitié en mai, soit soixante-douze au total.",
        "五月には半分の二十四個を売ったので、合計は七十二個です。",
        "五月她卖出了一半，所以总共卖出了七十二个。",
        "오월에는 절반을 팔았으므로 모두 일흔두 개입니다.",
        "Vendió la mitad en mayo, así que en total son setenta y dos.",
    ]
    for n, i in enumerate(sorted(true)):
        rows[i]["messages"][1]["content"] = foreign[n % len(foreign)]
    found = feed(Languages, rows)["mismatch"]
    precision, recall = score({line - 1 for line in found.lines}, true)
    print(f"precision {precision:.3f}, recall {recall:.3f}")
    assert precision == 1
    assert recall >= 0.98


def test_without_the_library_scripts_are_still_told_apart(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    tongues._identify.cache_clear()
    try:
        assert tongue("Quando chega o meu cartão novo, por favor?") == LATIN
        assert tongue("カードはいつ届きますか？") == "ja"
    finally:
        tongues._identify.cache_clear()
