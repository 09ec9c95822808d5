"""A base model's way with words: its tokenizer, its chat template, the tokens that end a turn.

Read from the model's folder without transformers: `tokenizers` and a sandboxed Jinja. The templates come from
the models' authors, so they run in a sandbox that can change nothing and reach nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from pegbox.errors import RenderError

_PROBE = "PEGBOX-PROBE"


@dataclass(frozen=True)
class Template:
    """Text ↔ tokens for one base model. Shared by threads; holds no state that changes."""

    tokenizer: Tokenizer
    context: int  # tokens the model can see at once
    bos: str | None
    eos: str | None
    eos_ids: tuple[int, ...]  # every token that the model's own configuration says ends a text
    specials: dict[str, str]  # bos_token, eos_token, … as chat templates name them
    source: str | None  # the Jinja text; None: the model knows no chat format

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, nothing added at either end."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int], *, keep_specials: bool = False) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=not keep_specials))

    def render(
        self,
        messages: list[dict[str, object]],
        tools: list[dict[str, object]] | None = None,
        *,
        answer_next: bool = False,
    ) -> str:
        """The template's own output; with `answer_next`, ready for the assistant to speak.

        Raises RenderError where the model has no template or its template refuses the messages.
        """
        if self._jinja is None:
            raise RenderError("this model has no chat template; use prompt and completion instead of messages")
        try:
            return str(
                self._jinja.render(
                    messages=messages, tools=tools or None, add_generation_prompt=answer_next, **self.specials
                )
            )
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise RenderError(f"the model's chat template refuses these messages: {error}") from None

    @cached_property
    def begins_with_bos(self) -> bool:
        """Whether the tokenizer itself puts a beginning-of-text token before plain text."""
        ids = self.tokenizer.encode("a", add_special_tokens=True).ids
        return self.bos is not None and ids[:1] == [self.tokenizer.token_to_id(self.bos)]

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the template itself writes tools and tool calls; many drop them in silence."""
        tool: dict[str, object] = {
            "type": "function",
            "function": {"name": _PROBE, "description": "", "parameters": {"type": "object", "properties": {}}},
        }
        call = {"type": "function", "function": {"name": _PROBE, "arguments": {"a": 1}}}
        asked: list[dict[str, object]] = [{"role": "user", "content": "a"}]
        called = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            return (
                _PROBE in self.render(asked, [tool])
                and _PROBE in self.render(called)
                and _PROBE in self.render([*called, {"role": "tool", "content": _PROBE}])
            )
        except RenderError:
            return False

    @cached_property
    def knows_system(self) -> bool:
        """Whether a system message is written; some templates refuse it."""
        try:
            return _PROBE in self.render(
                [{"role": "system", "content": _PROBE}, {"role": "user", "content": "a"}]
            )
        except RenderError:
            return False

    @cached_property
    def turn_end(self) -> str | None:
        """The special token that the template writes after an assistant's words, as text."""
        if self._jinja is None:
            return self.eos
        asked: list[dict[str, object]] = [{"role": "user", "content": "a"}]
        text = self.render([*asked, {"role": "assistant", "content": _PROBE}])
        after = text[text.rindex(_PROBE) + len(_PROBE) :]
        found = [(after.find(token), token) for token in self._special_texts if token in after]
        return min(found)[1] if found else None

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens at which generation ends."""
        ids = set(self.eos_ids)
        for text in (self.eos, self.turn_end):
            token = self.tokenizer.token_to_id(text) if text else None
            if token is not None:
                ids.add(token)
        return frozenset(ids)

    @cached_property
    def stop_texts(self) -> tuple[str, ...]:
        """The same tokens as they stand in rendered text."""
        texts = (self.tokenizer.id_to_token(token) for token in sorted(self.stop_ids))
        return tuple(text for text in texts if text)

    @cached_property
    def _special_texts(self) -> list[str]:
        added = self.tokenizer.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special]

    @cached_property
    def _jinja(self) -> jinja2.Template | None:
        return _environment().from_string(self.source) if self.source is not None else None


def load_template(folder: Path) -> Template:
    """Read a model folder in hub layout: `tokenizer.json`, `tokenizer_config.json`, `config.json`."""
    settings = _read(folder / "tokenizer_config.json")
    config = _read(folder / "config.json")
    config = config.get("text_config", config)  # models that also see pictures keep ours one level down
    specials = {
        key: value if isinstance(value, str) else value["content"]
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, (str, dict))
    }
    context = int(config.get("max_position_embeddings") or 2048)
    if isinstance(settings.get("model_max_length"), int):  # "unlimited" is written as 10**30
        context = min(context, settings["model_max_length"])
    return Template(
        tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")),
        context=context,
        bos=specials.get("bos_token"),
        eos=specials.get("eos_token"),
        eos_ids=_eos_ids(config, _read(folder / "generation_config.json")),
        specials=specials,
        source=_template_source(folder, settings),
    )


def _read(path: Path) -> dict[str, object] | dict[str, object]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}  # type: ignore[no-any-return]


def _eos_ids(*configs: dict[str, object]) -> tuple[int, ...]:
    found: set[int] = set()
    for config in configs:
        value = config.get("eos_token_id")
        found.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    return tuple(sorted(found))


def _template_source(folder: Path, settings: dict[str, object]) -> str | None:
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text("utf-8")
    value = settings.get("chat_template")
    if isinstance(value, list):  # several named templates
        named = {item["name"]: item["template"] for item in value}
        value = named.get("default")
    return value if isinstance(value, str) else None


class _Generation(Extension):
    """Lets templates keep `{% generation %}` marks, which have no meaning here: segments know who speaks."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own way

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _refuse
    env.globals["strftime_now"] = _now
    return env


def _now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which no model has seen in training.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


