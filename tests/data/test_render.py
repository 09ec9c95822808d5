"""What is trained on is what is asked with, and both are what transformers writes."""

import re
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from chat_templates import (
    QWEN3,
    SPECIALS,
    STYLES,
    byte_level,
    make,
    sentencepiece,
    style,
    swallowing,
    theirs,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegbox.data.formats import Conversation, Message, PromptCompletion, ToolCall, parse_conversation
from pegbox.data.render import Example, encode, examples, plain_prompt, prompt, render, truncate
from pegbox.data.template import Template, load_template
from pegbox.errors import RenderError

quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
NO_SYSTEM = {"gemma"}

odd = st.sampled_from(
    ["\n", " ", "\n\n", " \n x", "x \n\n", "日本語のテキスト", "🙂👍🏽", "{{ m }}", "{% raw %}", "[INST]", "<think>", "</tool_call>",
     "### user:", "PEGBOX-PROBE", "a" * 50, "\u2028", "\x00", "é̀", "hello", *SPECIALS]
)  # fmt: skip
words = st.lists(st.one_of(odd, st.text(max_size=8)), max_size=4).map("".join)
plain = st.text(alphabet="abcdefghij .,?", min_size=1, max_size=12).map(str.strip).filter(bool)


@st.composite
def conversations(draw: st.DrawFn, text: st.SearchStrategy[str] = words) -> Conversation:
    said = draw(st.lists(st.tuples(text, text.filter(bool), st.booleans()), min_size=1, max_size=4))
    messages = [Message("system", draw(text))] if draw(st.booleans()) else []
    for asked, answer, trained in said:
        messages += [Message("user", asked), Message("assistant", answer, trained=trained)]
    return Conversation(tuple(messages))


def dicts(conversation: Conversation) -> list[dict]:
    return [{"role": m.role, "content": m.content} for m in conversation.messages]


def runs(example: Example) -> list[tuple[int, int]]:
    """Where trained tokens begin and end."""
    out, at = [], 0
    for mark, group in groupby(example.trained):
        size = len(list(group))
        if mark:
            out.append((at, at + size))
        at += size
    return out


def answers(conversation: Conversation) -> list[int]:
    return [i for i, m in enumerate(conversation.messages) if m.role == "assistant" and m.trained]


def check_asked_as_trained(conversation: Conversation, template: Template) -> list[list[int]]:
    """Each trained answer stands, in its example, after exactly the tokens that ask for it. Gives their tokens."""
    made = examples(conversation, template)
    found = [(example.tokens[:start], example.tokens[start:end]) for example in made for start, end in runs(example)]
    wanted = answers(conversation)
    assert len(found) == len(wanted)
    for i, (context, _) in zip(wanted, found, strict=True):
        assert context == prompt(Conversation(conversation.messages[:i], conversation.tools), template)
    return [tokens for _, tokens in found]


# --- every style, random conversations -----------------------------------------------------------------------


@pytest.mark.parametrize("name", STYLES)
@quick
@given(conversation=conversations())
def test_random_conversations_are_asked_as_they_were_trained(name: str, conversation: Conversation) -> None:
    template = style(name)
    stop = template.turn_end or template.eos
    learnt = check_asked_as_trained(conversation, template)
    gap = template.around_answer[0]
    for i, tokens in zip(answers(conversation), learnt, strict=True):
        said = conversation.messages[i].content
        said = gap + (said.strip() if STYLES[name][3] else said)
        assert template.decode(tokens, keep_specials=True) == said + stop
        stop_id = template.tokenizer.token_to_id(stop)
        assert stop_id in template.stop_ids
        assert tokens[-1] == stop_id
        assert tokens.count(stop_id) == said.count(stop) + 1


@pytest.mark.parametrize("name", STYLES)
@quick
@given(conversation=conversations())
def test_the_text_is_transformers_own(name: str, conversation: Conversation) -> None:
    template = style(name)
    if conversation.messages[0].role == "system" and name in NO_SYSTEM:
        conversation = Conversation(conversation.messages[1:])
    asked = conversation.messages[:-1]
    ours = template.render(dicts(Conversation(asked)), answer_next=True)
    assert ours == theirs(template, dicts(Conversation(asked)), ask=True, text=True)
    assert template.render(dicts(conversation)) == theirs(template, dicts(conversation), text=True)
    if not any(m.role == "assistant" for m in asked):  # one segment: token for token
        assert prompt(Conversation(asked), template) == theirs(template, dicts(Conversation(asked)), ask=True)


@pytest.mark.parametrize("tokenizer", [byte_level(), sentencepiece(legacy=True), sentencepiece(legacy=False), swallowing()],
                         ids=["byte-level", "sentencepiece-legacy", "sentencepiece", "swallowing"])  # fmt: skip
@pytest.mark.parametrize("name", ["chatml", "llama3", "mistral", "gemma", "phi3", "zephyr"])
@settings(deadline=None, max_examples=25)
@given(conversation=conversations(plain))
def test_the_tokens_are_transformers_own(name: str, tokenizer: object, conversation: Conversation) -> None:
    """Where no text begins or ends in white space, segments join as one text would be cut."""
    template = style(name, tokenizer)
    conversation = Conversation(tuple(m for m in conversation.messages if m.role != "system"))
    for i in range(1, len(conversation.messages), 2):
        asked = Conversation(conversation.messages[:i])
        assert prompt(asked, template) == theirs(template, dicts(asked), ask=True)
    everything = Conversation(tuple(replace(m, trained=True) for m in conversation.messages))
    (example,) = examples(everything, template)
    assert example.tokens == theirs(template, dicts(everything))[: len(example.tokens)]


@quick
@given(conversation=conversations())
def test_random_conversations_with_a_tokenizer_that_adds_spaces(conversation: Conversation) -> None:
    for legacy in (True, False):
        check_asked_as_trained(conversation, style("zephyr", sentencepiece(legacy=legacy)))


# --- examples by hand ----------------------------------------------------------------------------------------


def test_chatml_by_hand() -> None:
    template = style("chatml")
    conversation = parse_conversation([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A\n", "weight": 0},
        {"role": "user", "content": "V"},
        {"role": "assistant", "content": " B"},
        {"role": "user", "content": "never answered"},
    ])  # fmt: skip
    (segments,) = render(conversation, template)
    assert [(s.text, s.trained) for s in segments] == [
        ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n", False),
        ("A\n<|im_end|>", False),
        ("\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n", False),
        (" B<|im_end|>", True),
    ]
    example = encode(segments, template)
    assert example.n_trained == 3  # space, B, stop
    assert len(truncate(example, 10).tokens) == len(truncate(example, 10).trained) == 10
    assert truncate(example, 10).n_trained == 0


def test_mistral_by_hand() -> None:
    """The system message moves to the newest question, so each answer is learnt in a context of its own."""
    template = style("mistral")
    conversation = parse_conversation([
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "V"},
        {"role": "assistant", "content": "B"},
    ])  # fmt: skip
    first, second = render(conversation, template)
    assert [s.text for s in first] == ["<s>[INST] S\n\nU[/INST]", " A</s>"]
    assert [s.text for s in second] == ["<s>[INST] U[/INST] A</s>[INST] S\n\nV[/INST]", " B</s>"]


