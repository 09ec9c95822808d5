"""The route /v1/chat/completions, and the same by the name of an engine."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse
from starlette.responses import JSONResponse

from pegbox import ids
from pegbox.api import forms, generate
from pegbox.api.deps import Parts, Project, ServerParts, body
from pegbox.api.generate import Target, Written
from pegbox.api.router import new_router
from pegbox.data import toolcalls
from pegbox.data.formats import FormatError, ToolCall
from pegbox.engines.base import Generation
from pegbox.engines.front import chat_request
from pegbox.engines.writer import Piece
from pegbox.errors import InvalidRequest
from pegbox.storage.scope import Scope
from pegbox.wire import chat as wire

router = new_router()
Finish = Literal["stop", "length", "tool_calls", "function_call"]
AnyChunk = wire.Chunk | wire.UncountedChunk


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request, understood."""

    id: str
    created: int
    request: wire.CreateChat
    target: Target
    prompt: list[int]
    generations: tuple[Generation, ...]  # one a choice
    stops: tuple[str, ...]
    calls_tools: bool  # the answer may hold calls: read them out of the text
    is_named: bool  # the one function that it is to call was named

    @property
    def gap(self) -> str:
        """What the template puts between prompt and answer: the model writes it, nobody wants to read it."""
        return self.target.template.around_answer[0]

    @property
    def tells_usage(self) -> bool:
        options = self.request.stream_options
        return options is not None and bool(options.include_usage)

    @property
    def old_functions(self) -> bool:
        return self.request.functions is not None


@router.post("/v1/chat/completions", response_model=None)
async def create(
    request: Annotated[wire.CreateChat, Depends(body(wire.CreateChat))],
    http: Request,
    project: Project,
    parts: ServerParts,
) -> Response:
    return await _answer(request, http, project, parts)


@router.post("/v1/engines/{engine:path}/chat/completions", response_model=None)
async def create_for_engine(engine: str, http: Request, project: Project, parts: ServerParts) -> Response:
    """The way of `engine=` in old clients and of Azure's deployments: the model stands in the path."""
    values = await body(wire.CreateChatForEngine)(http)
    return await _answer(values.with_model(engine), http, project, parts)


async def _answer(request: wire.CreateChat, http: Request, project: Scope, parts: Parts) -> Response:
    asked = await generate.in_thread(partial(_understand, request, project, parts))
    if request.stream:
        return await _stream(asked, parts)
    chat = await generate.while_connected(http, parts.drain, lambda gone: _whole(asked, parts, gone))
    return JSONResponse(chat.model_dump())


def _understand(request: wire.CreateChat, project: Scope, parts: Parts) -> Asked:
    target = generate.find_target(parts, project, request.model)
    generate.check_format(target, "chat")
    _refuse_unsupported(request)
    choice = forms.choice(request)
    try:
        conversation, tokens = chat_request(
            request.messages, forms.offered(request.tools, choice), request.functions, target.template,
            without_tools=choice.mode == "none",
        )  # fmt: skip
    except FormatError as error:
        raise InvalidRequest(
            f"Invalid value for '{error.where}': {error.problem}.", param=error.where, code="invalid_value"
        ) from None
    grammar = forms.grammar_of(request, choice, conversation.tools, target.template.around_answer[0])
    most = request.max_completion_tokens or request.max_tokens
    top = (request.top_logprobs or 0) if request.logprobs else None
    generations = tuple(
        Generation(
            prompt=tokens,
            max_tokens=generate.room(target, tokens, most, what="messages"),
            stop_ids=target.template.stop_ids,
            adapter=target.adapter,
            memory=project.project_id,
            sampling=generate.sampling(request, target, index),
            top_logprobs=top,
            grammar=grammar,
        )
        for index in range(request.n or 1)
    )
    return Asked(
        id=ids.mint("chat"),
        created=int(time.time()),
        request=request,
        target=target,
        prompt=tokens,
        generations=generations,
        stops=generate.stop_sequences(request),
        calls_tools=bool(conversation.tools),
        is_named=choice.is_named,
    )


def _refuse_unsupported(request: wire.CreateChat) -> None:
    """What would change the answer and can't be honoured is refused, not ignored."""
    for param in ("audio", "moderation", "web_search_options"):
        if getattr(request, param) is not None:
            raise InvalidRequest(
                f"'{param}' is not supported by this server; leave it out.", param=param, code="unsupported_value"
            )


# --- answers in one piece ------------------------------------------------------------------------------------


def _whole(asked: Asked, parts: Parts, gone: threading.Event) -> wire.Chat:
    with parts.pool.slots:
        answers = [
            generate.answer_whole(parts, asked.target, generation, asked.stops, gone, gap=asked.gap)
            for generation in asked.generations
        ]
    return wire.Chat(
        id=asked.id,
        created=asked.created,
        model=asked.target.name,
        choices=[_choice(asked, index, answer) for index, answer in enumerate(answers)],
        usage=generate.usage(asked.prompt, sum(answer.tokens for answer in answers)),
        system_fingerprint=generate.FINGERPRINT,
    )


