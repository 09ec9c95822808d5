"""Chat completions: the request as clients old and new send it, the answer, the chunks of a stream."""

from typing import Annotated, Literal

from pydantic import Field

from pegbox.wire.base import JSONObject, Request, Response, is_absent

Temperature = Annotated[float, Field(ge=0, le=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Choices = Annotated[int, Field(ge=1, le=128)]
MaxTokens = Annotated[int, Field(ge=1)]
Stop = str | Annotated[list[str], Field(max_length=4)]


class StreamOptions(Request):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatOptions(Request):
    """All of a chat request but its model.

    `messages`, `tools` and `functions` are checked by `pegbox.data.formats`, as training rows are. The last
    block changes nothing about the answer here and is accepted so that scripts which set it keep running.
    """

    messages: list[object]
    tools: list[object] | None = None
    functions: list[object] | None = None
    tool_choice: object = None
    function_call: object = None
    parallel_tool_calls: bool | None = None

    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    n: Choices | None = None
    stop: Stop | None = None
    seed: int | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, object] | None = None

    user: str | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: JSONObject | None = None
    prediction: JSONObject | None = None  # what the answer will be like: nothing but a hint that makes it faster
    modalities: list[Literal["text"]] | None = None

    # What would need another kind of model or of service: null is accepted, anything else refused in words.
    audio: object = None
    moderation: object = None
    web_search_options: object = None


class CreateChat(ChatOptions):
    """The body of `POST /v1/chat/completions`."""

    model: str


class CreateChatForEngine(ChatOptions):
    """The same where the path names the model. A model in the body as well is accepted and not used."""

    model: str | None = None

    def with_model(self, model: str) -> CreateChat:
        return CreateChat(**{**self.model_dump(), "model": model})


class Usage(Response):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Function(Response):
    name: str
    arguments: str  # JSON text, as the API has it


class ToolCall(Response):
    id: str
    type: Literal["function"] = "function"
    function: Function


class Message(Response):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | None = Field(default=None, exclude_if=is_absent)
    function_call: Function | None = Field(default=None, exclude_if=is_absent)


class TopLogprob(Response):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(Response):
    content: list[TokenLogprob]
    refusal: None = None


class Choice(Response):
    index: int
    message: Message
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"]


class Chat(Response):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str


class ToolCallDelta(Response):
    index: int
    id: str
    type: Literal["function"] = "function"
    function: Function


class Delta(Response):
    role: Literal["assistant"] | None = Field(default=None, exclude_if=is_absent)
    content: str | None = Field(default=None, exclude_if=is_absent)
    tool_calls: list[ToolCallDelta] | None = Field(default=None, exclude_if=is_absent)
    function_call: Function | None = Field(default=None, exclude_if=is_absent)


class ChunkChoice(Response):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call"] | None = None


class UncountedChunk(Response):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str


class Chunk(UncountedChunk):
    """Of a stream that ends with its usage: there the others say that they have none."""

    usage: Usage | None = None
