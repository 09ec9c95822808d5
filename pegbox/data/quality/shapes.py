"""What secrets look like: shapes find candidates; check digits, registries and reserved ranges judge them.

A shape is tried only where a sign of it stands in the text, and every repetition in a shape is bounded: time grows with
the text's length and no faster, whatever the text is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

KINDS = (
    "private-key", "token", "api-key", "password", "email", "card", "iban", "my-number", "ssn", "phone", "ip",
)  # fmt: skip
_RANKS = {kind: rank for rank, kind in enumerate(KINDS)}  # of two that overlap, the graver counts


class Secret(NamedTuple):
    kind: str  # one of KINDS
    start: int
    end: int
    public: bool = False  # made up, or published for all: example.com, 555-01xx, toll-free numbers, test cards


def find(text: str) -> list[Secret]:
    """The secrets in a text, in order, none overlapping another."""
    hits: list[Secret] = []
    for sign, shape in _SIGNS:
        if sign in text:
            hits += shape.find(text)
    if _has_digits(text):
        for shape in _NUMBERS:
            hits += shape.find(text)
    if len(hits) < 2:
        return hits
    kept: list[Secret] = []
    for hit in sorted(hits, key=lambda h: (h.start, _RANKS[h.kind])):
        if not kept or hit.start >= kept[-1].end:
            kept.append(hit)
    return kept


# --- shapes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    kind: str
    signs: tuple[str, ...]  # one of them stands in every text that has the shape; none: digits are the sign
    pattern: re.Pattern[str]
    judge: Callable[[re.Match[str]], bool | None]  # None: not one after all; True: a public one

    def find(self, text: str) -> Iterator[Secret]:
        for match in self.pattern.finditer(text):
            public = self.judge(match)
            if public is not None:
                start, end = match.span("it") if "it" in self.pattern.groupindex else match.span()
                yield Secret(self.kind, start, end, public)


# Six digits with hardly anything between them; fewer are no number of anybody.
_DIGITS = re.compile(r"\d(?:[ .():/‐‑–−－ー-]{0,2}\d){5}")


def _has_digits(text: str) -> bool:
    if text.isascii() and not any(digit in text for digit in "0123456789"):
        return False  # a fraction of the time that the shape takes
    return _DIGITS.search(text) is not None or text.count(":") > 3


def _digits(text: str) -> str:
    """The digits alone, full-width ones made plain."""
    return "".join(str(int(c)) for c in text if c.isdecimal())


def _never(_: re.Match[str]) -> bool:
    return False


# example.com and its kind are reserved by RFC 2606; the others are what teaching texts use.
_MADE_UP_HOSTS = re.compile(
    r"(?:^|[@.])(?:example(?:\.(?:com|org|net|edu|co\.jp|jp))?|test|invalid|localhost|(?:test|domain|email|company)\.com)$",
    re.IGNORECASE,
)
_FILES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".js", ".ts", ".css", ".json")  # logo@2x.png


def _email(match: re.Match[str]) -> bool | None:
    address = match[0].lower()
    if address.endswith(_FILES) or address.startswith("git@"):
        return None
    return _MADE_UP_HOSTS.search(address) is not None or address.startswith(("noreply@", "no-reply@"))


def _key(match: re.Match[str]) -> bool | None:
    """Real keys are random: they have digits and many different letters. `sk-your-api-key-here` has not."""
    body = match[0]
    lower = body.lower()
    if not any(c.isdigit() for c in body) and lower == body:
        return None if body.startswith("sk-") else True
    return "example" in lower or "your" in lower or "xxxx" in lower or "1234567" in lower or len(set(body)) < 12


def _password(match: re.Match[str]) -> bool | None:
    word = match["it"].lower()
    if word.startswith(("$", "{", "<", "%", "[")):
        return None  # a place for one: ${PASSWORD}
    return word in ("password", "pass", "pwd", "secret", "passwd") or set(word) <= {"*", "x", "."}


_TEST_CARDS = {
    "4111111111111111", "4242424242424242", "4012888888881881", "4000056655665556", "5555555555554444",
    "5105105105105100", "378282246310005", "371449635398431", "6011111111111117", "3530111333300000",
}  # fmt: skip
# Issuers' first digits and lengths (ISO/IEC 7812; Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay).
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)


def _card(match: re.Match[str]) -> bool | None:
    digits = _digits(match[0])
    if not _ISSUERS.fullmatch(digits) or len(set(digits)) < 2:
        return None
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))  # Luhn, ISO/IEC 7812-1 annex B
    return digits in _TEST_CARDS if sum(n - 9 * (n > 9) for n in doubled) % 10 == 0 else None


# Lengths by country, from the SWIFT registry of IBANs.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip


def _ibans(text: str) -> Iterator[Secret]:
    for head in re.finditer(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?= ?[A-Z0-9])", text, re.ASCII):
        length, at, taken = _IBAN_LENGTHS.get(head[0][:2], 0), head.start(), ""
        while len(taken) < length and at < len(text):
            if text[at] != " ":
                taken += text[at]
            elif text[at - 1] == " ":
                break
            at += 1
        if (
            not length
            or len(taken) != length
            or not (taken.isascii() and taken.isalnum())
            or text[at : at + 1].isalnum()
        ):
            continue
        if int("".join(str(int(c, 36)) for c in taken[4:] + taken[:4])) % 97 == 1:  # ISO 13616 (ISO 7064 MOD 97-10)
            yield Secret("iban", head.start(), at, public=False)


def _my_number(match: re.Match[str]) -> bool | None:
    """Twelve digits, the last of which checks the others (the ordinance of 2014 on individual numbers, article 5)."""
    digits = _digits(match["it"])
    weighted = sum(int(d) * (n + 1 if n <= 6 else n - 5) for n, d in enumerate(reversed(digits[:11]), 1))
    rest = weighted % 11
    return False if int(digits[11]) == (0 if rest <= 1 else 11 - rest) and len(set(digits)) > 1 else None


def _ssn(match: re.Match[str]) -> bool | None:
    return match[0] in ("123-45-6789", "078-05-1120", "219-09-9999")


def _phone(match: re.Match[str]) -> bool | None:
    digits = _digits(match[0])
    if not 8 <= len(digits) <= 15 or len(set(digits)) < 3:
        return None
    tail = digits.removeprefix("1") if len(digits) == 11 else digits
    free = digits.startswith(("0120", "0800", "0570")) or tail[:3] in ("800", "888", "877", "866", "855", "844", "833")
    return free or (len(tail) == 10 and tail[3:8] == "55501") or "0000" in digits or digits.endswith("12345678")


def _japanese_phone(match: re.Match[str]) -> bool | None:
    digits = _digits(match[0])
    wanted = 11 if digits[:3] in ("020", "050", "060", "070", "080", "090") else 10
    return _phone(match) if len(digits) == wanted and digits[1] != "0" else None


def _ip(match: re.Match[str]) -> bool | None:
    """Addresses that can be anybody's. Private, reserved and documentation ranges are nobody's; four single digits are
    a version, a section, or a name server known to all."""
    try:
        address = ip_address(match[0])
    except ValueError:
        return None
    if not address.is_global or (address.version == 4 and len(match[0]) == 7):
        return None
    return match[0] in ("8.8.4.4", "208.67.222.222", "2001:4860:4860::8888", "2606:4700:4700::1111")


@dataclass(frozen=True, slots=True)
class _Ibans(_Shape):
    def find(self, text: str) -> Iterator[Secret]:
        return _ibans(text)


_KEYS = (
    r"(?<![A-Za-z0-9_-])(?:sk-[A-Za-z0-9_-]{20,250}|[sr]k_live_[A-Za-z0-9]{16,120}|gh[oprsu]_[A-Za-z0-9]{30,250}"
    r"|github_pat_[A-Za-z0-9_]{40,100}|glpat-[A-Za-z0-9_-]{20,50}|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,60}|npm_[A-Za-z0-9]{36})"
)
_DASH = "[-‐‑–−－ー]"
_SHAPES = (
    _Shape(
        "private-key", ("PRIVATE KEY",),
        # Without an end the rest of the block's letters are the key: a cut one is one too.
        re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[A-Za-z0-9+/=\s\\:,-]{0,20000}"), _never,
    ),
    _Shape(
        "token", ("eyJ",),
        re.compile(r"(?<![\w-])eyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{0,2000}", re.ASCII), _never,
    ),
    _Shape(
        "api-key",
        ("sk-", "k_live_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA", "xox",
         "AIza", "hf_", "npm_"),
        re.compile(_KEYS), _key,
    ),
    _Shape("password", ("://",), re.compile(r"://[^\s/:@]{1,64}:(?P<it>[^\s/@]{1,128})@"), _password),
    _Shape(
        "email", ("@",),
        re.compile(
            r"(?<![A-Za-z0-9_])[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@"
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
        ), _email,
    ),
)  # fmt: skip
_NUMBERS = (
    _Shape(
        "card", (),
        re.compile(
            rf"(?<![\d.])(?:\d{{13,19}}|\d{{4}}([ -])\d{{4}}\1\d{{4}}\1\d{{4}}|\d{{4}}([ -])\d{{6}}\2\d{{4,5}})"
            rf"(?!\d|{_DASH}\d)"
        ), _card,
    ),
    _Ibans("iban", (), re.compile(""), _never),
    _Shape(
        "my-number", (),
        re.compile(
            r"(?:マイナンバー|個人番号|(?i:my number|individual number))[^\d\n]{0,20}"
            r"(?P<it>\d{4}[ -]?\d{4}[ -]?\d{4})(?!\d)"
        ), _my_number,
    ),
    _Shape(
        "ssn", (),
        re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])", re.ASCII), _ssn,
    ),
    _Shape("phone", (), re.compile(r"(?<![A-Za-z0-9_+])[+＋]\d{1,3}(?:[ .()-]{0,2}\d){6,13}(?!\d)"), _phone),
    _Shape(
        "phone", (),
        re.compile(
            rf"(?<![A-Za-z0-9_０-９.+-])(?:[0０]\d{{1,4}}(?:{_DASH}\d{{1,4}}{_DASH}|[(（]\d{{1,4}}[)）]{_DASH}?)\d{{3,4}}"
            rf"|[(（][0０]\d{{1,4}}[)）] ?\d{{1,4}}{_DASH}\d{{4}}|[0０][5789５７８９][0０]\d{{8}})(?!\d|{_DASH}\d)"
        ), _japanese_phone,
    ),
    _Shape(  # North America; France; mobiles of the United Kingdom
        "phone", (),
        re.compile(
            r"(?<![\w.+-])(?:(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}"
            r"|0[1-9](?:[ .]\d\d){4}|07\d{3} \d{6})(?!\d|[.-]\d)", re.ASCII,
        ), _phone,
    ),
    _Shape(
        "ip", (),
        re.compile(
            r"(?<![\w.])(?<!version )(?<!Version )(?<!section )\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\.?\w)", re.ASCII
        ), _ip,
    ),
    _Shape("ip", (), re.compile(r"(?<![\w:])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])", re.ASCII), _ip),
)  # fmt: skip
_SIGNS = [(sign, shape) for shape in _SHAPES for sign in shape.signs]