def _choice(asked: Asked, index: int, answer: Written) -> wire.Choice:
    said, calls = toolcalls.read_calls(answer.text) if asked.calls_tools else (answer.text, ())
    finish = _finish(asked, answer.finish, calls)
    message = wire.Message(
        content=said if said or not calls else None,
        tool_calls=[_tool_call(call) for call in calls] if calls and not asked.old_functions else None,
        function_call=_function(calls[0]) if calls and asked.old_functions else None,
    )
    logprobs = _logprobs(asked, answer.pieces)
    return wire.Choice(index=index, message=message, logprobs=logprobs, finish_reason=finish)


def _finish(asked: Asked, finish: Literal["stop", "length"], calls: tuple[ToolCall, ...]) -> Finish:
    if not calls or finish == "length" or asked.is_named:  # a call that was asked for by name ends as text does
        return finish
    return "function_call" if asked.old_functions else "tool_calls"


def _function(call: ToolCall) -> wire.Function:
    return wire.Function(name=call.name, arguments=call.arguments)


def _tool_call(call: ToolCall) -> wire.ToolCall:
    return wire.ToolCall(id=ids.mint("call"), function=_function(call))


def _logprobs(asked: Asked, pieces: tuple[Piece, ...]) -> wire.Logprobs | None:
    if not asked.request.logprobs:
        return None
    scored = [_token_logprob(asked, piece) for piece in pieces if piece.score is not None]
    return wire.Logprobs(content=scored)


def _token_logprob(asked: Asked, piece: Piece) -> wire.TokenLogprob:
    assert piece.token is not None, "a scored piece has a token"
    assert piece.score is not None, "the caller picked scored pieces"
    top = [_top(asked, token, logprob) for token, logprob in piece.score.top]
    return wire.TokenLogprob(**_top(asked, piece.token, piece.score.logprob).model_dump(), top_logprobs=top)


def _top(asked: Asked, token: int, logprob: float) -> wire.TopLogprob:
    template = asked.target.template
    content = generate.token_bytes(template, token)
    return wire.TopLogprob(token=generate.token_text(template, token), logprob=logprob, bytes=list(content))


# --- answers as they are made --------------------------------------------------------------------------------


async def _stream(asked: Asked, parts: Parts) -> StreamingResponse:
    return await generate.stream_events(_chunks(asked, parts), parts.drain)


def _chunks(asked: Asked, parts: Parts) -> Iterator[AnyChunk]:
    produced = 0
    with parts.pool.slots:
        engine = generate.engine_of(parts, asked.target)
        for index, generation in enumerate(asked.generations):
            yield _chunk(asked, index, wire.Delta(role="assistant", content=""))
            writing = generate.written(engine, generation, asked.target.template, asked.stops, gap=asked.gap)
            with closing(writing):
                for piece in _after_calls(asked, index, writing):
                    if not isinstance(piece, Piece):
                        yield piece
                        continue
                    produced += piece.token is not None
                    yield from _piece_chunks(asked, index, piece)
    if asked.tells_usage:
        last = _chunk(asked, 0, wire.Delta())
        yield last.model_copy(update={"choices": [], "usage": generate.usage(asked.prompt, produced)})


def _piece_chunks(asked: Asked, index: int, piece: Piece) -> Iterator[AnyChunk]:
    logprobs = _logprobs(asked, (piece,)) if piece.score is not None else None
    if piece.text or logprobs is not None:
        yield _chunk(asked, index, wire.Delta(content=piece.text), logprobs=logprobs)
    if piece.finish is not None:
        yield _chunk(asked, index, wire.Delta(), finish=piece.finish)


def _after_calls(asked: Asked, index: int, writing: Iterator[Piece]) -> Iterator[Piece | AnyChunk]:
    """Where tools are offered, hold the text back until it is known what is said and what is called."""
    if not asked.calls_tools:
        yield from writing
        return
    pieces = []
    for piece in writing:
        pieces.append(piece)
        yield Piece(token=piece.token)  # counts
    said, calls = toolcalls.read_calls("".join(piece.text for piece in pieces))
    finish = _finish(asked, pieces[-1].finish or "stop", calls)
    if said:
        yield _chunk(asked, index, wire.Delta(content=said))
    if calls and asked.old_functions:
        yield _chunk(asked, index, wire.Delta(function_call=_function(calls[0])))
    elif calls:
        deltas = [wire.ToolCallDelta(index=i, **_tool_call(call).model_dump()) for i, call in enumerate(calls)]
        yield _chunk(asked, index, wire.Delta(tool_calls=deltas))
    yield _chunk(asked, index, wire.Delta(), finish=finish)


def _chunk(
    asked: Asked,
    index: int,
    delta: wire.Delta,
    *,
    logprobs: wire.Logprobs | None = None,
    finish: Finish | None = None,
) -> AnyChunk:
    kind = wire.Chunk if asked.tells_usage else wire.UncountedChunk
    return kind(
        id=asked.id,
        created=asked.created,
        model=asked.target.name,
        choices=[wire.ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=finish)],
        system_fingerprint=generate.FINGERPRINT,
    )
