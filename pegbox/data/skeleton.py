"""A chat template's output with holes where the contents go.

Most templates write a message's content as it is and look no further into it. For those, the segments of every row
with the same roles differ in nothing but the contents, so one rendering serves them all. Whether a template is one of
them is found out by rendering contents that refuse to be looked into (`Opaque`): a template that compares, searches
or cuts them is not, and its rows are rendered one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pegbox.data.formats import Conversation, Message
from pegbox.data.opaque import LookedIntoError, Opaque
from pegbox.data.render import render
from pegbox.data.template import Template
from pegbox.errors import RenderError

# Characters that any escaping would change stand around a content's number, so what was rewritten is not found again.
_OPEN, _CLOSE = '\ue000"<&\n\\', '\\\n"<&\ue001'


@dataclass(frozen=True, slots=True)
class Hole:
    """The place of a message's content."""

    message: int  # from 0


@dataclass(frozen=True, slots=True)
class HollowSegment:
    """A segment of literal text and holes, in order."""

    parts: tuple[str | Hole, ...]
    trained: bool


def hollow(roles: Sequence[str], template: Template) -> tuple[HollowSegment, ...] | None:
    """The segments of any row of plain messages with these roles, where no content is empty or has white space at an
    end. None where they depend on what the contents say, or where the row makes several examples."""
    messages = tuple(Message(role, _opaque(i)) for i, role in enumerate(roles))
    try:
        sequences = render(Conversation(messages), template)
    except (LookedIntoError, RenderError):
        return None
    if len(sequences) != 1:
        return None
    segments = tuple(HollowSegment(_parts(str(s.text)), s.trained) for s in sequences[0])
    holes = [part.message for segment in segments for part in segment.parts if isinstance(part, Hole)]
    literal = "".join(part for segment in segments for part in segment.parts if isinstance(part, str))
    whole = "\ue000" not in literal and "\ue001" not in literal
    return segments if whole and holes == list(range(len(roles))) else None


def _parts(text: str) -> tuple[str | Hole, ...]:
    parts: list[str | Hole] = []
    literal, *rest = text.split(_OPEN)
    parts.append(literal)
    for piece in rest:
        number, closed, literal = piece.partition(_CLOSE)
        parts.extend((Hole(int(number)), literal) if closed and number.isdecimal() else (_OPEN + piece,))
    return tuple(part for part in parts if part != "")


def _opaque(number: int) -> str:
    return Opaque(f"{_OPEN}{number}{_CLOSE}")
