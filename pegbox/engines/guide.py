"""Keeps an answer to its grammar (`data/grammar.py`): before each token, what would leave it is taken out of the draw.

So the answer has its form however the model was tuned; only the end of its tokens can cut it short. The masks over the
vocabulary are llguidance's.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from llguidance import LLMatcher, LLTokenizer

from pegbox.errors import FormError

_BITS = torch.arange(8, dtype=torch.uint8)  # of a byte, lowest first


@dataclass(frozen=True, slots=True)
class Guide:
    """How far one answer has come in its grammar."""

    matcher: LLMatcher

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (V,) with minus infinity where a token may not come next. Raises FormError."""
        words = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)  # (V / 8,)
        if self.matcher.is_error():
            raise FormError(_reason(self.matcher))
        bits = words[:, None].bitwise_right_shift(_BITS).bitwise_and(1)  # (V / 8, 8)
        return logits.masked_fill(bits.flatten()[: len(logits)] == 0, -torch.inf)

    def follow(self, token: int) -> None:
        """That token was drawn."""
        self.matcher.consume_token(token)


def _reason(matcher: LLMatcher) -> str:
    """The first line: below it stands the whole grammar."""
    return str(matcher.get_error().partition("\n")[0])


class Guides:
    """Makes them for one model. Its tokenizer is read when the first is wanted."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._folder = folder
        self._vocabulary = vocabulary  # V, the width of the logits
        self._known: tuple[frozenset[int], LLTokenizer] | None = None  # by the tokens that end an answer

    def make(self, grammar: str, stop_ids: frozenset[int]) -> Guide:
        """Raises FormError where the tokenizer or the grammar is of another kind."""
        matcher = LLMatcher(self._tokenizer(stop_ids), grammar, log_level=0)
        if matcher.is_error():
            raise FormError(_reason(matcher))
        return Guide(matcher)

    def _tokenizer(self, stop_ids: frozenset[int]) -> LLTokenizer:
        if self._known is None or self._known[0] != stop_ids:
            try:
                text = (self._folder / "tokenizer.json").read_text("utf-8")
                self._known = stop_ids, LLTokenizer(text, n_vocab=self._vocabulary, eos_token=sorted(stop_ids))
            except (OSError, ValueError, RuntimeError) as error:
                raise FormError(f"no grammar can be put over this model's tokens ({error})") from error
        return self._known[1]