def test_a_prompt_that_opens_with_think_is_what_the_answer_follows() -> None:
    template = style("thinks-first")
    conversation = parse_conversation([{"role": "user", "content": "U"}, {"role": "assistant", "content": "<b>A</b>"}])
    (segments,) = render(conversation, template)
    assert [s.text for s in segments] == [
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n<think>\n",
        "<b>A</b><|im_end|>",
    ]
    thought = parse_conversation(
        [{"role": "user", "content": "U"}, {"role": "assistant", "content": "<think>\nhm</think>A"}]
    )
    (segments,) = render(thought, template)
    assert segments[1].text == "hm</think>A<|im_end|>"  # the prompt has opened the thought already


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("phi3", "A<|end|>"),
        ("zephyr", "\nA</s>"),
        ("alpaca", "A\n</s>"),
        ("llama3", "A<|eot_id|>"),
        ("gemma", "A<end_of_turn>"),
    ],
)
def test_an_answer_ends_at_the_first_stop(name: str, answer: str) -> None:
    said = "A\n" if name == "alpaca" else "A"
    (segments,) = render(
        parse_conversation([{"role": "user", "content": "U"}, {"role": "assistant", "content": said}]), style(name)
    )
    assert segments[-1].text == answer


# --- templates that rewrite ----------------------------------------------------------------------------------


