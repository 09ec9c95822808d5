"""/v1/completions, the older way: a prompt goes in as it is, its continuation comes out."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response
from starlette.responses import JSONResponse

from pegbox import ids
from pegbox.api import generate
from pegbox.api.deps import Parts, Project, ServerParts, body
from pegbox.api.generate import Target, Written
from pegbox.api.router import new_router
from pegbox.data.template import Template
from pegbox.engines.base import Generation, TokenScore
from pegbox.engines.front import completion_request
from pegbox.engines.writer import Piece
from pegbox.errors import InvalidRequest
from pegbox.storage.scope import Scope
from pegbox.wire import completions as wire

router = new_router()
_DEFAULT_MAX_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A completion request, understood."""

    id: str
    created: int
    request: wire.CreateCompletion
    target: Target
    prompts: tuple[list[int], ...]
    generations: tuple[Generation, ...]  # n (or best_of) for each prompt
    stops: tuple[str, ...]


@router.post("/v1/completions", response_model=None)
async def create(
    request: Annotated[wire.CreateCompletion, Depends(body(wire.CreateCompletion))],
    http: Request,
    project: Project,
    parts: ServerParts,
) -> Response:
    return await _answer(request, http, project, parts)


@router.post("/v1/engines/{engine:path}/completions", response_model=None)
async def create_for_engine(engine: str, http: Request, project: Project, parts: ServerParts) -> Response:
    values = await body(wire.CreateCompletionForEngine)(http)
    return await _answer(values.with_model(engine), http, project, parts)


async def _answer(request: wire.CreateCompletion, http: Request, project: Scope, parts: Parts) -> Response:
    asked = await generate.in_thread(partial(_understand, request, project, parts))
    if request.stream:
        return await generate.stream_events(_chunks(asked, parts), parts.drain)
    done = await generate.while_connected(http, parts.drain, lambda gone: _whole(asked, parts, gone))
    return JSONResponse(done.model_dump())


def _understand(request: wire.CreateCompletion, project: Scope, parts: Parts) -> Asked:
    target = generate.find_target(parts, project, request.model)
    generate.check_format(target, "completion")
    _refuse_unsupported(request)
    prompts = tuple(_prompts(request.prompt, target.template))
    most = _DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    generations = tuple(
        Generation(
            prompt=prompt,
            max_tokens=generate.room(target, prompt, most, what="prompt"),
            stop_ids=target.template.stop_ids,
            adapter=target.adapter,
            memory=project.project_id,
            sampling=generate.sampling(request, target, index),
            top_logprobs=request.logprobs,
        )
        for prompt in prompts
        for index in range(request.n or 1)
    )
    return Asked(
        id=ids.mint("completion"),
        created=int(time.time()),
        request=request,
        target=target,
        prompts=prompts,
        generations=generations,
        stops=generate.stop_sequences(request),
    )


def _refuse_unsupported(request: wire.CreateCompletion) -> None:
    if request.suffix:
        raise InvalidRequest("This model can't fill in text before a suffix.", param="suffix", code="unsupported_value")
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise InvalidRequest(
            "best_of larger than n is not supported; ask for n choices and pick.",
            param="best_of",
            code="unsupported_value",
        )
    if request.echo and request.stream:
        raise InvalidRequest("echo can't be streamed.", param="echo", code="unsupported_value")


def _prompts(prompt: wire.Prompt | None, template: Template) -> Iterator[list[int]]:
    """Each prompt as tokens; a list of numbers is one prompt that is tokens already."""
    if prompt is None or isinstance(prompt, str):
        yield completion_request(prompt or "", template)
        return
    if not prompt:
        raise InvalidRequest("The list of prompts is empty.", param="prompt", code="invalid_value")
    if isinstance(prompt[0], int):
        yield _checked(prompt, template)
        return
    for item in prompt:
        yield completion_request(item, template) if isinstance(item, str) else _checked(item, template)


