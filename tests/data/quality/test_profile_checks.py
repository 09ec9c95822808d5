"""Whatever a file holds, the profile checks come through, in time that grows with its length and no faster."""

import time

import pytest
from feeding import feed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegbox.data.quality.affixes import Affixes
from pegbox.data.quality.balance import Balance
from pegbox.data.quality.base import Check
from pegbox.data.quality.boilerplate import Boilerplate
from pegbox.data.quality.endings import Endings
from pegbox.data.quality.grounding import Grounding
from pegbox.data.quality.lengths import Lengths
from pegbox.data.quality.order import Order
from pegbox.data.quality.preferences import Preferences
from pegbox.data.quality.profile import Profile
from pegbox.data.quality.turns import Turns

CHECKS: tuple[type[Check], ...] = (
    Affixes, Balance, Boilerplate, Endings, Grounding, Lengths, Order, Preferences, Profile, Turns,
)  # fmt: skip
PIECES = ["", " ", "\n", "\n" + " " * 70, "```", "(", "「", "。", "A", "Ab", "é", "１２", "3,", "2024-1-2", "x@y.z", "http://",
          "カタカナ", "ｶﾅ", "\u200d", "👩‍💻", "<tool_call>\n", "\0", "####", "x" * 100, "漢" * 50, " Mr Ab's", "1" * 50]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
SAID = TEXT.filter(bool)
ROLE = st.sampled_from(["system", "developer", "user", "tool"])


def _message(role: str, text: str) -> dict[str, object]:
    return {"role": role, "content": text}


CHAT = st.builds(
    lambda before, answer, after: {
        "messages": [_message(*turn) for turn in before] + [_message("assistant", answer)] + [_message(*turn) for turn in after]
    },
    st.lists(st.tuples(ROLE, TEXT), max_size=4), SAID, st.lists(st.tuples(ROLE, TEXT), max_size=1),
)  # fmt: skip
COMPLETION = st.builds(lambda prompt, completion: {"prompt": prompt, "completion": completion}, TEXT, SAID)
PAIR = st.builds(
    lambda prompt, chosen, rejected: {
        "input": {"messages": [_message("user", prompt)]},
        "preferred_output": [_message("assistant", chosen)],
        "non_preferred_output": [_message("assistant", rejected)],
    },
    TEXT, SAID, SAID,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
@given(rows=st.lists(st.one_of(CHAT, COMPLETION), min_size=1, max_size=8), times=st.sampled_from([1, 20]))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_rows(check, rows, times):
    feed(check, rows * times)


@given(rows=st.lists(PAIR, min_size=1, max_size=8), times=st.sampled_from([1, 20]))
@settings(max_examples=30, deadline=None)
def test_any_pairs(rows, times):
    for check in CHECKS:
        feed(check, rows * times, "dpo")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("piece", [piece for piece in PIECES if piece.strip()])
def test_long_texts_take_linear_time(check, piece):
    text = piece * (100_000 // len(piece))
    rows = [{"prompt": text, "completion": text + "."}] * 2
    start = time.perf_counter()
    feed(check, rows)
    assert time.perf_counter() - start < 2
