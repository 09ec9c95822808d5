"""From an engine's tokens to text: whole characters only, and never past a stop sequence."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from tokenizers.decoders import DecodeStream

from pegbox.data.template import Template
from pegbox.engines.base import Engine, Generation, TokenScore


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added. The last one carries `finish`."""

    text: str = ""
    token: int | None = None
    score: TokenScore | None = None
    finish: Literal["stop", "length"] | None = None


def write(
    engine: Engine, generation: Generation, template: Template, stops: tuple[str, ...] = (), *, gap: str = ""
) -> Iterator[Piece]:
    """Yield text as it is sure: half a character, or what may become a stop sequence, is held back.

    `gap` is what the chat template writes between prompt and answer (a space, say): the model writes it too, and it
    is left out where the text begins with it. Close the iterator to stop generating.
    """
    # The decoder knows the end of the prompt, so a first token that begins with a space keeps it.
    decoder = DecodeStream(ids=generation.prompt[-4:], skip_special_tokens=True)
    held = ""
    with closing(engine.stream(generation)) as deltas:  # type: ignore[type-var]
        for delta in deltas:
            if delta.token is None:
                yield Piece(held, finish=delta.finish)
                return
            held += decoder.step(template.tokenizer, delta.token) or ""
            if gap and len(held) < len(gap) and gap.startswith(held):
                yield Piece("", delta.token, delta.score)
                continue
            held, gap = held.removeprefix(gap), ""
            cut = min((held.find(stop) for stop in stops if stop in held), default=None)
            if cut is not None:
                yield Piece(held[:cut], delta.token, delta.score)
                yield Piece(finish="stop")
                return
            sure = len(held) - _overlap(held, stops)
            yield Piece(held[:sure], delta.token, delta.score)
            held = held[sure:]


def _overlap(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that a stop sequence begins with."""
    longest = max((min(len(stop) - 1, len(text)) for stop in stops), default=0)
    for size in range(longest, 0, -1):
        if any(stop.startswith(text[-size:]) for stop in stops):
            return size
    return 0
