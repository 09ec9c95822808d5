"""Chat templates in the styles that models use, a tokenizer that knows their marks, and transformers' own
rendering to compare with."""

from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pegbox.data.template import Template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Writes the beginning of text itself, headers as special tokens, and strips what is said.
LLAMA3 = """\
{%- for message in messages %}
{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}
{%- if loop.first %}{%- set content = bos_token + content %}{%- endif %}
{{- content }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}
"""

# Hermes tool calls; a system message of its own where none is given; results share a user's turn.
QWEN2 = """\
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You are Qwen.' }}{%- endif %}
    {{- "\n\n# Tools\n\n<tools>" }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""

# Reasoning is shown in the last answer only, where it is written even if empty.
QWEN3 = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
    {%- set said = message.content %}{%- set thought = '' %}
    {%- if '</think>' in said %}
        {%- set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set said = said.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\n' }}
    {%- if loop.index0 > ns.last %}{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{%- endif %}
    {{- said.lstrip('\n') + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""

# The prompt opens with <think>, which no history holds.
THINKS_FIRST = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)

# No mark asks for an answer; the system message stands in the *last* user turn, so earlier turns change.
MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}
{%- else %}{%- set turns = messages %}{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}
    {%- else %}
        {{- ' ' + message['content'] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

# Ends a conversation that asks for nothing with the end of text, after the end of the turn.
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)

ZEPHYR = """\
{% for message in messages %}
{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""

# No special token ends a turn.
ALPACA = (
    "{% for m in messages %}{{ '### ' + m['role'] + ':\n' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)

GENERATION_MARKS = """\
{%- for m in messages %}
{%- if m.role == 'skip' %}{%- continue %}{%- endif %}
{%- set who = m.role %}
{{- '<|im_start|>' + who + '\n' }}
{%- if m.role == 'assistant' %}{% generation %}{% set who = 'changed' %}{{- m.content + '<|im_end|>' }}{% endgeneration %}{{- '\n' }}
{%- else %}{{- m.content + '<|im_end|>\n' }}{%- endif %}
{%- if who == 'changed' %}{{- 'leaked' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""

SPECIALS = (
    "<|endoftext|>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>",
    "<|end|>",
)  # fmt: skip

# name → (source, bos, eos, whether what is said is stripped)
STYLES = {
    "chatml": (CHATML, None, "<|im_end|>", False),
    "llama3": (LLAMA3, "<s>", "<|eot_id|>", True),
    "qwen2": (QWEN2, None, "<|im_end|>", False),
    "thinks-first": (THINKS_FIRST, None, "<|im_end|>", False),
    "mistral": (MISTRAL, "<s>", "</s>", True),
    "gemma": (GEMMA, "<bos>", "<eos>", True),
    "phi3": (PHI3, None, "<|endoftext|>", False),
    "zephyr": (ZEPHYR, "<s>", "</s>", False),
    "alpaca": (ALPACA, "<s>", "</s>", False),
    "generation-marks": (GENERATION_MARKS, None, "<|im_end|>", False),
}


@cache
def byte_level() -> Tokenizer:
    """As Llama 3 and Qwen have it, with a few merges that reach across likely boundaries."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("Ġ", "Ġ"), ("Ġ", "a"), ("h", "e"), ("l", "l"), ("he", "ll"), ("Ċ", "Ġ"), ("ĊĊ", "Ċ")]
    tokens = [*alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


@cache
def sentencepiece(*, legacy: bool) -> Tokenizer:
    """As Llama 2, Mistral and TinyLlama have it: a space of its own before the text's first word; `legacy`:
    after each special token, too."""
    singles = [f"<0x{i:02X}>" for i in range(256)] + ["▁", *map(chr, range(33, 127))]
    merges = [("▁", "▁"), ("▁", "a"), ("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    tokens = ["<unk>", *singles, *("".join(pair) for pair in merges)]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


@cache
def swallowing() -> Tokenizer:
    """Special tokens that eat the white space after them, as Phi-3's do."""
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.add_special_tokens([AddedToken(text, rstrip=True, special=True) for text in SPECIALS])
    return tokenizer


def make(source: str | None, bos: str | None, eos: str | None, tokenizer: Tokenizer | None = None) -> Template:
    tokenizer = tokenizer or byte_level()
    named = {"bos_token": bos, "eos_token": eos}
    return Template(
        tokenizer=tokenizer,
        context=4096,
        bos=bos,
        eos=eos,
        eos_ids=(tokenizer.token_to_id(eos),) if eos else (),
        specials={key: text for key, text in named.items() if text},
        source=source,
    )


@cache
def style(name: str, tokenizer: Tokenizer | None = None) -> Template:
    source, bos, eos, _ = STYLES[name]
    return make(source, bos, eos, tokenizer)


def theirs(
    template: Template, messages: list[dict], *, tools: list[dict] | None = None, ask: bool = False, text: bool = False
):
    """The same by transformers: its own Jinja, its own tokenizer class."""
    return _fast(template.tokenizer, template.bos, template.eos).apply_chat_template(
        messages,
        chat_template=template.source,
        tools=tools,
        add_generation_prompt=ask,
        tokenize=not text,
        return_dict=False,
    )


@cache
def _fast(tokenizer: Tokenizer, bos: str | None, eos: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)
