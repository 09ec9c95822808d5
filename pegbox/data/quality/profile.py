"""Q17: which system prompts and tools the rows have, and whether they agree."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from pegbox.data.quality.base import Context
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.columns import Column
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import MAX_LINES, MAX_SAMPLES, Finding, Place, Sample, finding
from pegbox.data.quality.items import Item
from pegbox.data.quality.text import digest, excerpt, normalise
from pegbox.data.quality.worst import many, percent

_MAIN = 0.3  # share of the rows with a system prompt from which one is what the others are measured by
_RARE = 0.1  # of the main one's rows: a slip is rarer
_LOOKED_AT = 200  # other prompts that are compared with the main one, most frequent first
_SLOTS = 20  # more near variants than this are a prompt with blanks filled in, not slips
_EDITS = 3  # letters by which a slip differs
_SHORTEST = 20  # characters; shorter prompts differ by a letter and mean it
_OWN = 0.5  # distinct prompts a row, from which each row has its own
_TOOLSETS = 2_000  # kept apart

_FIGURES = re.compile(r"\d+")
_SIGNS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One system prompt of the file."""

    key: int
    rows: int
    row: int  # the first that has it
    text: str


class Profile:
    codes = ("Q17",)

    def __init__(self, context: Context) -> None:
        del context
        self._systems = Column("Q")  # a hash of each row's; 0: none
        self._tools = Column("Q")  # a hash of each row's list; 0: none
        self._last = ("", 0)
        self._toolsets: dict[int, tuple[tuple[str, int], ...]] = {}  # list → (name, hash of the description) of each

    def see(self, item: Item) -> None:
        system = item.system
        if system != self._last[0]:
            self._last = (system, digest(system) if system.strip() else 0)
        self._systems.append(self._last[1])
        self._systems.roll()
        self._tools.append(self._toolset(item) if item.tools else 0)
        self._tools.roll()

    def _toolset(self, item: Item) -> int:
        shown = [repr(tool) for tool in item.tools]
        key = digest("\n".join(shown)) or 1
        if key not in self._toolsets and len(self._toolsets) < _TOOLSETS:
            self._toolsets[key] = tuple(
                (_name(tool), digest(text)) for tool, text in zip(item.tools, shown, strict=True)
            )  # fmt: skip
        return key

    def found(self, corpus: Corpus) -> Iterator[Finding]:
        systems = self._systems.load()
        if systems.any():
            yield from self._some_without(corpus, systems)
            yield from self._alike(corpus, systems)
        tools = self._tools.load()
        if tools.any():
            yield from self._tool_findings(corpus, tools)

    def _some_without(self, corpus: Corpus, systems: NDArray[np.uint64]) -> Iterator[Finding]:
        bare = systems == 0
        n, without = len(systems), int(bare.sum())
        if not without:
            return
        fewer = bare if without * 2 <= n else ~bare
        if without * 2 <= n:
            text = f"{many(without, 'row')} ({percent(without / n)}) {_has(without)} no system prompt; others have one."
        else:
            told = n - without
            text = f"{many(told, 'row')} ({percent(told / n)}) {_has(told)} a system prompt; others have none."
        at = np.flatnonzero(fewer)
        yield finding(
            "Q17", "some-without", text, count=len(at), rows=n, lines=_lines(corpus, at),
            samples=[Sample((_place(corpus, int(row)),)) for row in at[:MAX_SAMPLES]], severity=Severity.WARNING,
            fix="Give all rows the system prompt that you will use afterwards, or none.",
        )  # fmt: skip

    def _alike(self, corpus: Corpus, systems: NDArray[np.uint64]) -> Iterator[Finding]:
        keys, first, counts = np.unique(systems, return_index=True, return_counts=True)
        order = [i for i in np.argsort(-counts, kind="stable") if keys[i]]
        told, distinct = int(counts[keys != 0].sum()), len(order)
        prompts = (
            _Prompt(int(keys[i]), int(counts[i]), int(first[i]), corpus.item(int(first[i])).system)
            for i in order[: _LOOKED_AT + 1]
        )
        main = next(prompts)
        share = main.rows / told
        if share >= _MAIN:
            near = [other for other in prompts if other.rows <= _RARE * main.rows and _is_slip(other.text, main.text)]
            if 0 < len(near) <= _SLOTS:
                yield _slips(corpus, systems, main, near)
        if distinct == 1:
            text = f"One system prompt is used in {many(told, 'row')}."
        elif distinct > _OWN * told:
            text = f"Nearly every row has a system prompt of its own: {distinct:,} in {many(told, 'row')}."
        else:
            text = (
                f"{distinct:,} system prompts are used; the most frequent one in {percent(share)} of the rows with one."
            )
        yield finding(
            "Q17", "one-system" if distinct == 1 else "several-systems", text, count=told, rows=len(systems),
            samples=[Sample((_place(corpus, main.row),), f"{main.rows:,} times")],
            data={"distinct": distinct, "main_share": round(share, 4)},
        )  # fmt: skip

    def _tool_findings(self, corpus: Corpus, tools: NDArray[np.uint64]) -> Iterator[Finding]:
        n, bare = len(tools), tools == 0
        keys, counts = np.unique(tools[~bare], return_counts=True)
        rows = dict(zip(keys.tolist(), counts.tolist(), strict=True))
        if bare.any():
            fewer = np.flatnonzero(bare if bare.sum() * 2 <= n else ~bare)
            with_tools = n - int(bare.sum())
            yield finding(
                "Q17", "some-without-tools",
                f"{many(with_tools, 'row')} of {n:,} ({percent(with_tools / n)}) {_has(with_tools)} tools; the others "
                "have none.",
                count=len(fewer), rows=n, lines=_lines(corpus, fewer), samples=_shown(corpus, fewer),
                fix="Keep it if your application sends tools only sometimes; else give all rows the same.",
                data={"toolsets": len(rows)},
            )  # fmt: skip
        versions: dict[str, dict[int, int]] = {}
        for key, tools_of in self._toolsets.items():
            for name, version in dict(tools_of).items():
                of = versions.setdefault(name, {})
                of[version] = of.get(version, 0) + rows.get(key, 0)
        differing = {name: of for name, of in versions.items() if len(of) > 1}
        if differing:
            yield self._versions(corpus, tools, differing)

    def _versions(
        self, corpus: Corpus, tools: NDArray[np.uint64], differing: dict[str, dict[int, int]]
    ) -> Finding:  # fmt: skip
        usual = {name: max(of, key=of.__getitem__) for name, of in differing.items()}
        odd = [
            key
            for key, tools_of in self._toolsets.items()
            if any(name in usual and version != usual[name] for name, version in tools_of)
        ]
        at = np.flatnonzero(np.isin(tools, np.array(odd, dtype=np.uint64)))
        told = ", ".join(f"{excerpt(name)} ({len(of):,} ways)" for name, of in list(differing.items())[:5])
        return finding(
            "Q17", "tool-versions",
            f"The same tool is described in different ways: {told}; {many(len(at), 'row')} differ from the usual one.",
            count=len(at), rows=len(tools), lines=_lines(corpus, at), samples=_shown(corpus, at),
            severity=Severity.WARNING, fix="Describe each tool as your application will send it, in all rows alike.",
            data={"tools": {excerpt(name): len(of) for name, of in list(differing.items())[:50]}},
        )  # fmt: skip


def _slips(corpus: Corpus, systems: NDArray[np.uint64], main: _Prompt, near: list[_Prompt]) -> Finding:
    at = np.flatnonzero(np.isin(systems, np.array([one.key for one in near], dtype=np.uint64)))
    samples = []
    for one in near[:MAX_SAMPLES]:
        differs = next((i for i, (a, b) in enumerate(zip(one.text, main.text, strict=False)) if a != b), len(main.text))
        places = (_place(corpus, one.row, differs), _place(corpus, main.row, differs))
        samples.append(Sample(places, f"{many(one.rows, 'row')}; the usual one in {main.rows:,}"))
    return finding(
        "Q17", "near-system",
        f"{many(len(at), 'row')} {'uses' if len(at) == 1 else 'use'} a slightly different system prompt from the usual "
        f"one of {many(main.rows, 'row')}.",
        count=len(at), rows=len(systems), lines=_lines(corpus, at), samples=samples, severity=Severity.WARNING,
        fix="Make them the same, letter by letter.",
    )  # fmt: skip


def _is_slip(text: str, main: str) -> bool:
    """Whether a text differs from the main one by case, signs, white space or a few letters. Figures are meant."""
    if _SIGNS.sub("", normalise(text)) == _SIGNS.sub("", normalise(main)):
        return True
    if len(main) < _SHORTEST or _FIGURES.sub("0", text) == _FIGURES.sub("0", main):
        return False
    return bool(Levenshtein.distance(text, main, score_cutoff=_EDITS) <= _EDITS)


def _place(corpus: Corpus, row: int, around: int = 0) -> Place:
    """Where a row's system prompt stands, or would."""
    item = corpus.item(row)
    told = next((turn for turn, role in enumerate(item.roles) if role in ("system", "developer")), -1)
    return Place(item.line, item.path(max(told, 0)), excerpt(item.texts[max(told, 0)], around))


def _shown(corpus: Corpus, at: NDArray[np.int64]) -> list[Sample]:
    items = [corpus.item(int(row)) for row in at[:MAX_SAMPLES]]
    return [Sample((Place(item.line, "tools", excerpt(", ".join(map(_name, item.tools)))),)) for item in items]


def _lines(corpus: Corpus, at: NDArray[np.int64]) -> list[int]:
    return [int(line) for line in corpus.lines.load()[at[:MAX_LINES]]]


def _name(tool: dict[str, object]) -> str:
    function = tool.get("function")
    return str(function.get("name")) if isinstance(function, dict) else ""


def _has(n: int) -> str:
    return "has" if n == 1 else "have"
