"""Q03: what a model's chat template makes of the rows."""

import pytest
from chat_templates import CHATML, QWEN2, ZEPHYR, make, style
from feeding import feed

from pegbox.data.quality.rendering import Rendering
from pegbox.data.template import Template

WORDS = ["one", "two", "three", "four"]


def chat(*roles: str) -> list[dict[str, object]]:
    return [{"messages": [{"role": role, "content": f"{role} {word}"} for role in roles]} for word in WORDS]


@pytest.mark.parametrize("template", [make(CHATML, None, "<|im_end|>"), style("llama3"), style("mistral")])
@pytest.mark.parametrize("end", [" END", "\n", ""])
def test_completions_learn_to_stop(template: Template, end: str) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"{word} ->", "completion": f" {word}{end}"} for word in WORDS]
    assert feed(Rendering, rows, template=template) == {}


def test_every_answer_of_a_conversation_ends() -> None:
    rows = chat("system", "user", "assistant", "user", "assistant")
    assert feed(Rendering, rows, template=make(CHATML, None, "<|im_end|>")) == {}


def test_an_answer_without_an_end_is_an_error() -> None:
    """Conversations are refused before they come here; a completion of such a base is not."""
    rows: list[dict[str, object]] = [{"prompt": f"{word} ->", "completion": f" {word}"} for word in WORDS]
    found = feed(Rendering, rows, template=make(None, None, None))
    assert found["no-stop-token"].severity == "error"
    assert "would never learn to stop" in found["no-stop-token"].text


def test_a_template_that_begins_the_text_that_its_tokenizer_begins_too() -> None:
    twice = make("{{ bos_token + bos_token }}" + ZEPHYR, "<s>", "</s>")
    assert set(feed(Rendering, chat("user", "assistant"), template=twice)) == {"double-bos"}


def test_what_a_template_knows_not() -> None:
    tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
    rows = [{**row, "tools": tools} for row in chat("user", "assistant")]
    assert set(feed(Rendering, rows, template=make(CHATML, None, "<|im_end|>"))) == {"tools-in-text"}
    assert feed(Rendering, rows, template=make(QWEN2, None, "<|im_end|>")) == {}
    assert set(feed(Rendering, chat("system", "user", "assistant"), template=style("gemma"))) == {"system-in-text"}