@cache
def qwen3() -> Template:
    return make(QWEN3, None, "<|im_end|>")


def test_reasoning_is_learnt_where_it_is_shown() -> None:
    template = qwen3()
    conversation = parse_conversation([
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "<think>\nwhy\n</think>\n\nA"},
        {"role": "user", "content": "V"},
        {"role": "assistant", "content": "<think>\nhow\n</think>\n\nB"},
    ])  # fmt: skip
    first, second = render(conversation, template)
    assert [s.text for s in first] == [
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n",
        "<think>\nwhy\n</think>\n\nA<|im_end|>",
    ]
    assert [s.text for s in second] == [
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
        "<think>\nhow\n</think>\n\nB<|im_end|>",
    ]
    contexts = [dicts(Conversation(conversation.messages[:i])) for i in (1, 3)]
    made = [encode(segments, template) for segments in (first, second)]
    for example, context in zip(made, contexts, strict=True):
        (start, _), = runs(example)  # fmt: skip
        assert example.tokens[:start] == theirs(template, context, ask=True)


def test_sequences_with_nothing_to_learn_are_left_out() -> None:
    said = [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A", "weight": 0}] * 2
    last = [{"role": "user", "content": "V"}, {"role": "assistant", "content": "B"}]
    assert len(render(parse_conversation([*said, *last]), qwen3())) == 1


thoughts = st.tuples(words, words).map(lambda pair: f"<think>\n{pair[0]}\n</think>\n\n{pair[1]}")


@quick
@given(conversation=conversations(st.one_of(words, thoughts)))
def test_random_thoughts(conversation: Conversation) -> None:
    check_asked_as_trained(conversation, qwen3())


# --- system messages a template refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "texts"),
    [
        (["system", "user", "assistant"], ["s0\n\nu1"]),
        (["developer", "system", "user", "assistant"], ["d0\n\ns1\n\nu2"]),
        (["system", "assistant"], ["s0"]),  # nobody asked: the system message does
        (["user", "assistant"], ["u0"]),
    ],
)
def test_a_refused_system_message_becomes_part_of_the_question(roles: list[str], texts: list[str]) -> None:
    conversation = parse_conversation([{"role": role, "content": f"{role[0]}{i}"} for i, role in enumerate(roles)])
    template = style("gemma")
    (segments,) = render(conversation, template)
    assert re.findall(r"<start_of_turn>user\n(.*?)<end_of_turn>", segments[0].text, re.DOTALL) == texts
    assert segments[1].text == f"a{len(roles) - 1}<end_of_turn>"
    check_asked_as_trained(conversation, template)


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_turns_that_do_not_alternate_are_refused_with_the_templates_own_words(name: str) -> None:
    conversation = parse_conversation([{"role": "user", "content": "U"}] * 2 + [{"role": "assistant", "content": "A"}])
    with pytest.raises(RenderError, match="alternate"):
        examples(conversation, style(name))


def test_names_are_kept() -> None:
    conversation = parse_conversation(
        [{"role": "user", "content": "hi", "name": "Ann"}, {"role": "assistant", "content": "ho", "name": "Bot"}]
    )
    (segments,) = render(conversation, style("chatml"))
    assert segments[0].text == "<|im_start|>user\nAnn: hi<|im_end|>\n<|im_start|>assistant\n"
    assert segments[1].text == "ho<|im_end|>"


