"""Routes that find their arguments themselves, held against FastAPI's way to the same."""

import asyncio
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse, Response

from pegbox.api import errors
from pegbox.api.arguments import finder
from pegbox.api.deps import Paging, paging
from pegbox.api.router import new_router


def read(
    name: str,
    http: Request,
    paging: Annotated[Paging, Depends(paging(20))],
    few: Annotated[int, Query(ge=1, le=9)] = 3,
    stream: bool = False,
    word: str | None = None,
) -> Response:
    return JSONResponse([name, http.url.query, paging.after, paging.limit, few, stream, word])


def asked(router: APIRouter, path: str) -> tuple[int, bytes]:
    app = FastAPI()
    router.get("/{name}")(read)
    app.router.routes.extend(router.routes)
    errors.install(app)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            return await http.get(path)

    answer = asyncio.run(ask())
    return answer.status_code, answer.content


@pytest.mark.parametrize(
    "query",
    [
        "", "limit=5", "limit=", "limit=-1", "limit=many", "limit=1.0", "limit=1.5", "limit=%203", "limit=1&limit=2",
        "limit=99999999999999999999", "limit=5&after=a&starting_after=b&cursor=c", "after=", "after=%00", "after=%E2%82%AC",
        "after=%FF", "stream=true", "stream=1", "stream=yes", "stream=ON", "stream=maybe", "stream=", "few=0", "few=10",
        "few=9&few=10", "word", "word=", "word=null", "other=1", "name=other", "request=1", "http=1", "paging=1",
        "limit[]=3", "limit=3;few=4", "&&=&", "LIMIT=3", "stream=true&few=no&limit=no",
    ],
)  # fmt: skip
def test_the_same_answers(query: str) -> None:
    ours, theirs = (asked(router, f"/a%20word?{query}") for router in (new_router(), APIRouter()))
    assert ours == theirs
    assert ours[0] in (200, 400)


def test_what_is_left_to_fastapi() -> None:
    def with_a_header(name: str, agent: Annotated[str, Header()] = "") -> Response:
        raise AssertionError(name, agent)

    def with_a_number_in_its_path(name: int) -> Response:
        raise AssertionError(name)

    assert finder(read) is not None
    assert finder(with_a_header) is None
    assert finder(with_a_number_in_its_path) is None