def _checked(tokens: list[int], template: Template) -> list[int]:
    size = template.tokenizer.get_vocab_size()
    if not tokens or any(not 0 <= token < size for token in tokens):
        raise InvalidRequest(
            f"A prompt of token ids needs at least one, each from 0 to {size - 1}.",
            param="prompt",
            code="invalid_value",
        )
    return tokens


def _whole(asked: Asked, parts: Parts, gone: threading.Event) -> wire.Completion:
    choices = []
    produced = 0
    with parts.pool.slots:
        for index, generation in enumerate(asked.generations):
            answer = generate.answer_whole(parts, asked.target, generation, asked.stops, gone)
            produced += answer.tokens
            echoed = _echoed(asked, parts, generation) if asked.request.echo else []
            choices.append(_choice(asked, index, generation, answer, echoed))
    used = generate.usage([token for prompt in asked.prompts for token in prompt], produced)
    return _completion(asked, choices).model_copy(update={"usage": used})


def _echoed(asked: Asked, parts: Parts, generation: Generation) -> list[TokenScore | None]:
    """The prompt's own log-probabilities, where they are asked for."""
    if asked.request.logprobs is None:
        return []
    engine = generate.engine_of(parts, asked.target)
    return engine.score(generation.prompt, generation.adapter, asked.request.logprobs)


def _choice(
    asked: Asked, index: int, generation: Generation, answer: Written, echoed: list[TokenScore | None]
) -> wire.Choice:
    template = asked.target.template
    before = template.decode(generation.prompt) if asked.request.echo else ""
    logprobs = None
    if asked.request.logprobs is not None:
        tokens = [p.token for p in answer.pieces if p.token is not None]
        scores = [p.score for p in answer.pieces if p.token is not None]
        if asked.request.echo:
            tokens, scores = generation.prompt + tokens, echoed + scores
        logprobs = _logprobs(template, tokens, scores)
    return wire.Choice(index=index, text=before + answer.text, logprobs=logprobs, finish_reason=answer.finish)


def _logprobs(template: Template, tokens: list[int], scores: list[TokenScore | None], offset: int = 0) -> wire.Logprobs:
    texts = [generate.token_text(template, token) for token in tokens]
    offsets = [offset]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    return wire.Logprobs(
        tokens=texts,
        token_logprobs=[score.logprob if score else None for score in scores],
        top_logprobs=[
            {generate.token_text(template, t): value for t, value in score.top} if score else None for score in scores
        ],
        text_offset=offsets[:-1],
    )


def _chunks(asked: Asked, parts: Parts) -> Iterator[wire.Completion]:
    produced = 0
    with parts.pool.slots:
        engine = generate.engine_of(parts, asked.target)
        for index, generation in enumerate(asked.generations):
            with closing(generate.written(engine, generation, asked.target.template, asked.stops)) as writing:
                offset = 0
                for piece in writing:
                    produced += piece.token is not None
                    logprobs = _piece_logprobs(asked, piece, offset)
                    offset += sum(map(len, logprobs.tokens)) if logprobs else 0
                    if piece.text or piece.finish or logprobs:
                        choice = wire.Choice(
                            index=index, text=piece.text, logprobs=logprobs, finish_reason=piece.finish
                        )
                        yield _completion(asked, [choice])
    options = asked.request.stream_options
    if options is not None and options.include_usage:
        used = generate.usage([token for prompt in asked.prompts for token in prompt], produced)
        yield _completion(asked, []).model_copy(update={"usage": used})


def _piece_logprobs(asked: Asked, piece: Piece, offset: int) -> wire.Logprobs | None:
    if piece.token is None or asked.request.logprobs is None:
        return None
    return _logprobs(asked.target.template, [piece.token], [piece.score], offset)


def _completion(asked: Asked, choices: list[wire.Choice]) -> wire.Completion:
    return wire.Completion(
        id=asked.id,
        created=asked.created,
        model=asked.target.name,
        choices=choices,
        system_fingerprint=generate.FINGERPRINT,
    )
