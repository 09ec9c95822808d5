"""Every line in exactly one file, nothing known on both sides, classes in their shares."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import chat_row
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.check import check
from pegbox.data.mending.changes import OutputError
from pegbox.data.mending.split import SplitResult, choose, classes_of, split
from pegbox.data.tables.prepare import outline, write

DATA = Path(__file__).parents[3] / "shared" / "data"


def put(folder: Path, lines: list[str]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines), "utf-8", newline="")
    return path


def row(question: str, answer: str) -> str:
    return json.dumps(chat_row(question, answer, None), ensure_ascii=False)


def sides(result: SplitResult) -> tuple[list[str], list[str]]:
    train, valid = (path.read_bytes().decode().split("\n")[:-1] for path in (result.train_path, result.valid_path))
    return train, valid


def test_equal_and_nearly_equal_prompts_stay_together(tmp_path: Path) -> None:
    words = [random.Random(i).sample("abcdefghijklmnopqrstuvwxyz", 20) for i in range(60)]
    asked = [
        "Where do I find the " + "".join(w[:9]) + " and its " + "".join(w[9:]) + " for my order today" for w in words
    ]
    lines = [row(q, f"{i}") for i, q in enumerate(asked)]
    lines += [row(q.upper(), f"again {i}") for i, q in enumerate(asked)]
    lines += [row(q + "?", f"third {i}") for i, q in enumerate(asked)]
    result = split(put(tmp_path, lines), 0.2, seed=1)
    train, valid = sides(result)
    assert (result.rows, result.train, result.valid, result.shared) == (180, 144, 36, 0)
    assert result.largest == 3
    told = [
        {json.loads(line)["messages"][0]["content"].lower().rstrip("?") for line in side} for side in (train, valid)
    ]
    assert not told[0] & told[1]
    assert sorted(train + valid) == sorted(lines)


def test_lines_are_byte_for_byte_and_in_order(tmp_path: Path) -> None:
    lines = [
        row(f"{name}の首都はどこですか", str(i)).replace(", ", " ,  ") for i, name in enumerate("日英仏独伊西米中韓印")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines[:5]).encode() + b"\n\n   \n" + "\n".join(lines[5:]).encode())
    train, valid = sides(split(path, 3, by="row"))
    assert len(valid) == 3
    both = train + valid
    assert sorted(line.removesuffix("\r") for line in both) == sorted(lines)
    assert sum(line.endswith("\r") for line in both) == 4
    for side in (train, valid):
        at = [lines.index(line.removesuffix("\r")) for line in side]
        assert at == sorted(at)


def test_the_seed_decides(tmp_path: Path) -> None:
    path = put(tmp_path, [row(f"Question about item {i * 7919} of the list {i}", f"{i}") for i in range(60)])
    first, second, other = (sides(split(path, 0.2, seed=s, by="row", force=True)) for s in (5, 5, 6))
    assert first == second != other


def test_unreadable_rows_go_to_training(tmp_path: Path) -> None:
    lines = [row(f"q{i}", f"{i}") for i in range(8)] + ["broken", '{"messages": []}']
    result = split(put(tmp_path, lines), 2, by="row")
    assert (result.rows, result.train, result.valid, result.unreadable) == (10, 8, 2, 2)
    assert {"broken", '{"messages": []}'} <= set(sides(result)[0])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([row("same", str(i)) for i in range(9)], "9 of its 9 rows belong together; --by row"),
        (["broken"], "no row that can be read"),
        ([], "no row that can be read"),
        ([row("q", "a")], "1 of its 1 rows"),
    ],
)
def test_what_can_not_be_split_is_said(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(OutputError, match=said):
        split(put(tmp_path, lines), 0.5)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_files_in_the_way_and_utf16_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, [row(f"q{i}", "a") for i in range(9)])
    (tmp_path / "rows.valid.jsonl").write_text("precious")
    with pytest.raises(OutputError, match=r"rows\.valid\.jsonl exists"):
        split(path, 0.5)
    assert (tmp_path / "rows.valid.jsonl").read_text() == "precious"
    wide = tmp_path / "wide.jsonl"
    wide.write_text(row("q", "a"), "utf-16")
    with pytest.raises(OutputError, match="pegbox prepare"):
        split(wide, 0.5)


def test_completions_without_prompts_are_told_apart_by_themselves(tmp_path: Path) -> None:
    path = put(tmp_path, [json.dumps({"prompt": "", "completion": f"text {i * 7919}"}) for i in range(20)])
    assert split(path, 0.2, by="prompt").valid >= 1


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 60),
    st.integers(0, 9),
)
def test_groups_are_never_cut(rows: list[tuple[int, int]], wanted: int, seed: int) -> None:
    groups = np.array([g for g, _ in rows])
    _, groups = np.unique(groups, return_inverse=True)
    classes = classes_of(np.array([c for _, c in rows], dtype=np.uint64))
    chosen = choose(groups, classes, wanted, seed)
    assert chosen.sum() <= wanted
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert not chosen.all()


lines = st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=8), max_size=15)


@given(
    lines,
    st.lists(
        st.tuples(st.text(min_size=1, max_size=4), st.text("ab", min_size=1, max_size=2)), min_size=2, max_size=15
    ),
    st.randoms(use_true_random=False),
    st.sampled_from(["prompt", "row"]),
)
@settings(max_examples=60, deadline=None)
def test_every_line_is_in_exactly_one_file(
    tmp_path_factory: pytest.TempPathFactory,
    noise: list[str],
    good: list[tuple[str, str]],
    shuffle: random.Random,
    by: str,
) -> None:
    """Whatever the lines hold, bar blank ones."""
    every = noise + [json.dumps(chat_row(q, a, None)) for q, a in good]
    shuffle.shuffle(every)
    if every[0].startswith("\ufeff") or "\0" in every[0]:
        every.insert(0, "first")
    path = put(tmp_path_factory.mktemp("split"), every)
    try:
        result = split(path, 0.3, by=by)
    except OutputError as error:
        assert "belong together" in str(error)  # noqa: PT017
        return
    train, valid = sides(result)
    wanted = Counter(line for line in every if line and not line.isspace())
    assert Counter(train) + Counter(valid) == wanted
    assert (result.rows, result.train, result.valid) == (len(train + valid), len(train), len(valid))
    if by == "prompt":
        prompts = [
            {json.loads(line)["messages"][0]["content"] for line in side if line.startswith("{")}
            for side in (train, valid)
        ]
        assert not prompts[0] & prompts[1]


def test_banking77_is_split_by_intent(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("the shared data sets are not here")
    write(outline(DATA / "banking77" / "train.csv"), tmp_path / "rows.jsonl", ["duplicates"])
    result = split(tmp_path / "rows.jsonl", 0.1)
    train, valid = sides(result)
    shares = [Counter(json.loads(line)["messages"][-1]["content"] for line in side) for side in (train, valid)]
    assert (result.classes, result.shared, len(shares[1])) == (77, 0, 77)
    report = check(result.train_path, result.valid_path)
    leaks = {finding.kind: finding.count for finding in report.findings if finding.code == "Q12"}
    # Rows are held together whose prompts are like, not those that share some passage or a meaning.
    assert not leaks.keys() & {"same-row", "same-prompt", "near-prompt"}, leaks
    assert sum(leaks.values()) <= 0.01 * result.valid
    for intent, rows in shares[0].items():
        assert abs(shares[1][intent] - 0.1 * (rows + shares[1][intent])) <= 2
    assert abs(result.valid - 0.1 * result.rows) <= 5
