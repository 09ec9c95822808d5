"""Which language a text is in: by its script where that tells, by character statistics where the script is Latin.

The statistics are py3langid's (BSD licence, the model too; numpy alone): as right as fastText's small model on short
texts once it is held to the languages below, and it needs no download. Without it, scripts alone are told apart.
"""

import importlib
import re
from collections.abc import Callable
from functools import cache

LATIN = "latin"  # some language in Latin script: no library is there to say which
_LANGUAGES = [
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da", "no", "fi", "cs", "ro", "hu", "tr", "id", "vi",
]  # fmt: skip
_HEAD = 300  # characters looked at
_LETTERS = (60, 160)  # of them, for the statistics; the longer piece where the shorter leaves doubt
_SURE = 0.8
# Three different ones of these tell their language at a hundredth of the cost: they are no words of the others.
_COMMON = {
    word: language
    for language, words in {
        "en": "the and of you that with this what have how which there from they would your my not he she at has",
        "de": "und der das ist nicht ich sie ein eine mit für auf sich den dem wird sind kann bei oder auch wie",
        "fr": "le les des est et dans pour une vous je pas sur avec qui ne ce nous votre être cette",
        "es": "el los las una por pero más muy usted esto cómo qué del su hay tiene puede ser también",
    }.items()
    for word in words.split()
}
_LEAST_WORDS, _LEAST_LETTERS = 4, 20  # of Latin script; less has no language that could be told
_LEAST_HAN = 10  # without kana: fewer may be a Japanese title as well as a Chinese one
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{0,200}`|https?://\S{0,300}|<[^<>\n]{1,80}>|\$[^$\n]{1,200}\$", re.DOTALL)
_DATA = re.compile(r"\s*[{\[<]|\s*(?:SELECT|INSERT|import|from|def|function|#include|<\?php)\b")
_WORD = re.compile(r"[^\W\d_]{2,}")
_KANA = re.compile("[ぁ-ヺｦ-ﾝ]+")
_HANGUL = re.compile("[가-힣]+")
_ASIAN = re.compile("[㐀-鿿ぁ-ヺｦ-ﾝ가-힣]+")
_OTHER = re.compile("[^\\W\\d_㐀-鿿ぁ-ヺｦ-ﾝ가-힣]+")
_SCRIPT_HEAD = 120  # characters that tell a script
_SCRIPTS = (
    ("uk", re.compile("[іїєґІЇЄҐ]")), ("sr", re.compile("[ђјљњћџЂЈЉЊЋЏ]")), ("ru", re.compile("[а-яА-ЯёЁ]")),
    ("el", re.compile("[α-ωΑ-Ωά-ώ]")), ("he", re.compile("[א-ת]")), ("fa", re.compile("[پچژگی]")),
    ("ar", re.compile("[ء-ي]")), ("hi", re.compile("[अ-ह]")), ("bn", re.compile("[অ-হ]")), ("ta", re.compile("[அ-ஹ]")),
    ("th", re.compile("[ก-ฮ]")), ("ka", re.compile("[ა-ჰ]")), ("hy", re.compile("[ա-ֆ]")),
)  # fmt: skip


def tongue(text: str) -> str | None:
    """The language's code, LATIN, or None where the text has none that can be told: labels, numbers, code, a word."""
    head = text[:_HEAD]
    if _DATA.match(head):
        return None
    if "`" in head or "<" in head or "://" in head or "$" in head:
        head = _CODE.sub(" ", head)
    if not head.isascii():
        by_script = _by_script(head)
        if by_script is not None:
            return by_script or None
    if head.count(" ") + 1 < _LEAST_WORDS:
        return None
    words = _WORD.findall(head)
    letters = sum(map(len, words))
    if len(words) < _LEAST_WORDS or letters < _LEAST_LETTERS or letters < 0.5 * len(head.replace(" ", "")):
        return None
    return _by_words(words) or _identify()(" ".join(words))


def _by_words(words: list[str]) -> str | None:
    """The language whose common words alone are there."""
    found = [_COMMON[word] for word in {word.lower() for word in words[:40]} if word in _COMMON]
    return found[0] if len(found) > 2 and len(set(found)) == 1 else None


def _by_script(head: str) -> str | None:
    """The language that the script tells; "" where it leaves doubt; None where the script is Latin."""
    head = head[:_SCRIPT_HEAD]
    asian = _count(_ASIAN, head)
    latin = _count(_OTHER, head)
    if asian and asian * 2 >= latin:  # one such character is a syllable or more
        kana = _count(_KANA, head)
        if kana:
            return "ja" if kana > 1 else ""
        if _count(_HANGUL, head) * 2 >= asian:
            return "ko" if asian > 3 else ""
        return "zh" if asian >= _LEAST_HAN else ""
    for language, letter in _SCRIPTS:
        found = letter.search(head)
        if found:
            of_script = sum(c > "\u036f" and c.isalpha() for c in head)
            if of_script * 2 > latin:
                return language if of_script > 5 else ""
    return None


def _count(letters: re.Pattern[str], text: str) -> int:
    return sum(map(len, letters.findall(text)))


def forget() -> None:
    """Give the identifier's 70 MB back; it is read again where it is needed again."""
    _identify.cache_clear()


@cache
def _identify() -> Callable[[str], str | None]:
    try:
        langid = importlib.import_module("py3langid.langid")
    except ImportError:
        return lambda _: LATIN
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    identifier.set_languages([language for language in _LANGUAGES if language in identifier.labels])

    def identify(text: str) -> str | None:
        for length in _LETTERS:
            language, sure = identifier.classify(text[:length])
            if sure >= _SURE:
                return str(language)
        return None

    return identify
