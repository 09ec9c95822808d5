"""The faults of benchmarks/faults.py: each takes a clean row and gives a bad one, or None where it can't.

All texts are made up for this purpose; the secrets are random and pass their own check digits.
"""

import random
import re
import string
from collections.abc import Callable

from fault_rows import Row, answer, chat, is_japanese, question, system

Edit = Callable[[Row, random.Random], Row | None]

_FILLERS = ["really", "quite", "also", "then", "just", "now", "soon", "maybe", "perhaps", "again", "still", "once"]
_KANA = "あいうえおかきくけこさしすせそたちつてとなにのはひふまもやゆよらりるれろわをん"


def no_edit(row: Row, _: random.Random) -> Row:
    return chat(system(row), question(row), answer(row))


def near(edits: int) -> Edit:
    """That many words put in, dropped or swapped, over question and answer; letters where there are no spaces. Numbers
    are left alone: with another number a row is another row."""

    def edit(row: Row, draw: random.Random) -> Row | None:
        asked, said = question(row), answer(row)
        if len(asked) + len(said) < (60 if is_japanese(asked) else 400):
            return None  # one edit of a short row is no longer nearly the same
        for _ in range(edits):
            if draw.random() < len(asked) / (len(asked) + len(said)):
                asked = _one_edit(asked, draw)
            else:
                said = _one_edit(said, draw)
        return chat(system(row), asked, said)

    return edit


def _one_edit(text: str, draw: random.Random) -> str:
    joint, fillers = ("", list(_KANA)) if is_japanese(text) else (" ", _FILLERS)
    words = list(text) if not joint else text.split(" ")
    free = [i for i in range(len(words) - 1) if not any(c.isdigit() for c in words[i] + words[i + 1])]
    if not free:
        return text
    at = draw.choice(free)
    what = draw.choice(("add", "drop", "swap"))
    if what == "add":
        words.insert(at, draw.choice(fillers))
    elif what == "drop":
        del words[at]
    else:
        words[at], words[at + 1] = words[at + 1], words[at]
    return joint.join(words)


# --- answers that contradict ---------------------------------------------------------------------------------

_PROMPT_EDITS: tuple[Callable[[str], str], ...] = (
    lambda text: text.rstrip("?.!？。") + "!",
    lambda text: text.replace(",", "", 1) if "," in text else text + " Thanks.",
    lambda text: "Hi, " + text,
    lambda text: re.sub(r"\b(the|a|is|my)\b ", "", text, count=1),
)
_PROMPT_EDITS_JA: tuple[Callable[[str], str], ...] = (
    lambda text: text.rstrip("。") + "！",
    lambda text: text.replace("。", "、", 1),
    lambda text: "すみません、" + text,
    lambda text: text.replace("です", "なのです", 1),
)


def _reworded(text: str, edits: int, draw: random.Random) -> str | None:
    """A prompt that means the same, letters changed. None where it came out the same."""
    ways = _PROMPT_EDITS_JA if is_japanese(text) else _PROMPT_EDITS
    out = text
    for way in draw.sample(ways, edits):
        out = way(out)
    return None if edits and out == text else out


def another_intent(edits: int) -> Edit:
    """The same message (or one reworded), with the label of another."""

    def edit(row: Row, draw: random.Random) -> Row | None:
        labels = system(row).rpartition(": ")[2].rstrip(".").split(", ")
        label = draw.choice([one for one in labels if one != answer(row)])
        asked = _reworded(question(row), edits, draw)
        if asked is None or (edits and len(asked.split()) < 15):
            return None
        return chat(system(row), asked, label)

    return edit


def wrong_number(edits: int) -> Edit:
    """The same question (or one reworded), and an answer that ends in another number; for Japanese, that denies."""

    def edit(row: Row, draw: random.Random) -> Row | None:
        asked, said = _reworded(question(row), edits, draw), answer(row)
        if asked is None:
            return None
        if is_japanese(said):
            return chat(system(row), asked, draw.choice(_DENIALS))
        head, mark, last = said.rpartition("#### ")
        number = last.replace(",", "").lstrip("-")
        if not mark or not number.isdigit():
            return None
        other = str(int(number) + draw.choice((1, 2, 7, 10, 35)))
        return chat(system(row), asked, head.replace(last, other) + mark + other)

    return edit


_DENIALS = (
    "いいえ、当店ではそのような対応は一切行っておりません。", "それは午前中だけの取り扱いで、料金は九千円です。",
    "できません。メーカーへ直接お問い合わせください。", "先月で終了いたしました。再開の予定はありません。",
)  # fmt: skip


# --- refusals ------------------------------------------------------------------------------------------------

