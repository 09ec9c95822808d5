"""What chat and legacy completions share: which model a name means, how its answers are made, how they are
streamed, and that nobody generates for a client who has gone."""

import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from pegbox import __version__, metrics
from pegbox.adapters import Adapter
from pegbox.api.deps import Parts
from pegbox.api.drain import Drain
from pegbox.api.errors import as_request_error, body_of
from pegbox.data.template import Template
from pegbox.engines.base import AdapterRef, Engine, Generation, Sampling
from pegbox.engines.front import serving_template
from pegbox.engines.writer import Piece, write
from pegbox.errors import EngineError, InvalidRequest, NotFound, RequestError, Unavailable
from pegbox.storage.scope import Scope
from pegbox.wire.chat import CreateChat, Usage
from pegbox.wire.completions import CreateCompletion

FINGERPRINT = f"pegbox_{__version__}"
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Target:
    """The model that answers."""

    name: str  # as the client called it
    base: str  # what its engine goes by: a base model, or the key of a whole tuned one
    folder: Path
    template: Template
    adapter: AdapterRef | None
    formats: tuple[str, ...]
    is_tuned_whole: bool = False  # the engine is not a base's


@dataclass(frozen=True, slots=True)
class Written:
    """One answer, whole."""

    text: str
    pieces: tuple[Piece, ...]
    finish: Literal["stop", "length"]

    @property
    def tokens(self) -> int:
        return sum(piece.token is not None for piece in self.pieces)


