import json
import os
import re
import time
from pathlib import Path

import pytest
from chat_templates import ALPACA, CHATML, GEMMA, STYLES, byte_level, make, sentencepiece, style, theirs

from pegbox.data.template import load_template
from pegbox.errors import RenderError

U = {"role": "user", "content": "U"}
A = {"role": "assistant", "content": "A"}


# --- the sandbox and its helpers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages | tojson }}",
        "{{ messages | tojson(indent=2) }}",
        "{{ tools | tojson(indent=4, sort_keys=true) if tools else 'none' }}",
        "{{ messages | tojson(separators=(',', ':'), ensure_ascii=true) }}",
        "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "  {% if true %}\n  a\n  {% endif %}\n b\n",
        "{{ strftime_now('%Y') }}{{ bos_token }}{{ eos_token }}",
        "{% set x = 1 %}{% generation %}{% set x = 2 %}in{{ x }}{% endgeneration %}out{{ x }}",
        "{{ documents is none or documents is not defined }}{{ add_generation_prompt }}",
        "{{ messages[0].missing }}{{ messages[0]['content'] | upper }}{{ messages[5] }}",
    ],
)
def test_helpers_do_what_transformers_does(source: str) -> None:
    template = make(source, "<s>", "</s>")
    messages = [{"role": "user", "content": "<b>é日&'\"</b>"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "ü<>"}}]
    for given in (None, tools):
        assert template.render(messages, given) == theirs(template, messages, tools=given, text=True)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no such thing') }}",
        "{{ messages[0].content.nothing.deeper }}",
        "{{ 1 // 0 }}",
        "{{ messages | length + 'x' }}",
        "{{ [1][messages[0]] }}{{ {}.a.b }}",
        "{% for %}",
        "{{ unclosed",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 10 ** 15 }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ {}['a']['b'] }}",
        "{{ '%d' | format('x') }}",
    ],
)
def test_a_template_that_fails_is_a_refusal(source: str) -> None:
    template = make(source, None, "</s>")
    before = json.dumps([U])
    messages = json.loads(before)
    with pytest.raises(RenderError, match="the model's chat template refuses these messages"):
        template.render(messages)
    assert json.dumps(messages) == before
    # What is asked of a template at start must not fail with it.
    assert template.knows_tools is template.knows_system is False
    assert template.around_answer == ("", "")
    assert template.stop_texts == ("</s>",)


def test_no_template_at_all() -> None:
    template = make(None, "<s>", "</s>")
    with pytest.raises(RenderError, match="no chat template"):
        template.render([U])
    assert template.turn_end == "</s>"
    assert template.knows_tools is False


# --- what a template is found to do --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "turn_end", "around", "tools", "system"),
    [
        ("chatml", "<|im_end|>", ("", "<|im_end|>\n"), False, True),
        ("llama3", "<|eot_id|>", ("", "<|eot_id|>"), False, True),
        ("qwen2", "<|im_end|>", ("", "<|im_end|>\n"), True, True),
        ("thinks-first", "<|im_end|>", ("", "<|im_end|>\n"), False, True),
        ("mistral", "</s>", (" ", "</s>"), False, True),
        ("gemma", "<end_of_turn>", ("", "<end_of_turn>\n"), False, False),
        ("phi3", "<|end|>", ("", "<|end|>\n<|endoftext|>"), False, True),
        ("zephyr", "</s>", ("\n", "</s>\n"), False, True),
        ("alpaca", None, ("", "\n\n"), False, True),
    ],
)
def test_probes(name: str, turn_end: str | None, around: tuple[str, str], tools: bool, system: bool) -> None:
    template = style(name)
    assert template.turn_end == turn_end
    assert template.around_answer == around
    assert (template.knows_tools, template.knows_system) == (tools, system)
    assert set(template.stop_texts) == {turn_end or template.eos, template.eos}
    assert template.stop_ids == {template.tokenizer.token_to_id(t) for t in template.stop_texts}


def test_a_template_that_drops_results_knows_no_tools() -> None:
    source = STYLES["qwen2"][0].replace("{{- message.content }}{{- '\n</tool_response>' }}", "")
    assert source != STYLES["qwen2"][0]
    assert not make(source, None, "<|im_end|>").knows_tools


def test_a_template_that_drops_the_system_message_does_not_know_it() -> None:
    source = "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    assert not make(source, None, "</s>").knows_system


def test_the_longer_of_two_marks_at_one_place_ends_the_turn() -> None:
    tokenizer = byte_level().from_str(byte_level().to_str())
    tokenizer.add_special_tokens(["<|im_end|>2"])
    assert make(CHATML.replace("<|im_end|>", "<|im_end|>2"), None, "</s>", tokenizer).turn_end == "<|im_end|>2"


# --- tokens of a piece in its place --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokenizer",
    [byte_level(), sentencepiece(legacy=True), sentencepiece(legacy=False)],
    ids=["bytes", "legacy", "first"],
)
@pytest.mark.parametrize("after", ["<s>", "x</s>", "\n", "hello there:\n", "[/INST]"])
@pytest.mark.parametrize("text", ["hello", " hello", "a", "</s>\nhello", "日本", ""])
def test_a_piece_is_cut_as_in_the_whole(tokenizer: object, after: str, text: str) -> None:
    template = make(None, "<s>", "</s>", tokenizer)
    assert template.encode(after) + template.encode(text, after=after) == template.encode(after + text)


