"""The one place where an exception becomes an answer, always in the API's own error shape."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from pegbox.errors import CatalogError, EngineError, FormError, InvalidRequest, RenderError, RequestError, StorageFull
from pegbox.storage.trouble import trouble
from pegbox.wire.base import ErrorBody, ErrorDetail

log = logging.getLogger(__name__)
_NOT_HERE = {
    "/v1/responses": "this server has no Responses API; use /v1/chat/completions (AI SDK: `openai.chat('MODEL')`, "
    "LangChain: `use_responses_api=False`, Agents SDK: `set_default_openai_api('chat_completions')`)",
    "/v1/uploads": "this server has no uploads in parts; POST /v1/files takes a file of any allowed size at once",
    "/v1/edits": "OpenAI removed edits in 2024; use /v1/chat/completions",
    "/v1/fine_tuning/checkpoints": "the keys of a project share its models; there is nothing to permit",
    **dict.fromkeys(
        (
            "/v1/assistants", "/v1/audio", "/v1/batches", "/v1/containers", "/v1/conversations", "/v1/embeddings",
            "/v1/evals", "/v1/fine_tuning/alpha", "/v1/images", "/v1/moderations", "/v1/realtime", "/v1/threads",
            "/v1/vector_stores", "/v1/videos",
        ),
        "this server serves files, fine-tuning jobs, models, chat and completions, and not this part of OpenAI's API",
    ),
}  # fmt: skip
# Clients repeat 5xx by themselves; what failed through a fault of ours would only fail again.
_DONT_RETRY = {"x-should-retry": "false"}


def body_of(error: RequestError) -> ErrorBody:
    return ErrorBody(error=ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code))


def as_request_error(error: RequestError | EngineError) -> RequestError:
    """What is said of an engine's error. A form that can't be kept to is the request's."""
    if isinstance(error, FormError):
        text = f"The answer can't be kept to the form that was asked for: {error}. A simpler schema may do."
        return InvalidRequest(text, param="response_format", code="invalid_value")
    return error if isinstance(error, RequestError) else RequestError(str(error), code="server_error")


def answer(error: RequestError, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        body_of(error).model_dump(), status_code=error.status, headers={**error.headers, **(headers or {})}
    )


def install(app: FastAPI) -> None:
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RenderError, _render_error)
    app.add_exception_handler(FormError, _form_error)
    app.add_exception_handler(EngineError, _server_error)
    app.add_exception_handler(CatalogError, _server_error)
    app.add_exception_handler(RequestValidationError, _query_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _trouble)
    app.add_exception_handler(DBAPIError, _trouble)
    app.add_exception_handler(Exception, _unexpected)


def from_validation(error: ValidationError, body: object) -> InvalidRequest:
    """The findings of pydantic as one error about one field, the first that is wrong."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # A union reports what each of its members finds. One that got as far as a value's limits says most.
    telling = [e for e in found if e["type"] != "literal_error" and not e["type"].endswith("_type")] or found
    first = telling[0]
    param = _param(first, body)
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    same = [e["msg"] for e in telling if _param(e, body) == param]
    wanted = " or ".join(dict.fromkeys(text.removeprefix("Input should be ") for text in same))
    text = f"Input should be {wanted}" if same[0].startswith("Input should be ") else same[0]
    return InvalidRequest(f"Invalid value for '{param}': {text}.", param=param, code="invalid_value")


def _param(found: ErrorDetails, body: object) -> str:
    """`('hyperparameters', 'n_epochs', 'constrained-int')` → `hyperparameters.n_epochs`: pydantic adds the names
    of a union's members, which the body does not hold."""
    path = ""
    loc = found["loc"]
    for i, part in enumerate(loc):
        if isinstance(body, dict) and (part in body or (found["type"] == "missing" and i == len(loc) - 1)):
            path += f".{part}" if path else str(part)
            body = body.get(part)
        elif isinstance(body, list) and isinstance(part, int) and part < len(body):
            path += f"[{part}]"
            body = body[part]
    return path


async def _request_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return answer(error, _DONT_RETRY if isinstance(error, StorageFull) else None)


async def _render_error(_: Request, error: Exception) -> JSONResponse:
    return answer(InvalidRequest(str(error), param="messages", code="invalid_value"))


async def _form_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FormError)
    return answer(as_request_error(error))


async def _server_error(_: Request, error: Exception) -> JSONResponse:
    log.error("%s", error)
    return answer(RequestError(str(error), code="server_error"), _DONT_RETRY)


async def _query_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = str(first["loc"][-1])
    message = f"Invalid value for '{param}': {first['msg']}."
    return answer(InvalidRequest(message, param=param, code="invalid_value"))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    message = str(error.detail)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request)
        message = f"Not allowed to {request.method} on {request.url.path}; allowed: {headers['Allow']}"
    elif error.status_code == HTTPStatus.NOT_FOUND:
        message = f"Invalid URL ({request.method} {request.url.path}){_instead(request.url.path)}"
    plain = InvalidRequest(message)
    plain.status = error.status_code
    return answer(plain, headers)


def _allowed(request: Request) -> str:
    """All methods of a path, which may have a route for each."""
    here = (r for r in request.app.routes if r.matches(request.scope)[0] != Match.NONE)
    return ", ".join(sorted({method for route in here for method in getattr(route, "methods", None) or ()}))


def _instead(path: str) -> str:
    """What OpenAI has at a path and this server has not, told from a slip of the pen."""
    for beginning, advice in _NOT_HERE.items():
        if path == beginning or path.startswith(f"{beginning}/"):
            return f": {advice}"
    return ""


async def _trouble(request: Request, error: Exception) -> JSONResponse:
    """A disk that is full or broken is nobody's bug: it is said in one sentence, and so is what to do."""
    found = trouble(error)
    if found is None:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return await _unexpected(request, error)
    log.error("%s %s: %s (%s)", request.method, request.url.path, found, error)
    return answer(found, _DONT_RETRY if isinstance(found, StorageFull) else {"retry-after": "5"})


async def _unexpected(_: Request, _error: Exception) -> JSONResponse:
    # Starlette raises it again after this answer, and the shell logs it.
    text = "The server had an error while processing your request; its log has the details."
    return answer(RequestError(text), _DONT_RETRY)
