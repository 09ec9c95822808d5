"""What the checks look at."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pegbox.data.formats import Conversation, FormatError, Message, Preference, PromptCompletion, parse_row
from pegbox.data.template import Template
from pegbox.engines.base import AdapterRef, Engine
from pegbox.engines.front import chat_request, completion_request
from pegbox.errors import RenderError
from pegbox.receipt.accounts import Accounts
from pegbox.train.attested import Evidence, Part, Sample
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer of the user's row that is to be learnt, and what a client would send to get it."""

    messages: list[object] | None  # of a chat request; None: a completion's
    tools: object
    functions: object
    prompt: str  # of a completion
    answer: Message

    def ask(self, template: Template) -> list[int]:
        """The tokens that the serving path makes of that request. Raises RenderError where it would refuse it."""
        if self.messages is None:
            return completion_request(self.prompt, template)
        try:
            return chat_request(self.messages, self.tools, self.functions, template)[1]
        except FormatError as refused:
            raise RenderError(str(refused)) from refused

    @property
    def comes_first(self) -> bool:
        """Nothing stands before this answer, so no request can ask for it."""
        return self.messages == []


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens in a row that are learnt: from `start` up to `stop` of a part's."""

    part: Part
    start: int
    stop: int

    @property
    def tokens(self) -> list[int]:
        return self.part.tokens[self.start : self.stop]


@dataclass(frozen=True)
class SampledRow:
    """A row that the trainer sampled, as the user wrote it and as it was learnt."""

    sample: Sample
    example: int  # the user's number for it, from 1
    turns: list[Turn]

    @property
    def name(self) -> str:
        return f"example {self.example} of the {'training' if self.sample.file == 'train' else 'held-out'} rows"

    @cached_property
    def spans(self) -> list[Span]:
        return [span for part in self.sample.parts for span in _spans(part)]


@dataclass(frozen=True)
class Case:
    """A trained job, before it is published."""

    recipe: Recipe
    evidence: Evidence
    accounts: Accounts | None
    rows: Sequence[SampledRow]
    template: Template  # that the server asks with
    engine: Callable[[], AbstractContextManager[Engine]]  # that answers; entering raises EngineError
    adapter: AdapterRef | None  # as the engine would load it; None where the model is whole
    adapter_sha256: str  # of its bytes in the store; the weights', where the model is whole
    base_engine: Callable[[], AbstractContextManager[Engine]] | None = None  # None: it is that of the model, too


def sampled_rows(run: RunDir, evidence: Evidence, lines: Sequence[int]) -> list[SampledRow]:
    """The user's rows behind the samples. `lines` are the user's numbers of the training rows; may be empty."""
    wanted = {(sample.file, sample.row) for sample in evidence.samples}
    texts = {}
    for name, path in (("train", run.train_data), ("valid", run.valid_data)):
        for row, text in _lines(path, {row for file, row in wanted if file == name}):
            texts[name, row] = text
    found = []
    for sample in evidence.samples:
        written = texts.get((sample.file, sample.row))
        number = lines[sample.row] if sample.file == "train" and sample.row < len(lines) else sample.row + 1
        turns = [] if written is None else _turns(json.loads(written), evidence.method)
        found.append(SampledRow(sample, number, turns))
    return found


def _lines(path: Path, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    if not wanted or not path.exists():
        return
    with path.open("rb") as file:
        for row, text in enumerate(file):
            if row in wanted:
                yield row, text
            if row >= max(wanted):
                return


def _turns(value: dict[str, object], method: str) -> list[Turn]:
    record = parse_row(value, method)
    if isinstance(record, PromptCompletion):
        return [Turn(None, None, None, record.prompt, Message("assistant", record.completion))]
    if isinstance(record, Preference):
        asked = value["input"]
        assert isinstance(asked, dict), "the row was parsed"
        return [Turn(asked["messages"], asked.get("tools"), asked.get("functions"), "", record.chosen)]
    assert isinstance(record, Conversation), "the methods that train"
    sent = value["messages"]
    assert isinstance(sent, list), "the row was parsed"
    return [
        Turn(sent[:i], value.get("tools"), value.get("functions"), "", message)
        for i, message in enumerate(record.messages)
        if message.role == "assistant" and message.trained
    ]


def _spans(part: Part) -> Iterator[Span]:
    """Runs of learnt tokens."""
    start = before = -2
    for at in [*part.trained, -1]:
        if at != before + 1:
            if start >= 0:
                yield Span(part, start, before + 1)
            start = at
        before = at
