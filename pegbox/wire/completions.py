"""Legacy completions: `POST /v1/completions`."""

from typing import Annotated, Literal

from pydantic import Field

from pegbox.wire.base import Request, Response
from pegbox.wire.chat import Bias, Choices, Fraction, Penalty, Stop, StreamOptions, Temperature, Usage

Prompt = str | list[str] | list[int] | list[list[int]]


class CompletionOptions(Request):
    """All of a legacy completion's body but its model. `max_tokens` is 16 unless said, as it always was."""

    prompt: Prompt | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    n: Choices | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    stop: Stop | None = None
    seed: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    user: str | None = None


class CreateCompletion(CompletionOptions):
    """The body of `POST /v1/completions`."""

    model: str


class CreateCompletionForEngine(CompletionOptions):
    """The same where the path names the model. A model in the body as well is accepted and not used."""

    model: str | None = None

    def with_model(self, model: str) -> CreateCompletion:
        return CreateCompletion(**{**self.model_dump(), "model": model})


class Logprobs(Response):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class Choice(Response):
    index: int
    text: str
    logprobs: Logprobs | None = None
    # null only in a stream's chunks before the last
    finish_reason: Literal["stop", "length"] | None


class Completion(Response):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None  # null in a stream's chunks before the last
    system_fingerprint: str


class UncountedCompletion(Completion):
    """A chunk of a stream that tells no usage at all."""

    usage: None = Field(default=None, exclude=True)
