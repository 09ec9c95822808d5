"""A base model's way with words: its tokenizer, its chat template, the tokens that end a turn.

Read from the model's folder without transformers: `tokenizers` and a sandboxed Jinja. The templates come from
the models' authors, so they run in a sandbox that can change nothing and reach nothing, in a process that can be killed
(`confined.py`).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pegbox.data import confined
from pegbox.errors import RenderError

PROBE = "PEGBOX-PROBE"
MAX_SOURCE = 1_000_000  # characters of a chat template; the longest in use have 30,000
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")
_RESULT = "PEGBOX-RESULT"


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

    def encode(self, text: str, *, after: str = "") -> list[int]:
        """Token ids of `text`, nothing added at either end, as they are where `after` stands before it.

        Some tokenizers put a space before a text's first word, or drop white space after a special token.
        """
        lead = self._lead(after)
        if not lead:
            return self._ids(text)
        before, both = self._ids(lead), self._ids(lead + text)
        return both[len(before) :] if both[: len(before)] == before else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _lead(self, before: str) -> str:
        """The least text that makes the tokenizer treat what follows as it does after `before`."""
        special = max((t for t in self.special_texts if before.endswith(t)), key=len, default="")
        return special or ("\n" if before and self._adds_a_space else "")

    @cached_property
    def _adds_a_space(self) -> bool:
        """Whether the tokenizer begins every text with a space of its own (Llama 2, Mistral, TinyLlama)."""
        start, line = self._ids("\n"), self._ids("\na")
        return line[: len(start)] == start and line[len(start) :] != self._ids("a")

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

        Raises RenderError where the model has no template, or its template refuses the messages or goes beyond its
        limits.
        """
        if self.source is None:
            raise RenderError("this model has no chat template; use prompt and completion instead of messages")
        given = {"tools": tools or None, "add_generation_prompt": answer_next, **self.specials}
        return confined.render(self.source, messages, given)

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
            "function": {"name": PROBE, "description": "", "parameters": {"type": "object", "properties": {}}},
        }
        call = {"type": "function", "function": {"name": PROBE, "arguments": {"a": 1}}}
        asked: list[dict[str, object]] = [{"role": "user", "content": "a"}]
        called: list[dict[str, object]] = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            return (
                PROBE in self.render(asked, [tool])
                and PROBE in self.render(called)
                and _RESULT in self.render([*called, {"role": "tool", "content": _RESULT}])
            )
        except RenderError:
            return False

    @cached_property
    def knows_system(self) -> bool:
        """Whether a system message is written; some templates refuse it."""
        try:
            return PROBE in self.render([{"role": "system", "content": PROBE}, {"role": "user", "content": "a"}])
        except RenderError:
            return False

    @cached_property
    def around_answer(self) -> tuple[str, str]:
        """What the template writes between the prompt and an assistant's words (often nothing, or a space),
        and after them."""
        asked: list[dict[str, object]] = [{"role": "user", "content": "a"}]
        try:
            prompt = self.render(asked, answer_next=True)
            text = self.render([*asked, {"role": "assistant", "content": PROBE}])
        except RenderError:
            return "", ""
        head, _, tail = text.rpartition(PROBE)
        return head[len(prompt) :] if head.startswith(prompt) else "", tail if head else ""

    @cached_property
    def turn_end(self) -> str | None:
        """The special token that the template writes after an assistant's words, as text."""
        if self.source is None:
            return self.eos
        _, after = self.around_answer
        found = [(after.find(token), -len(token), token) for token in self.special_texts if token in after]
        return min(found)[2] if found else None

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
    def special_texts(self) -> list[str]:
        """The tokens that stand for no text: wherever one is written out, the model reads the token."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special and token.content]


def load_template(folder: Path) -> Template:
    """Read a model folder in hub layout: `tokenizer.json`, `tokenizer_config.json`, `config.json`.

    Raises RenderError for a chat template that is too long to be one.
    """
    # Older folders name their special tokens in a file of their own.
    settings = {**_read(folder / "special_tokens_map.json"), **_read(folder / "tokenizer_config.json")}
    config = _read(folder / "config.json")
    config = config.get("text_config") or config  # models that also see pictures keep ours one level down
    specials = {
        key: value if isinstance(value, str) else value["content"]
        for key, value in settings.items()
        if key.endswith("_token") and isinstance(value, (str, dict))
    }
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    eos_ids = _eos_ids(config, _read(folder / "generation_config.json"))
    for key, token in (("bos_token", config.get("bos_token_id")), ("eos_token", next(iter(eos_ids), None))):
        text = tokenizer.id_to_token(token) if isinstance(token, int) else None
        if text is not None:  # GPT-2's tokenizer, for one, names no special tokens
            specials.setdefault(key, text)
    context = next((int(config[key]) for key in _CONTEXT_KEYS if config.get(key)), 2048)
    if isinstance(settings.get("model_max_length"), int):  # "unlimited" is written as 10**30
        context = min(context, settings["model_max_length"])
    return Template(
        tokenizer=tokenizer,
        context=context,
        bos=specials.get("bos_token"),
        eos=specials.get("eos_token"),
        eos_ids=eos_ids,
        specials=specials,
        source=_template_source(folder, settings),
    )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _eos_ids(*configs: dict[str, object]) -> tuple[int, ...]:
    found: set[int] = set()
    for config in configs:
        value = config.get("eos_token_id")
        found.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    return tuple(sorted(found))


def _template_source(folder: Path, settings: dict[str, object]) -> str | None:
    source = _found_source(folder, settings)
    if source is not None and len(source) > MAX_SOURCE:
        raise RenderError(
            f"the model's chat template is {len(source):,} characters long, more than the {MAX_SOURCE:,} allowed"
        )
    return source


def _found_source(folder: Path, settings: dict[str, object]) -> str | None:
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text("utf-8")
    value = settings.get("chat_template")
    if isinstance(value, list):  # several named templates
        named = {item["name"]: item["template"] for item in value}
        value = named.get("default")
    return value if isinstance(value, str) else None
