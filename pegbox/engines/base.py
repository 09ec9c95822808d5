"""The engine protocol and what crosses it. Two implementations: `torch.TorchEngine`, in the child process that
holds the weights, and `hosted.HostedEngine`, which speaks to it over a pipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pegbox.errors import EngineError

# What one request may run into without the others being harmed.
FAILURES = (EngineError, RuntimeError, IndexError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """A LoRA adapter in PEFT's format."""

    name: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    temperature: float = 1.0  # 0: always the most likely token
    top_p: float = 1.0
    seed: int | None = None  # None: different at each call
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One continuation to make."""

    prompt: list[int]  # token ids, at least one
    max_tokens: int
    stop_ids: frozenset[int]
    adapter: AdapterRef | None = None  # None: the base itself
    memory: str = ""  # only what was remembered under the same word may be gone on from
    sampling: Sampling = Sampling()
    top_logprobs: int | None = None  # None: no log-probabilities; n: also those of the n likeliest
    grammar: str | None = None  # what the whole answer is kept to, see data/grammar.py


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token's log-probability (nats) under the unmodified distribution, and the likeliest alternatives."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of a generation: a token, or the end."""

    token: int | None
    score: TokenScore | None = None
    finish: Literal["stop", "length"] | None = None


class Engine(Protocol):
    """One base model in memory, many adapters over it. Asked without an adapter, it is the base, untouched.

    `stream` and `score` raise EngineError. A `stream` that is closed early stops generating.
    """

    def stream(self, generation: Generation) -> Iterator[Delta]: ...

    def score(self, tokens: Sequence[int], adapter: AdapterRef | None, top: int = 0) -> list[TokenScore | None]:
        """For each token its log-probability given those before it; None for the first."""
        ...

    def unload(self, adapter: str) -> None:
        """Forget an adapter; no error if it isn't loaded."""
        ...

    def close(self) -> None: ...
