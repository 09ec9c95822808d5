import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox import ids


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("file", "file-"), ("job", "ftjob-"), ("event", "ftevent-"), ("checkpoint", "ftckpt_"), ("request", "req_"),
     ("chat", "chatcmpl-"), ("completion", "cmpl-"), ("call", "call_")],
)  # fmt: skip
def test_ids_are_fresh_and_of_their_kind(kind: str, prefix: str) -> None:
    made = {ids.mint(kind) for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(re.escape(prefix) + "[A-Za-z0-9]{24}", name) for name in made)


def test_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        ids.mint("dog")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ("my-model", "my-model"),
        ("My Model", "my-model"),
        ("a:b/c\\d", "a-b-c-d"),
        ("  spaces  ", "spaces"),
        ("v1.0_beta", "v1.0_beta"),
        ("日本", ""),
        ("naïve", "na-ve"),
        ("../../etc", "..-..-etc"),
        ("a\x00b\n", "a-b"),
        ("x" * 100, "x" * 64),
        ("-a-", "a"),
    ],
)
def test_suffixes(text: str, clean: str) -> None:
    assert ids.clean_suffix(text) == clean


@given(st.text())
def test_any_suffix_is_safe_in_a_name(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_.-]{0,64}", ids.clean_suffix(text))


def test_a_cut_suffix_ends_in_no_dash() -> None:
    assert ids.clean_suffix("a" * 63 + " b") == "a" * 63


def test_tuned_names() -> None:
    assert re.fullmatch(r"ft:gpt-4o:acme:my-dog:[A-Za-z0-9]{8}", ids.tuned_name("gpt-4o", "acme", "My dog"))
    assert re.fullmatch(r"ft:org/base:acme::[A-Za-z0-9]{8}", ids.tuned_name("org/base", "acme", None))
    assert re.fullmatch(r"ft:b:o:s:[A-Za-z0-9]{8}:ckpt-step-123", ids.tuned_name("b", "o", "s", step=123))
    assert ids.tuned_name("b", "o", "s") != ids.tuned_name("b", "o", "s")
