"""Counting is exact: as many tokens as rendering and encoding make, whatever the template, tokenizer and text."""

import io
import json
import re
from functools import cache

import pytest
from chat_templates import QWEN3, SPECIALS, STYLES, byte_level, sentencepiece, style
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from pegbox.data.count import Count, TokenCounter
from pegbox.data.formats import Conversation, Message, Record
from pegbox.data.render import examples, truncate
from pegbox.data.rows import read_rows
from pegbox.data.skeleton import hollow
from pegbox.data.template import Template
from pegbox.data.words import WordTable
from pegbox.errors import RenderError

quick = settings(deadline=None, max_examples=60)
piece = st.one_of(
    st.sampled_from(
        ["\n", " ", "  ", "\n\n", " \n x", "\t", "\u3000", "\u00a0a", "日本語のテキスト", "🙂👍🏽", "don't", "I'LL", "3.14", "１２",
         "<", "<|", "<|im_", "|>", "end|>", "<s", "a" * 50, "\u2028", "\u0301", "e\u0301", "x \u0301y", "hello", "/*", "?!", *SPECIALS]
    ),
    st.text(max_size=6),
)  # fmt: skip
text = st.lists(piece, max_size=8).map("".join)
sentence = st.lists(st.text(alphabet="abcdeHX'.,?1é", min_size=1, max_size=6), min_size=1, max_size=8).map(" ".join)
said = st.one_of(text, sentence)


@cache
def gpt2_like() -> Tokenizer:
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))


@cache
def llama3_like() -> Tokenizer:
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return _byte_level(pre_tokenizers.Sequence(steps))


def _byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """With merges that would join words, if the pre-tokenizer let them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("Ġ", "a"),
        ("Ġ", "b"),
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("c", "Ġ"),
        ("Ċ", "Ċ"),
        ("Ġ", "Ġ"),
        ("'", "l"),
    ]
    tokens = [*alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


TOKENIZERS = {
    "gpt2": gpt2_like, "llama3": llama3_like, "unknown-pattern": byte_level,
    "sentencepiece": lambda: sentencepiece(legacy=False), "sentencepiece-legacy": lambda: sentencepiece(legacy=True),
}  # fmt: skip


def naive(record: Record, template: Template, limit: int) -> Count:
    """The count by its definition."""
    whole = examples(record, template)
    cut = [e for e in (truncate(example, limit) for example in whole) if e.n_trained]
    return Count(
        tokens=sum(len(e.tokens) for e in whole),
        trained=sum(e.n_trained for e in whole),
        longest=max((len(e.tokens) for e in whole), default=0),
        kept=sum(len(e.tokens) for e in cut),
        kept_trained=sum(e.n_trained for e in cut),
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@quick
@given(text)
def test_a_text_has_as_many_tokens_as_the_tokenizer_makes(tokenizer, given_text):
    made = TOKENIZERS[tokenizer]()
    table = WordTable(made)
    if table.cuts_at_marks:
        assert table.tokens(given_text) == len(made.encode(given_text, add_special_tokens=False).ids)


def test_the_ways_of_cutting_are_known_for_these_tokenizers():
    tables = {name: WordTable(make()) for name, make in TOKENIZERS.items()}
    assert {name for name, table in tables.items() if table.cuts_at_words} == {"gpt2", "llama3"}
    assert {name for name, table in tables.items() if table.cuts_at_marks} == {"gpt2", "llama3", "unknown-pattern"}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", [*STYLES, "qwen3"])
@settings(deadline=None, max_examples=12)
@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.tuples(said, said.filter(bool)), min_size=1, max_size=3)),
        min_size=1,
        max_size=6,
    )
)
def test_rows_count_what_rendering_and_encoding_make_of_them(tokenizer, name, talks):
    template = style(name, TOKENIZERS[tokenizer]()) if name != "qwen3" else _qwen3(TOKENIZERS[tokenizer]())
    lines = []
    for system, turns in talks:
        messages = [{"role": "system", "content": "Be brief."}] if system else []
        for asked, answered in turns:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        lines.append(json.dumps({"messages": messages}).encode() + b"\n")
    counter = TokenCounter(template, limit=20)
    for row, count in counter.count(read_rows(io.BytesIO(b"".join(lines)))):
        assert row.record is not None
        if isinstance(count, RenderError):
            with pytest.raises(RenderError, match=re.escape(str(count))):
                naive(row.record, template, 20)
        else:
            assert count == naive(row.record, template, 20)


def _qwen3(tokenizer: Tokenizer) -> Template:
    from dataclasses import replace

    return replace(style("chatml", tokenizer), source=QWEN3)


def test_templates_that_look_into_contents_have_no_skeleton():
    looks = _qwen3(gpt2_like())
    assert hollow(("user", "assistant"), looks) is None
    assert hollow(("user", "assistant"), style("chatml", gpt2_like())) is not None


def test_a_skeleton_is_the_rendering_with_holes():
    template = style("llama3", gpt2_like())  # strips what is said: fine, where nothing is to be stripped
    segments = hollow(("user", "assistant"), template)
    assert segments is not None
    filled = ["".join(p if isinstance(p, str) else ("hi", "yo")[p.message] for p in s.parts) for s in segments]
    from pegbox.data.render import render

    expected = render(Conversation((Message("user", "hi"), Message("assistant", "yo"))), template)
    assert filled == [s.text for s in expected[0]]


def test_the_table_forgets_and_still_counts(monkeypatch):
    monkeypatch.setattr("pegbox.data.words._KEPT_WORDS", 5)
    tokenizer = gpt2_like()
    table = WordTable(tokenizer)
    for i in range(50):
        table.forget()
        words = f"how do I find card {i} again"
        assert table.tokens(words) == len(tokenizer.encode(words, add_special_tokens=False).ids)
        assert len(table._words) < 20
