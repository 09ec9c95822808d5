"""What a table's columns mean, and its rows as training rows.

Columns are known by their names, in any case and in several languages; the user may name them instead.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pegbox.data import strict_json
from pegbox.data.strict_json import printable
from pegbox.data.tables.encodings import TableError

Row = dict[str, object]

# Which columns go together, the surest first. Names are compared without case, spaces, "_" and "-".
_PAIRS = (
    (("prompt", "プロンプト"), ("completion", "response", "answer", "output", "回答", "応答")),
    (("question", "質問", "問題"), ("answer", "response", "completion", "output", "回答", "応答", "解答", "答え")),
    (("instruction", "指示"), ("output", "response", "answer", "completion", "出力", "回答", "応答")),
    (("input", "入力"), ("output", "response", "answer", "target", "label", "completion", "出力")),
    (("user", "human", "usermessage", "ユーザー"), ("assistant", "gpt", "bot", "assistantmessage", "アシスタント")),
    (("query", "request", "クエリ"), ("response", "answer", "reply", "completion", "output", "回答", "応答")),
    (("source", "src"), ("target", "tgt")),
    (
        ("text", "sentence", "utterance", "message", "content", "review", "文", "文章", "テキスト", "本文"),
        (
            "label", "category", "intent", "class", "sentiment", "target", "labeltext", "ラベル", "カテゴリ",
            "カテゴリー", "分類",
        ),
    ),
)  # fmt: skip
_SYSTEM = ("system", "systemprompt", "systemmessage", "システム", "システムプロンプト")
_MESSAGES = ("messages", "conversations", "conversation")
_CHOSEN = ("chosen", "preferred", "preferredoutput")
_REJECTED = ("rejected", "nonpreferred", "dispreferred", "nonpreferredoutput")
_EXTRA_INPUT = ("input", "入力", "context", "コンテキスト")  # stands below an instruction or a question
_CHAT_KEYS = ("messages", "tools", "functions", "parallel_tool_calls")
_PREFERENCE = {"input", "preferred_output", "non_preferred_output"}
_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column is what. Either `completion`, `messages` or `chosen` is set."""

    prompt: str | None = None
    extra: str | None = None  # a column that follows the prompt, as Alpaca's `input` does
    completion: str | None = None
    messages: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    system: str | None = None
    system_text: str | None = None  # the same system prompt for every row
    whole: bool = False  # rows are training rows as they are

    def named(self) -> dict[str, str]:
        """Column → what it was taken for."""
        return {
            column: role
            for role, column in (
                ("prompt", self.prompt), ("prompt, continued", self.extra), ("completion", self.completion),
                ("messages", self.messages), ("preferred answer", self.chosen), ("other answer", self.rejected),
                ("system prompt", self.system),
            )
            if column is not None
        }  # fmt: skip

    def used(self) -> set[str]:
        """The columns that reach the training rows."""
        return {*self.named(), *(_CHAT_KEYS if self.messages else ()), *(_PREFERENCE if self.whole else ())}


class RowError(ValueError):
    """A row that can't become a training row."""


