"""/v1/completions, the older way: a prompt goes in as it is, its continuation comes out."""

import math
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
    generations: tuple[Generation, ...]  # `tries` for each prompt
    stops: tuple[str, ...]

    @property
    def choices(self) -> int:
        return self.request.n or 1

    @property
    def tries(self) -> int:
        return max(self.request.best_of or 1, self.choices)

    @property
    def tells_usage(self) -> bool:
        options = self.request.stream_options
        return not self.request.stream or (options is not None and bool(options.include_usage))


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
    tries = max(request.best_of or 1, request.n or 1)
    picks = tries > (request.n or 1)  # by their log-probabilities, which are then needed
    generations = tuple(
        Generation(
            prompt=prompt,
            max_tokens=generate.room(target, prompt, most, what="prompt"),
            stop_ids=target.template.stop_ids,
            adapter=target.adapter,
            memory=project.project_id,
            sampling=generate.sampling(request, target, index),
            top_logprobs=0 if picks and request.logprobs is None else request.logprobs,
        )
        for prompt in prompts
        for index in range(tries)
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
    best_of, n = request.best_of or request.n or 1, request.n or 1
    if best_of < n:
        raise InvalidRequest(
            f"You requested that the server return more choices than it will generate (best_of {best_of}, n {n}).",
            param="best_of",
            code="invalid_value",
        )
    if best_of > n and request.stream:
        raise InvalidRequest(
            "The best of several answers is known when all are there: best_of can't be streamed.",
            param="best_of",
            code="unsupported_value",
        )


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
    choices: list[wire.Choice] = []
    produced = 0
    with parts.pool.slots:
        for start in range(0, len(asked.generations), asked.tries):
            generation = asked.generations[start]
            tries = [
                generate.answer_whole(parts, asked.target, one, asked.stops, gone)
                for one in asked.generations[start : start + asked.tries]
            ]
            produced += sum(answer.tokens for answer in tries)
            echoed = _echoed(asked, parts, generation) if asked.request.echo else []
            for answer in _best(tries, asked.choices):
                choices.append(_choice(asked, len(choices), generation, answer, echoed))
    used = generate.usage([token for prompt in asked.prompts for token in prompt], produced)
    return _completion(asked, choices).model_copy(update={"usage": used})


def _best(tries: list[Written], n: int) -> list[Written]:
    """The `n` answers with the highest log-probability a token, the best one first."""
    return tries if n == len(tries) else sorted(tries, key=_mean_logprob, reverse=True)[:n]


def _mean_logprob(answer: Written) -> float:
    scores = [piece.score.logprob for piece in answer.pieces if piece.score is not None]
    return sum(scores) / len(scores) if scores else -math.inf


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
                if asked.request.echo:
                    first = _prompt_choice(asked, parts, index, generation)
                    offset = sum(map(len, first.logprobs.tokens)) if first.logprobs else 0
                    yield _completion(asked, [first])
                for piece in writing:
                    produced += piece.token is not None
                    logprobs = _piece_logprobs(asked, piece, offset)
                    offset += sum(map(len, logprobs.tokens)) if logprobs else 0
                    if piece.text or piece.finish or logprobs:
                        choice = wire.Choice(
                            index=index, text=piece.text, logprobs=logprobs, finish_reason=piece.finish
                        )
                        yield _completion(asked, [choice])
    if asked.tells_usage:
        used = generate.usage([token for prompt in asked.prompts for token in prompt], produced)
        yield _completion(asked, []).model_copy(update={"usage": used})


def _prompt_choice(asked: Asked, parts: Parts, index: int, generation: Generation) -> wire.Choice:
    """The prompt, said again before the answer."""
    template = asked.target.template
    echoed = _echoed(asked, parts, generation)
    logprobs = _logprobs(template, generation.prompt, echoed) if asked.request.logprobs is not None else None
    return wire.Choice(index=index, text=template.decode(generation.prompt), logprobs=logprobs, finish_reason=None)


def _piece_logprobs(asked: Asked, piece: Piece, offset: int) -> wire.Logprobs | None:
    if piece.token is None or asked.request.logprobs is None:
        return None
    return _logprobs(asked.target.template, [piece.token], [piece.score], offset)


def _completion(asked: Asked, choices: list[wire.Choice]) -> wire.Completion:
    kind = wire.Completion if asked.tells_usage else wire.UncountedCompletion
    return kind(
        id=asked.id,
        created=asked.created,
        model=asked.target.name,
        choices=choices,
        system_fingerprint=generate.FINGERPRINT,
    )
