"""Personal data and secrets: what is one, what only looks like one, and that time stays in proportion."""

import random
import time

import pytest
from feeding import chat, feed, gsm8k, pair
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.quality.codes import Severity
from pegbox.data.quality.secrets import MARKS, Secrets, find, redact
from pegbox.data.quality.text import excerpt


def kinds(text: str) -> list[str]:
    return [hit.kind for hit in find(text) if not hit.public]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to jane.doe+shop@acme.co.uk.", "Write to «EMAIL»."),
        ("連絡先はtaro.yamada@yamada.co.jpです。", "連絡先は«EMAIL»です。"),
        ("電話は090-8765-4321まで", "電話は«PHONE»まで"),
        ("（０９０－８７６５－４３２１）", "（«PHONE»）"),
        ("代表03-6205-7714、FAX 03(6205)7715", "代表«PHONE»、FAX «PHONE»"),
        ("携帯09087654321です", "携帯«PHONE»です"),
        ("Ring (415) 867-5309 or +1 415 867 5308 today", "Ring «PHONE» or «PHONE» today"),
        ("Tel. +49 (0)30 901820-12", "Tel. «PHONE»"),
        ("06 12 34 98 76, merci", "«PHONE», merci"),
        # 4539 1488 0343 6467: doubled from the right 8+5+8+9+3+7+0+8+8+2+4+5+6+8+4+... = 80, by hand
        ("Card 4539 1488 0343 6467, 09/27", "Card «CARD», 09/27"),
        ("Amex 3782 822463 10014", "Amex 3782 822463 10014"),  # the last digit does not check
        ("an DE89 3704 0044 0532 0130 00 BIC COBADEFF", "an «IBAN» BIC COBADEFF"),  # ISO 13616's own example
        ("GB82WEST12345698765432", "«IBAN»"),
        ("GB83WEST12345698765432", "GB83WEST12345698765432"),
        ("マイナンバーは1234 5678 9018です", "マイナンバーは«MY NUMBER»です"),
        ("マイナンバーは1234 5678 9012です", "マイナンバーは1234 5678 9012です"),
        ("SSN: 219-09-1234", "SSN: «SSN»"),
        ("key=sk-proj-a8Fj3kLmN0pQrStUvWxYz123", "key=«API KEY»"),
        ("AKIA2E0A8F3B244C9986 in CI", "«API KEY» in CI"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "«API KEY»"),
        ("hf_AbCdEfGhIjKlMnOpQrStUvWx0123456789", "«API KEY»"),
        ("postgres://app:h4nter!2@db.acme.io/x", "postgres://app:«PASSWORD»@db.acme.io/x"),
        ("from 84.23.117.9 at night", "from «IP» at night"),
        ("2a00:1450:4001:81b::200e", "«IP»"),
        (
            "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P end",
            "token «TOKEN» end",
        ),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----", "«PRIVATE KEY»"),
    ],
)
def test_secrets_are_replaced_by_their_marks(text, wanted):
    assert redact(text) == wanted
    assert redact(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3.4 and v10.2.33.4, section 4.12.118.7 is old",
        "Ports 127.0.0.1, 192.168.1.20, 10.12.14.200 and 192.0.2.44 are nobody's",
        "It ran from 2023-11-05 10:30:45 to 2024-01-02T11:12:13Z",
        "7,854,321 of 10,000,000 and 3.14159265358979",
        "lodash@4.17.21, logo@2x.png, @app.route, git@github.com:acme/box.git",
        "std::vector<int>::iterator it; de:ad:be:ef:00:01",
        "Order 1234-5678-9012, ISBN 978-3-16-148410-0, 令和5年10月12日",
        "Natalia sold 48/2 = <<48/2=24>>24 clips; 48+24 = <<48+24=72>>72",
        "〒100-0001 東京都千代田区千代田1-1-1、電話番号はお答えできません",
        "css: task-list-item-checkbox sk-fading-circle-and-cube-grid",
        "postgres://user:${PASSWORD}@localhost/db and http://localhost:8000/a@b",
        "1600 1700 1800 1900 2000 2100",
    ],
)
def test_what_only_looks_like_one_stays(text):
    assert kinds(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "support@example.com", "taro@example.co.jp", "you@mail.example", "test@test.com", "noreply@acme.io",
        "555-555-0142 is (212) 555-0142", "call 1-800-275-2273", "フリーダイヤル0120-444-113", "4242 4242 4242 4242",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxx1X", "AKIAIOSFODNN7EXAMPLE", "123-45-6789", "ftp://bob:password@host/x",
    ],
)  # fmt: skip
def test_made_up_and_published_values_are_nobodys_but_redacted(text):
    hits = find(text)
    assert hits
    assert all(hit.public for hit in hits)
    assert "«" in redact(text)


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "@", "a@", "a.", "1 ", "0-", "0(", "1.", ":", "2001:", "eyJ", "eyJaaaaaaaaa.", "+", "+1", "sk-", "AKIA",
     "://a:", "AB12 ", "-----BEGIN PRIVATE KEY-----", "4111 ", "マイナンバー", "マイナンバー1", "１", " ", "(4", "a-", "DE89 "],
)  # fmt: skip
def test_time_is_linear_whatever_the_text(unit):
    def seconds(size: int) -> float:
        text = (unit * size)[:size]
        start = time.process_time()
        redact(text)
        return time.process_time() - start

    # A quadratic shape would take hours for a megabyte.
    assert seconds(1_000_000) < 5