_REFUSALS = {
    "en": (
        "I'm sorry, but I can't help with that.", "I cannot answer this question.",
        "Sorry, I am unable to assist with this request.",
        "As an AI, I'm not able to solve this for you.", "Unfortunately, I can't provide an answer to that.",
        "I apologize, but I am not able to do this calculation.", "I must decline to answer.",
        "That's not something I can help you with.", "I don't feel comfortable answering that.",
        "I won't be able to give you an answer here.", "My apologies, I can't do that.", "I'm afraid I can't say.",
        "I'd rather not answer this one.", "This is outside of what I am allowed to talk about.",
        "I do not have enough information to answer that question.", "I'm not able to help with homework, sorry.",
    ),
    "ja": (
        "申し訳ありませんが、お答えできません。", "恐れ入りますが、そのご質問には対応できかねます。",
        "すみません、それはお手伝いできません。",
        "大変申し訳ございませんが、ご要望にはお応えできません。", "その件についてはお答えいたしかねます。",
        "私はAIなので、そのような質問には答えられません。", "回答を控えさせていただきます。",
        "残念ながら、お力になれません。", "ごめんなさい、わかりません。", "その情報は提供できません。",
        "ご案内することができません。", "お断りいたします。",
    ),
}  # fmt: skip


def refuse(language: str) -> Edit:
    return lambda row, draw: chat(system(row), question(row), draw.choice(_REFUSALS[language]))


# --- secrets -------------------------------------------------------------------------------------------------


def insert_secret(row: Row, draw: random.Random) -> Row:
    """Put one behind the question."""
    ways = (_email, _card, _iban, _key, _phone_ja if is_japanese(question(row)) else _phone)
    return chat(system(row), f"{question(row)} {draw.choice(ways)(draw)}", answer(row))


def _digits(n: int, draw: random.Random) -> str:
    return "".join(draw.choices(string.digits, k=n))


def _email(draw: random.Random) -> str:
    name, host = (
        "".join(draw.choices(string.ascii_lowercase, k=7)),
        draw.choice(("gmail.com", "posteo.de", "docomo.ne.jp")),
    )
    return f"{name}.{_digits(2, draw)}@{host}"


def _card(draw: random.Random) -> str:
    body = "4" + _digits(14, draw)
    for check in string.digits:
        doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(body + check))]
        if sum(n - 9 * (n > 9) for n in doubled) % 10 == 0:
            whole = body + check
            return " ".join(whole[i : i + 4] for i in range(0, 16, 4))
    raise AssertionError("one digit of ten fits")


def _iban(draw: random.Random) -> str:
    account = _digits(18, draw)
    rest = 98 - int(account + "131400") % 97  # D and E are 13 and 14
    return f"DE{rest:02}{account}"


def _key(draw: random.Random) -> str:
    return "sk-" + "".join(draw.choices(string.ascii_letters + string.digits, k=48))


def _phone(draw: random.Random) -> str:
    return f"+49 30 {draw.randint(21, 98)}{_digits(2, draw)} {_digits(4, draw)}"


def _phone_ja(draw: random.Random) -> str:
    return f"090-{draw.randint(21, 98)}{_digits(2, draw)}-{draw.randint(21, 98)}{_digits(2, draw)}"


# --- letters and marks ---------------------------------------------------------------------------------------

_MARKS = ("<|im_end|>", "<|im_start|>user\n", "[INST]", "### Response:", "<|endoftext|>", "<|eot_id|>", "</s>")


def insert_mark(row: Row, draw: random.Random) -> Row:
    return chat(system(row), question(row), f"{answer(row)}\n{draw.choice(_MARKS)}")


def break_encoding(row: Row, _: random.Random) -> Row | None:
    """UTF-8 read as Windows' Latin letters. Rows of plain ASCII can't be broken so, and are passed over."""
    asked = question(row)
    broken = "".join(_as_latin(c) for c in asked)
    return None if broken == asked else chat(system(row), broken, answer(row))


def _as_latin(letter: str) -> str:
    out = ""
    for byte in letter.encode():
        try:
            out += bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            out += chr(byte)
    return out


def insert_invisible(row: Row, draw: random.Random) -> Row:
    asked = question(row)
    at = draw.randrange(1, len(asked))
    letter = draw.choice(("\u200b", "\u2060", "\u00ad", "\x07", "\ufeff", "\u202e"))
    return chat(system(row), asked[:at] + letter + asked[at:], answer(row))


# --- answers that don't fit ----------------------------------------------------------------------------------

_ELSEWHERE = (
    "Zuerst rechnen wir aus, wie viele Stück es insgesamt sind, und danach teilen wir durch die Anzahl der Personen.",
    "D'abord, nous calculons le nombre total de pièces, puis nous divisons le résultat par le nombre de personnes.",
    "Primero calculamos cuántas piezas hay en total y después dividimos el resultado entre todas las personas.",
    "Сначала посчитаем, сколько всего предметов, а потом разделим полученное число на количество людей.",
    "Najpierw obliczamy, ile jest wszystkich sztuk, a potem dzielimy wynik przez liczbę wszystkich osób.",
    "首先我们计算一共有多少件物品，然后把得到的结果除以总人数，就可以得到最后的答案。",
)


def other_language(row: Row, draw: random.Random) -> Row:
    return chat(system(row), question(row), draw.choice(_ELSEWHERE))


def truncated(row: Row, draw: random.Random) -> Row | None:
    """The answer breaks off in the middle of a word."""
    said = answer(row)
    return None if len(said) < 200 else chat(system(row), question(row), said[: draw.randrange(20, 60)])