def roles_of(
    columns: Sequence[str],
    *,
    prompt: str | None = None,
    completion: str | None = None,
    system: str | None = None,
) -> Roles:
    """What each column is for. `prompt` and `completion` name columns; `system` names one, or is itself the text.

    Raises TableError where it can't be told; the sentence lists the columns.
    """
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(_plain(column), column)
    system_column = _find(by_name, (_plain(system),)) if system else _find(by_name, _SYSTEM)
    system_text = system if system and system_column is None else None
    if prompt or completion:
        asked = _asked(by_name, columns, prompt) if prompt else None
        return Roles(
            prompt=asked, completion=_asked(by_name, columns, completion or ""), system=system_column,
            system_text=system_text,
        )  # fmt: skip
    if set(columns) >= _PREFERENCE:
        return Roles(whole=True)
    if messages := _find(by_name, _MESSAGES):
        return Roles(messages=messages, system=system_column, system_text=system_text)
    asks, answers = _pair(by_name)
    chosen, rejected = _find(by_name, _CHOSEN), _find(by_name, _REJECTED)
    if chosen and rejected:
        asks = asks or _find(by_name, [name for pair in _PAIRS for name in pair[0]])
        return Roles(prompt=asks, chosen=chosen, rejected=rejected, system=system_column, system_text=system_text)
    if answers is None and len(columns) == 1:
        answers = _find(by_name, [name for pair in _PAIRS[:1] for name in (*pair[1], "text")])
    if answers is None:
        shown = ", ".join(f'"{printable(column)}"' for column in columns[:20])
        raise TableError(
            f"which columns are prompt and completion can't be told from their names; they are {shown}. "
            "Name them: --prompt COLUMN --completion COLUMN"
        )
    extra = _find(by_name, _EXTRA_INPUT) if asks and _plain(asks) in (*_PAIRS[1][0], *_PAIRS[2][0]) else None
    return Roles(
        prompt=asks, extra=extra if extra != answers else None, completion=answers, system=system_column,
        system_text=system_text,
    )  # fmt: skip


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _find(by_name: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((by_name[name] for name in names if name in by_name), None)


def _asked(by_name: Mapping[str, str], columns: Sequence[str], name: str) -> str:
    if name in columns:
        return name
    found = by_name.get(_plain(name)) if name else _find(by_name, [word for pair in _PAIRS for word in pair[1]])
    if found is None:
        shown = ", ".join(f'"{printable(column)}"' for column in columns[:20])
        said = f'there is no column "{printable(name)}"' if name else "--completion is missing"
        raise TableError(f"{said}; the columns are {shown}")
    return found


def _pair(by_name: Mapping[str, str]) -> tuple[str | None, str | None]:
    for asks, answers in _PAIRS:
        one, other = _find(by_name, asks), _find(by_name, answers)
        if one and other and one != other:
            return one, other
    return None, None


# --- cells to training rows ----------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """A cell as text, numbers as people write them; "" for an empty one. Raises RowError for a list or an object."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise RowError(f"holds a {'list' if isinstance(value, list) else 'JSON object'} where text belongs")


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of prompt and completion, before it is written as a training row."""

    prompt: str
    completion: str
    system: str


def pair_of(value: Row, roles: Roles) -> Pair:
    """Raises RowError."""
    pieces = [_cell(value, column) for column in (roles.prompt, roles.extra) if column]
    return Pair(
        "\n\n".join(piece for piece in pieces if piece), _cell(value, roles.completion), _system(value, roles)
    )  # fmt: skip


def training_row(pair: Pair, format_: str) -> Row:
    """`format_` is chat or completion; in the latter the system prompt stands before the prompt."""
    if format_ == "completion":
        return {"prompt": "\n\n".join(t for t in (pair.system, pair.prompt) if t), "completion": pair.completion}
    turns = (("system", pair.system), ("user", pair.prompt), ("assistant", pair.completion))
    return {"messages": [{"role": role, "content": text} for role, text in turns if text]}


def chat_row(value: Row, roles: Roles) -> Row:
    """A row whose cell holds the messages, as JSON text or as values. Raises RowError."""
    assert roles.messages is not None
    held = _listed(value.get(roles.messages))
    if held is None:
        raise RowError(f'column "{printable(roles.messages)}" holds no list of messages')
    messages = [_message(message) for message in held]
    system = _system(value, roles)
    if system and not (messages and messages[0].get("role") == "system"):
        messages.insert(0, {"role": "system", "content": system})
    row: Row = {"messages": messages}
    for key in _CHAT_KEYS[1:]:
        extra = value.get(key)
        if extra not in (None, "", []):
            row[key] = _parsed(extra) if isinstance(extra, str) else extra
    return row


def preference_row(value: Row, roles: Roles) -> Row:
    """Columns chosen and rejected: answers to a prompt, lists of messages, or whole talks that begin alike.
    Raises RowError."""
    asked, chosen, rejected = (_talk(value.get(c)) if c else [] for c in (roles.prompt, roles.chosen, roles.rejected))
    if len(chosen) > 1 or len(rejected) > 1:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if len(chosen) != shared + 1 or len(rejected) != shared + 1:
            raise RowError("the two talks differ before their last answer; a pair has one prompt and two answers")
        asked = chosen[:shared]
    if not asked or not chosen or not rejected:
        raise RowError("a pair needs a prompt, a preferred answer and another one")
    for talk in (chosen, rejected):
        talk[-1]["role"] = "assistant"
    system = _system(value, roles)
    told = [{"role": "system", "content": system}] if system and asked[0]["role"] != "system" else []
    return {
        "input": {"messages": [*told, *asked]},
        "preferred_output": [chosen[-1]],
        "non_preferred_output": [rejected[-1]],
    }


def _cell(value: Row, column: str | None) -> str:
    if column is None:
        return ""
    try:
        return text_of(value.get(column))
    except RowError as error:
        raise RowError(f'column "{printable(column)}" {error}') from None


def _system(value: Row, roles: Roles) -> str:
    return roles.system_text or _cell(value, roles.system)


def _parsed(text: str) -> object:
    try:
        return strict_json.loads(text)
    except strict_json.JSONError as error:
        raise RowError(str(error)) from None


def _listed(value: object) -> list[object] | None:
    if isinstance(value, str):
        value = _parsed(value)
    return value if isinstance(value, list) else None


def _message(value: object) -> Row:
    """A message under today's keys: ShareGPT's `from` and `value` are brought to role and content, and empty cells
    (which a Parquet file fills in for keys that are not there) go."""
    if not isinstance(value, dict):
        raise RowError("a message is no object with role and content")
    message = {key: item for key, item in value.items() if item is not None or key == "content"}
    if "from" in message and "value" in message:
        message = {"role": message.pop("from"), "content": message.pop("value"), **message}
    role = message.get("role")
    if isinstance(role, str):
        message["role"] = _SPEAKERS.get(role.lower(), role.lower())
    return message


def _talk(value: object) -> list[Row]:
    """A cell as messages: a list of them, a transcript of Human: and Assistant: turns, or a single text."""
    if isinstance(value, list):
        return [_message(message) for message in value]
    text = text_of(value)
    if not text.strip():
        return []
    if not _TURN.match(text):
        return [{"role": "user", "content": text}]
    pieces = _TURN.split(text)[1:]
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]