# --- tools ---------------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "f", "description": "é", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}}]  # fmt: skip
CALLED = [
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1, "y": "日"}'}},
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]},
    {"role": "tool", "tool_call_id": "c1", "content": "one"},
    {"role": "tool", "tool_call_id": "c2", "content": "two"},
    {"role": "assistant", "content": "done"},
]  # fmt: skip
WRITTEN = '<tool_call>\n{"name": "f", "arguments": {"x": 1, "y": "日"}}\n</tool_call>\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def test_tools_in_a_template_that_knows_them() -> None:
    template = style("qwen2")
    assert template.knows_tools
    conversation = parse_conversation(CALLED, TOOLS)
    learnt = check_asked_as_trained(conversation, template)
    # The template writes no line break after the header of a turn that only calls: the prompt has it.
    assert [template.decode(tokens, keep_specials=True) for tokens in learnt] == [
        f"{WRITTEN}<|im_end|>",
        "done<|im_end|>",
    ]
    hub = [dict(m) for m in CALLED]
    hub[1] = {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": "日"}}},
        {"type": "function", "function": {"name": "f", "arguments": {}}},
    ]}  # fmt: skip
    (example,) = examples(conversation, template)
    assert example.tokens == theirs(template, hub, tools=TOOLS)[: len(example.tokens)]


def test_a_call_is_learnt_after_a_prompt_that_is_no_prefix_of_the_history() -> None:
    source = STYLES["qwen2"][0].removesuffix("{{- '<|im_start|>assistant\n' }}{%- endif %}\n")
    template = make(source + "{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}", None, "<|im_end|>")
    learnt = check_asked_as_trained(parse_conversation(CALLED, TOOLS), template)
    assert [template.decode(tokens, keep_specials=True).strip() for tokens in learnt] == [
        f"{WRITTEN}<|im_end|>",
        "done<|im_end|>",
    ]


@pytest.mark.parametrize("name", ["chatml", "gemma", "mistral", "llama3"])
def test_tools_in_a_template_that_knows_none(name: str) -> None:
    template = style(name)
    assert not template.knows_tools
    conversation = parse_conversation(CALLED, TOOLS)
    stop = template.turn_end
    learnt = [
        template.decode(tokens, keep_specials=True).strip() for tokens in check_asked_as_trained(conversation, template)
    ]
    assert learnt == [f"{WRITTEN}{stop}", f"done{stop}"]
    asked = template.decode(
        prompt(Conversation(conversation.messages[:4], conversation.tools), template), keep_specials=True
    )
    assert '"description": "é"' in asked
    assert "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>" in asked


@pytest.mark.parametrize(
    "arguments", ["[" * 100_000, "9" * 5000, '{"a": "\\ud800"}', '{"a": NaN}', "not json", '{"a":1,"a":2}']
)
@pytest.mark.parametrize("name", ["chatml", "qwen2"])
def test_arguments_that_are_no_proper_json_are_text(name: str, arguments: str) -> None:
    call = Message("assistant", None, tool_calls=(ToolCall("f", arguments),))
    template = style(name)
    (tokens,) = check_asked_as_trained(Conversation((Message("user", "U"), call)), template)
    assert arguments.replace("\\", "\\\\").replace('"', '\\"') in template.decode(tokens)


# --- completions ---------------------------------------------------------------------------------------------