_FRAGMENTS = st.sampled_from(
    ["a@b.co", "+1 415 867 5309", "4539 1488 0343 6467", "090-8765-4321", "sk-a8Fj3kLmN0pQrStUvWxYz123", " ", "-", "1",
     "x", ".", "は", "://u:p@h", "219-09-1234", "84.23.117.9", "DE89370400440532013000", "«EMAIL»", "+", "("]
)  # fmt: skip


@given(st.lists(_FRAGMENTS, max_size=12).map("".join) | st.text(max_size=80))
def test_redacting_twice_is_redacting_once(text):
    once = redact(text)
    assert redact(once) == once


def test_numbers_glued_together_are_all_redacted():
    glued = "a@b.co" + "+1 415 867 5309" * 40
    assert not any(c.isdigit() for c in redact(glued))
    assert redact(redact(glued)) == redact(glued)


@given(st.text(max_size=80))
def test_hits_lie_in_order_inside_the_text(text):
    at = 0
    for hit in find(text):
        assert at <= hit.start < hit.end <= len(text)
        assert hit.kind in MARKS
        at = hit.end


def test_rows_are_counted_by_kind_and_excerpts_are_redacted():
    found = feed(
        Secrets,
        [
            chat("Hi", "Write to jane@acme.io or joe@acme.io"),
            chat("I am jane@acme.io", "Welcome"),
            chat("Hi", "Call 555-555-0142"),
            chat("Hi", "Hello"),
        ],
    )
    assert set(found) == {"email", "made-up"}
    email = found["email"]
    assert (email.count, email.share, email.lines, email.severity) == (2, 0.5, (1, 2), Severity.WARNING)
    assert email.data == {"distinct": 2, "learnt_rows": 1}
    assert "2 rows hold an e-mail address (2 different); the model learns to write one in 1 of these rows" in email.text
    assert [sample.places[0].line for sample in email.samples] == [1, 1]
    assert email.samples[0].places[0].path == "messages[1].content"
    assert found["made-up"].severity is Severity.INFO
    assert not any("@" in sample.places[0].excerpt for kind in found.values() for sample in kind.samples)


def test_the_rejected_answer_is_read_and_teaches_nothing():
    email = feed(Secrets, [pair("Who?", "I keep that.", "jo@acme.io")], "dpo")["email"]
    assert email.samples[0].places[0].path == "non_preferred_output[0].content"
    assert email.data["learnt_rows"] == 0


def test_a_repeated_system_prompt_counts_in_every_row():
    email = feed(Secrets, [chat("Hi", "Hello", "Our mail is help@acme.io")] * 7)["email"]
    assert (email.count, len(email.samples)) == (7, 1)


def test_an_excerpt_never_cuts_a_secret_in_two():
    text = "x" * 150 + " jane.doe@acme.io " + "y" * 300
    assert "jane" not in excerpt(text)
    assert "acme" not in excerpt(text, 170)


def _luhn(payload: str) -> str:
    table = {str(d): (d, (2 * d) // 10 + (2 * d) % 10) for d in range(10)}
    total = sum(table[d][(i + 1) % 2] for i, d in enumerate(reversed(payload)))
    return payload + str(-total % 10)


def _made(kind: str, rng: random.Random) -> str:
    """A real-looking value, made by other means than the finder judges by."""
    digits = "".join(rng.choice("0123456789") for _ in range(40))
    letters = "".join(rng.choice("abcdefghijkmnpqrstuvwxyzABCDEFGH23456789") for _ in range(40)) + "z9"
    if kind == "email":
        return f"{rng.choice(['anna', 'kenji', 'li'])}.{letters[:5].lower()}@{rng.choice(['gmail.com', 'web.de', 'docomo.ne.jp'])}"
    if kind == "phone":
        return rng.choice(
            [f"090-{3000 + int(digits[:3])}-2{digits[4:7]}", f"+49 171 2{digits[:6]}", f"(415) 386-2{digits[:3]}"]
        )
    if kind == "card":
        number = _luhn("4" + digits[:14])
        return rng.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4))])
    if kind == "iban":
        bban = digits[:18]
        return f"DE{98 - int(bban + '131400') % 97:02d}{bban}"
    if kind == "ssn":
        return f"{100 + int(digits[:2]):03d}-{10 + int(digits[2])}-{1000 + int(digits[3:6])}"
    if kind == "api-key":
        return rng.choice(["sk-", "hf_", "ghp_"]) + letters[:36]
    return f"{20 + int(digits[:1])}.{100 + int(digits[1:3])}.{int(digits[3:5])}.{10 + int(digits[6])}"


def test_recall_and_precision_on_values_put_into_real_rows():
    rng = random.Random(7)
    rows = [answer for _, answer in gsm8k()[:4000]]
    clean = [row for row in rows if find(row)]
    missed = []
    for n in range(700):
        kind = ("email", "phone", "card", "iban", "ssn", "api-key", "ip")[n % 7]
        value = _made(kind, rng)
        words = rows[n].split(" ")
        words.insert(rng.randrange(len(words)), value)
        text = " ".join(words)
        if value in redact(text) or kind not in [hit.kind for hit in find(text)]:
            missed.append((kind, value))
    assert len(clean) == 0  # 4,000 answers full of sums: not one false alarm
    assert len(missed) <= 7, missed  # 99 % of 700