def test_a_first_piece_is_cut_as_the_tokenizer_cuts() -> None:
    tokenizer = sentencepiece(legacy=True)
    template = make(None, "<s>", "</s>", tokenizer)
    assert template.encode("hello") == [tokenizer.token_to_id("▁hello")]
    assert template.encode("hello", after="x") == [tokenizer.token_to_id("hello")]


# --- reading a model's folder --------------------------------------------------------------------------------


def folder(path: Path, *, config: dict | None = None, settings: dict | None = None, **more: object) -> Path:
    byte_level().save(str(path / "tokenizer.json"))
    files = {"config": config, "tokenizer_config": settings, **more}
    for name, value in files.items():
        if isinstance(value, str):
            (path / f"{name}.jinja").write_text(value, "utf-8")
        elif value is not None:
            (path / f"{name}.json").write_text(json.dumps(value), "utf-8")
    return path


EOS = byte_level().token_to_id("</s>")
END = byte_level().token_to_id("<|im_end|>")


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, {"context": 2048, "eos": None, "bos": None, "eos_ids": (), "source": None}),
        ({"config": {"max_position_embeddings": 512}}, {"context": 512}),
        ({"config": {"n_positions": 1024}}, {"context": 1024}),
        ({"config": {"max_position_embeddings": 512}, "settings": {"model_max_length": 128}}, {"context": 128}),
        ({"config": {"max_position_embeddings": 512}, "settings": {"model_max_length": 10**30}}, {"context": 512}),
        ({"config": {"max_position_embeddings": 512}, "settings": {"model_max_length": 1e30}}, {"context": 512}),
        ({"config": {"text_config": {"max_position_embeddings": 64, "eos_token_id": EOS}}}, {"context": 64, "eos_ids": (EOS,)}),
        ({"config": {"text_config": None, "max_position_embeddings": 64}}, {"context": 64}),
        ({"config": {"eos_token_id": EOS}, "generation_config": {"eos_token_id": [END, EOS]}}, {"eos_ids": tuple(sorted((EOS, END)))}),
        ({"settings": {"eos_token": "</s>", "bos_token": {"content": "<s>"}, "add_bos_token": True}},
         {"eos": "</s>", "bos": "<s>", "specials": {"eos_token": "</s>", "bos_token": "<s>"}}),
        ({"settings": {"pad_token": None, "eos_token": "</s>"}}, {"specials": {"eos_token": "</s>"}}),
        ({"special_tokens_map": {"eos_token": {"content": "</s>"}}}, {"eos": "</s>"}),
        ({"special_tokens_map": {"eos_token": "<s>"}, "settings": {"eos_token": "</s>"}}, {"eos": "</s>"}),
        # GPT-2's tokenizer names no tokens; its configuration numbers them.
        ({"config": {"eos_token_id": EOS, "bos_token_id": END}}, {"eos": "</s>", "bos": "<|im_end|>"}),
        ({"config": {"eos_token_id": EOS}, "settings": {"eos_token": "<|im_end|>"}}, {"eos": "<|im_end|>", "eos_ids": (EOS,)}),
        ({"settings": {"chat_template": "T"}}, {"source": "T"}),
        ({"settings": {"chat_template": "T"}, "chat_template": "own\n"}, {"source": "own\n"}),
        ({"settings": {"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}}, {"source": "D"}),
        ({"settings": {"chat_template": [{"name": "rag", "template": "R"}]}}, {"source": None}),
    ],
    ids=range(19),
)  # fmt: skip
def test_load(tmp_path: Path, files: dict, wanted: dict) -> None:
    template = load_template(folder(tmp_path, **files))
    assert {key: getattr(template, key) for key in wanted} == wanted


def test_the_tiny_model(tiny_model: Path) -> None:
    template = load_template(tiny_model)
    assert (template.context, template.bos, template.eos) == (512, "<|endoftext|>", "<|im_end|>")
    assert template.stop_ids == {2}
    assert template.begins_with_bos is False
    assert template.decode(template.encode("a<|im_end|>")) == "a"
    assert template.decode(template.encode("a<|im_end|>"), keep_specials=True) == "a<|im_end|>"


def test_the_time_is_local() -> None:
    template = make("{{ strftime_now('%H:%M') }}", None, "</s>")
    before = time.strftime("%H:%M")
    shown = template.render([U])
    assert shown in (before, time.strftime("%H:%M"))


def test_templates_are_shared_by_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(i: int) -> tuple[str, frozenset[int], bool]:
        return (
            template.render([{"role": "user", "content": str(i)}], answer_next=True),
            template.stop_ids,
            template.knows_tools,
        )

    for source in (CHATML, GEMMA, ALPACA):
        template = make(source, "<bos>", "<eos>")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(50)))
        assert [re.search(r"\d+", text).group() for text, _, _ in found] == [str(i) for i in range(50)]
        assert len({(ids, tools) for _, ids, tools in found}) == 1


def test_reading_a_template_runs_nothing_of_transformers(tiny_model: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from pegbox.data.template import load_template;"
        f"load_template(Path({os.fspath(tiny_model)!r})).render([{U!r}]); print({{'torch', 'transformers'}} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )
