"""Which engines live and which make room, with engines that only remember what befell them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pegbox.engines.base import Delta, Generation
from pegbox.engines.pool import EnginePool, PoolSettings
from pegbox.errors import Overloaded

ASKED = Generation(prompt=[1], max_tokens=3, stop_ids=frozenset())


class Engine:
    """Says three tokens."""

    made: list["Engine"]

    def __init__(self, folder: Path, log_file: Path, **_: object) -> None:
        self.name, self.log, self.alive = folder.name, log_file.name, True
        self.made.append(self)

    def stream(self, _: Generation) -> Iterator[Delta]:
        yield from (Delta(token) for token in range(3))

    def score(self, *_: object) -> list[None]:
        return [None]

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    made: list[Engine] = []
    monkeypatch.setattr(Engine, "made", made, raising=False)
    monkeypatch.setattr("pegbox.engines.pool.HostedEngine", Engine)
    return made


@pytest.fixture
def pool(engines: list[Engine], tmp_path: Path) -> EnginePool:
    return EnginePool(PoolSettings(1, 1, 2, 1, tmp_path))


def alive(engines: list[Engine]) -> list[str]:
    return [engine.name for engine in engines if engine.alive]


def ask(pool: EnginePool, name: str) -> Iterator[Delta]:
    return pool.tuned(f"adapters/{name}", Path("/blobs/adapters") / name).stream(ASKED)


def test_the_one_that_was_asked_longest_ago_makes_room(pool: EnginePool, engines: list[Engine]) -> None:
    pool.get("base", Path("base"))
    for name in ("a", "b", "a", "c"):
        assert len(list(ask(pool, name))) == 3
    assert alive(engines) == ["base", "a", "c"]
    list(ask(pool, "b"))
    assert alive(engines) == ["base", "c", "b"], "bases stay"
    assert [engine.log for engine in engines[:2]] == ["engine-base.txt", "engine-adapters-a.txt"]


def test_nobody_is_ended_while_it_answers(pool: EnginePool, engines: list[Engine]) -> None:
    open_answers = [ask(pool, "a"), ask(pool, "b")]
    for answer in open_answers:
        next(answer)
    with pytest.raises(Overloaded) as refused:
        next(ask(pool, "c"))
    assert refused.value.code == "engine_overloaded"
    open_answers[1].close()  # type: ignore[attr-defined]
    list(ask(pool, "c"))
    assert alive(engines) == ["a", "c"], "the idle one, though the other was asked longer ago"
    assert len(list(open_answers[0])) == 2


def test_a_model_that_is_deleted_ends_with_its_last_answer(pool: EnginePool, engines: list[Engine]) -> None:
    list(ask(pool, "a"))
    pool.forget("adapters/a")
    assert alive(engines) == []
    answer = ask(pool, "a")
    next(answer)
    pool.forget("adapters/a")
    assert alive(engines) == ["a"]
    assert len(list(answer)) == 2
    assert alive(engines) == []
    pool.forget("never there")


def test_one_that_died_is_started_anew(pool: EnginePool, engines: list[Engine]) -> None:
    list(ask(pool, "a"))
    engines[0].alive = False
    assert pool.tuned("adapters/a", Path("a")).score([1], None) == [None]
    assert alive(engines) == ["a"]


def test_borrowers_share_and_the_last_one_ends_it(pool: EnginePool, engines: list[Engine]) -> None:
    with pool.borrow("base", Path("base")):
        with pool.borrow("base", Path("base")):
            pass
        assert alive(engines) == ["base"]
    assert alive(engines) == []
    with pool.borrow("adapters/a", Path("a")) as borrowed:
        for name in ("a", "b", "c"):
            list(ask(pool, name))
        assert borrowed.alive
    assert len(engines) == 4
    assert set(alive(engines)) == {"a", "c"}