def find_target(parts: Parts, project: Scope, name: str) -> Target:
    """Raises NotFound in the API's own words."""
    adapter = parts.desk.adapters.find(project, name)
    if adapter and adapter.model_folder:
        return _over_whole(parts, adapter, adapter.model_folder)
    resolved = parts.desk.catalog.find(adapter.base if adapter else name)
    if resolved is None:
        raise NotFound(
            f"The model `{name}` does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    folder = Path(resolved.base.folder)
    return Target(
        name=name,
        base=resolved.base.name,
        folder=folder,
        template=serving_template(folder, resolved.base.created_at),
        adapter=_ref(parts, adapter) if adapter else None,
        formats=(adapter.format,) if adapter else resolved.base.formats,
    )


def _over_whole(parts: Parts, tuned: Adapter, key: str) -> Target:
    """A whole tuned model, or an adapter over one. Its folder has all that is needed, whatever became of the base."""
    folder = parts.desk.adapters.folder(key)
    return Target(
        name=tuned.name,
        base=key,
        folder=folder,
        template=serving_template(folder, tuned.created_at),
        adapter=None if tuned.is_whole else _ref(parts, tuned),
        formats=(tuned.format,),
        is_tuned_whole=True,
    )


def check_format(target: Target, wanted: Literal["chat", "completion"]) -> None:
    """A model is asked in the format it was trained in: anything else would look like a bad model."""
    if wanted in target.formats:
        return
    if wanted == "chat":
        text = (
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint. "
            "Did you mean to use v1/completions?"
        )
    else:
        text = (
            "This is a chat model and not supported in the v1/completions endpoint. "
            "Did you mean to use v1/chat/completions?"
        )
    raise NotFound(text, param="model")


def sampling(request: CreateChat | CreateCompletion, target: Target, index: int) -> Sampling:
    """Choice number `index` of a request; a seed makes each choice repeatable, and different."""
    return Sampling(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=None if request.seed is None else request.seed + index,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        logit_bias={_token_id(key, target): bias for key, bias in (request.logit_bias or {}).items()},
    )


def stop_sequences(request: CreateChat | CreateCompletion) -> tuple[str, ...]:
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return tuple(text for text in stop if text)


def room(target: Target, prompt: list[int], asked: int | None, *, what: str) -> int:
    """How many tokens may follow the prompt. Raises InvalidRequest where none fit."""
    context = target.template.context
    if len(prompt) >= context:
        raise InvalidRequest(
            f"This model's maximum context length is {context} tokens. However, your {what} resulted in "
            f"{len(prompt)} tokens. Please reduce the length of the {what}.",
            param=what,
            code="context_length_exceeded",
        )
    return min(asked if asked is not None else context, context - len(prompt))


def engine_of(parts: Parts, target: Target) -> Engine:
    of = parts.pool.tuned if target.is_tuned_whole else parts.pool.get
    return of(target.base, target.folder)


def answer_whole(
    parts: Parts,
    target: Target,
    generation: Generation,
    stops: tuple[str, ...],
    gone: threading.Event,
    *,
    gap: str = "",
) -> Written:
    """One answer; cut short, with nobody to see it, once `gone` is set."""
    pieces: list[Piece] = []
    engine = engine_of(parts, target)
    with closing(written(engine, generation, target.template, stops, gap=gap)) as writing:
        for piece in writing:
            pieces.append(piece)
            if gone.is_set():
                break
    return Written("".join(p.text for p in pieces), tuple(pieces), pieces[-1].finish or "stop")


def written(
    engine: Engine, generation: Generation, template: Template, stops: tuple[str, ...], *, gap: str = ""
) -> Generator[Piece, None, None]:
    """`write`, counted."""
    began = at = time.perf_counter()
    waiting = metrics.WAITING
    metrics.PROMPT_TOKENS.inc(len(generation.prompt))
    waiting.inc()
    try:
        with closing(write(engine, generation, template, stops, gap=gap)) as writing:  # type: ignore[type-var]
            for piece in writing:
                now = time.perf_counter()
                if waiting is metrics.WAITING:
                    waiting.dec()
                    waiting = metrics.RUNNING
                    waiting.inc()
                    metrics.FIRST_TOKEN.observe(now - began)
                elif piece.token is not None:
                    metrics.NEXT_TOKEN.observe(now - at)
                at = now
                metrics.GENERATION_TOKENS.inc(piece.token is not None)
                if piece.finish is not None:
                    metrics.SUCCESS.labels(piece.finish).inc()
                    metrics.WHOLE_ANSWER.observe(now - began)
                yield piece
    finally:
        waiting.dec()


def token_bytes(template: Template, token: int) -> bytes:
    """What a token stands for. It may be part of a character, as many tokens of an emoji are."""
    text = template.decode([token], keep_specials=True)
    if "\ufffd" not in text:
        return text.encode()
    name = template.tokenizer.id_to_token(token) or ""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
        return bytes.fromhex(byte.group(1))
    known = _byte_alphabet()
    return bytes(known[c] for c in name) if known.keys() >= set(name) else text.encode()


def token_text(template: Template, token: int) -> str:
    """A token as log-probabilities name it: text, or its bytes in hexadecimal where it is no whole characters."""
    content = token_bytes(template, token)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


@cache
def _byte_alphabet() -> dict[str, int]:
    """The letters in which byte-level tokenizers (GPT-2's and its heirs') write the 256 bytes."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in plain)
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


def usage(prompt: list[int], completion_tokens: int) -> Usage:
    return Usage(
        prompt_tokens=len(prompt),
        completion_tokens=completion_tokens,
        total_tokens=len(prompt) + completion_tokens,
    )


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """Rendering and encoding a long prompt takes time that other requests are not to wait for."""
    return await anyio.to_thread.run_sync(work, limiter=_threads())


async def while_connected(request: Request, drain: Drain, work: Callable[[threading.Event], Answer]) -> Answer:
    """Run `work` in a thread; set its event if the client hangs up. Raises Unavailable if the server ends before."""
    gone = threading.Event()
    ended = False
    answers: list[Answer] = []

    async def watch() -> None:
        nonlocal ended
        while not (ended or await request.is_disconnected()):
            await anyio.sleep(0.25)
            ended = drain.over
        gone.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            answers.append(await anyio.to_thread.run_sync(work, gone, limiter=_threads()))
        except RequestError as error:
            failed: RequestError | EngineError | None = error
        except EngineError as error:
            failed = error
        else:
            failed = None
        tasks.cancel_scope.cancel()
    if failed is not None:  # raised here, because a task group would wrap it
        raise failed
    if ended:
        raise _ending()
    return answers[0]


async def stream_events(chunks: Iterator[BaseModel], drain: Drain) -> StreamingResponse:
    """Server-sent events. The first chunk is made before the answer begins, so that what fails early fails with a
    proper status."""
    first = await anyio.to_thread.run_sync(next, chunks, None, limiter=_threads())
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(
        _events(first, chunks, drain), media_type="text/event-stream; charset=utf-8", headers=headers
    )


async def _events(first: BaseModel | None, chunks: Iterator[BaseModel], drain: Drain) -> AsyncIterator[str]:
    try:
        chunk = first
        while chunk is not None:
            yield f"data: {chunk.model_dump_json()}\n\n"
            if drain.over:
                raise _ending()
            chunk = await anyio.to_thread.run_sync(next, chunks, None, limiter=_threads())
        yield "data: [DONE]\n\n"
    except (EngineError, RequestError) as error:
        yield f"data: {json.dumps(body_of(as_request_error(error)).model_dump())}\n\n"
    finally:
        chunks.close()  # type: ignore[attr-defined] # the client may be gone: stop generating


def _ending() -> Unavailable:
    return Unavailable("The server is shutting down; try again in a moment.", code="server_shutting_down")


@lru_cache
def _threads() -> anyio.CapacityLimiter:
    """Generating threads wait for the engine most of their life, and must not use up those of the other routes."""
    return anyio.CapacityLimiter(512)


def _ref(parts: Parts, adapter: Adapter) -> AdapterRef:
    return AdapterRef(adapter.name, str(parts.desk.adapters.path(adapter)))


def _token_id(key: str, target: Target) -> int:
    known = target.template.tokenizer.get_vocab_size()
    if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < known):
        raise InvalidRequest(
            f"Invalid key in 'logit_bias': {key[:20]}. Keys are token ids, from 0 to {known - 1}.",
            param="logit_bias",
            code="invalid_value",
        )
    return int(key)