@cache
def with_bos() -> Template:
    """A tokenizer that begins plain text with <s> of itself."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return make(None, "<s>", "</s>", tokenizer)


@pytest.mark.parametrize(
    ("template", "text", "start"),
    [
        (with_bos(), "P", "<s>P"),
        (with_bos(), "", "<s>"),
        (make(None, "<s>", "</s>"), "P", "P"),
        (make(None, "<s>", "</s>"), "", "<s>"),
        (make(None, None, "</s>"), "", "</s>"),
        (make(None, None, "</s>"), "Q\n\n###\n\n", "Q\n\n###\n\n"),
    ],
)
def test_completion_rows(template: Template, text: str, start: str) -> None:
    (example,) = examples(PromptCompletion(text, " yes\n"), template)
    n = len(plain_prompt(text, template))
    assert example.tokens[:n] == plain_prompt(text, template)
    assert not any(example.trained[:n])
    assert all(example.trained[n:])
    assert template.decode(example.tokens[:n], keep_specials=True) == start
    assert template.decode(example.tokens[n:], keep_specials=True) == " yes\n</s>"
    if text and template.begins_with_bos:
        assert plain_prompt(text, template) == template.tokenizer.encode(text).ids


@quick
@given(text=words, completion=words.filter(bool))
def test_random_completions(text: str, completion: str) -> None:
    for template in (with_bos(), make(None, "<s>", "</s>", sentencepiece(legacy=True))):
        (example,) = examples(PromptCompletion(text, completion), template)
        asked = plain_prompt(text, template)
        assert example.tokens[: len(asked)] == asked
        assert example.trained == [False] * len(asked) + [True] * (len(example.tokens) - len(asked))
        assert example.tokens[-1] == template.tokenizer.token_to_id("</s>")


def test_a_completion_ends_as_a_turn_where_no_end_of_text_is_named() -> None:
    (example,) = examples(PromptCompletion("P", "C"), make(STYLES["chatml"][0], None, None))
    assert example.tokens[-1] == byte_level().token_to_id("<|im_end|>")
    assert example.n_trained == 2


def test_messages_without_a_chat_template_are_refused_with_the_remedy() -> None:
    conversation = parse_conversation([{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}])
    with pytest.raises(RenderError, match="use prompt and completion"):
        examples(conversation, with_bos())


# --- the real model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(smollm2_models: Path) -> Template:
    from conftest import SMOLLM2

    return load_template(smollm2_models / SMOLLM2)


@pytest.fixture(scope="module")
def smollm2_theirs(smollm2_models: Path) -> Any:
    from conftest import SMOLLM2
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_models / SMOLLM2)


@settings(deadline=None, max_examples=40)
@given(conversation=conversations())
def test_smollm2_is_asked_as_it_was_trained(smollm2: Template, conversation: Conversation) -> None:
    stop = smollm2.tokenizer.token_to_id("<|im_end|>")
    for i, tokens in zip(answers(conversation), check_asked_as_trained(conversation, smollm2), strict=True):
        said = conversation.messages[i].content
        assert tokens[-1] == stop
        assert tokens[:-1] == smollm2.encode(said)


@settings(deadline=None, max_examples=40)
@given(conversation=conversations(words))
def test_smollm2_text_is_transformers_own(smollm2: Template, smollm2_theirs: Any, conversation: Conversation) -> None:
    for made in (conversation, Conversation(conversation.messages[:-1])):
        for ask in (True, False):
            ours = smollm2.render(dicts(made), answer_next=ask)
            assert ours == smollm2_theirs.apply_chat_template(dicts(made), tokenize=False, add_generation_prompt=ask)
    first = Conversation(conversation.messages[: answers_at(conversation)])
    assert prompt(first, smollm2) == smollm2_theirs.apply_chat_template(
        dicts(first), add_generation_prompt=True, return_dict=False
    )


def answers_at(conversation: Conversation) -> int:
    return next(i for i, m in enumerate(conversation.messages) if m.role == "assistant")


@settings(deadline=None, max_examples=40)
@given(conversation=conversations(plain))
def test_smollm2_tokens_are_transformers_own(
    smollm2: Template, smollm2_theirs: Any, conversation: Conversation
) -> None:
    asked = Conversation(conversation.messages[:-1])
    assert prompt(asked, smollm2) == smollm2_theirs.apply_chat_template(
        dicts(asked), add_generation_prompt=True, return_dict=False
    )
    everything = Conversation(tuple(replace(m, trained=True) for m in conversation.messages))
    (example,) = examples(everything, smollm2)
    whole = smollm2_theirs.apply_chat_template(dicts(everything), return_dict=False)
    assert example.tokens == whole[: len(example.tokens)]
    assert smollm2.decode(whole[len(example.tokens) :]) == "\n"


def test_a_long_conversation_takes_no_long_time(smollm2: Template) -> None:
    turns = [Message(role, f"{role} {i}") for i in range(50) for role in ("user", "assistant")]
    (example,) = examples(Conversation(tuple(turns)), smollm2)
    assert len(runs(example)) == 50
    assert all(a[1] < b[0] for a, b in pairwise(runs(example)))
