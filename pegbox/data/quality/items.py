"""A row as the checks see it: turns of text, whatever format it came in."""

from dataclasses import dataclass, field
from functools import cached_property

from pegbox.data import toolcalls
from pegbox.data.formats import Conversation, Message, Preference, PromptCompletion, Record, Reinforcement
from pegbox.data.rows import Row


@dataclass
class Item:
    """One good row. Not frozen, for speed alone: nobody changes it. What is asked of it often is kept.

    A prompt/completion row is a user's and an assistant's turn. A preference pair is its prompt and the preferred
    answer, with the other one in `rejected`. A reinforcement row has no answer.
    """

    example: int  # 1-based, as it is counted in the API's errors
    line: int  # 1-based
    format: str  # chat, completion, preference or reinforcement
    roles: tuple[str, ...]  # system, developer, user, assistant, tool
    texts: tuple[str, ...]  # what each turn says; tool calls are written out
    trained: tuple[bool, ...]  # whether the turn is learnt
    tools: tuple[dict[str, object], ...] = field(default=())
    rejected: str | None = None  # of a preference pair

    @cached_property
    def system(self) -> str:
        """The instructions before the talk; "" if there are none."""
        told = [t for r, t in zip(self.roles, self.texts, strict=True) if r in ("system", "developer")]
        return "\n".join(told)

    @cached_property
    def answer_index(self) -> int:
        """The last learnt turn; -1 where there is none."""
        return max((i for i, learnt in enumerate(self.trained) if learnt), default=-1)

    @cached_property
    def answer(self) -> str:
        """The last text that is learnt; "" where there is none."""
        at = self.answer_index
        return self.texts[at] if at >= 0 else ""

    @cached_property
    def question(self) -> str:
        """What the last learnt answer replies to: the turn before it, if that is not the system's."""
        at = self.answer_index if self.answer_index >= 0 else len(self.roles)
        spoken = [i for i in range(at) if self.roles[i] not in ("system", "developer")]
        return self.texts[spoken[-1]] if spoken else ""

    @cached_property
    def prompt(self) -> str:
        """All that is said before the last learnt answer, bar the system's words; one turn a paragraph, and turns of
        a longer talk begin with who speaks."""
        at = self.answer_index if self.answer_index >= 0 else len(self.roles)
        spoken = [i for i in range(at) if self.roles[i] not in ("system", "developer")]
        if len(spoken) == 1:
            return self.texts[spoken[0]]
        return "\n\n".join(f"{self.roles[i]}: {self.texts[i]}" for i in spoken)

    @cached_property
    def talk(self) -> str:
        """All turns but the system's, the answers included."""
        return "\n\n".join(t for r, t in zip(self.roles, self.texts, strict=True) if r not in ("system", "developer"))

    def path(self, turn: int) -> str:
        """Where a turn's text stands in the row, for a person to find."""
        if self.format == "completion":
            return ("prompt", "completion")[turn] if len(self.roles) == 2 else "completion"
        if self.format == "preference":
            if turn == len(self.roles) - 1:
                return "preferred_output[0].content"
            return f"input.messages[{turn}].content"
        return f"messages[{turn}].content"


def item(example: int, line: int, record: Record) -> Item:
    """The row's view for checks."""
    if isinstance(record, PromptCompletion):
        return Item(
            example, line, "completion", ("user", "assistant"), (record.prompt, record.completion), (False, True)
        )
    if isinstance(record, Preference):
        messages = (*record.prompt.messages, record.chosen)
        trained = (False,) * len(record.prompt.messages) + (True,)
        rejected, tools = _text(record.rejected), record.prompt.tools
        return Item(example, line, "preference", _roles(messages), _texts(messages), trained, tools, rejected)
    conversation = record.prompt if isinstance(record, Reinforcement) else record
    messages = conversation.messages
    learns = isinstance(record, Conversation)
    trained = tuple(learns and m.role == "assistant" and m.trained for m in messages)
    return Item(example, line, record.format, _roles(messages), _texts(messages), trained, conversation.tools)


def plain_item(row: Row) -> Item | None:
    """The view of a plain chat row, made without its record; None for any other row."""
    if row.messages is None:
        return None
    roles = tuple([message.role for message in row.messages])
    texts = tuple([message.content for message in row.messages])
    return Item(row.example, row.line, "chat", roles, texts, tuple([role == "assistant" for role in roles]))


def _roles(messages: tuple[Message, ...]) -> tuple[str, ...]:
    return tuple(message.role for message in messages)


def _texts(messages: tuple[Message, ...]) -> tuple[str, ...]:
    return tuple(_text(message) for message in messages)


def _text(message: Message) -> str:
    return toolcalls.write_calls(message) if message.tool_calls else message.content or ""
