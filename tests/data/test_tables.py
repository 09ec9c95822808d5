"""Every kind of table, in every encoding that people send, and what attackers send."""

import csv
import datetime as dt
import gzip
import io
import json
import zipfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.tables import json_values, sheets
from pegbox.data.tables import rows as tables
from pegbox.data.tables.encodings import encoding_of
from pegbox.data.tables.rows import TableError, kind_of, rows_of

DATA = Path(__file__).parents[3] / "shared" / "data"
JAPANESE = "カードはまだ届いていません。いつ届きますか"


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path: Path, **options: str) -> list[object]:
    return [row.value or row.problem for row in rows_of(path, **options)]


def refused(path: Path, **options: str) -> str:
    with pytest.raises(TableError) as error:
        list(rows_of(path, **options))
    return str(error.value)


# --- kinds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", "a,b\n1,2\n", "csv"),
        ("a.TSV", "a\tb\n", "tsv"),
        ("a.txt", "hello", "txt"),
        ("a.json", '[{"a": 1}]', "json"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("a.json", '{"a":\n 1}', "json"),
        ("a.dat", '{"a": 1}\n', "jsonl"),
        ("a.jsonl", '[{"a": 1}]', "json"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0), "csv"),
        ("a.gz", gzip.compress(b'{"a": 1}\n', mtime=0), "jsonl"),
        ("a.jsonl", "\ufeff".encode("utf-16-le") + '{"a": 1}\n'.encode("utf-16-le"), "jsonl"),
    ],
)
def test_kind(tmp_path: Path, name: str, content: bytes | str, kind: str) -> None:
    assert kind_of(put(tmp_path, name, content)) == kind


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel file"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd..", "zstd"),
        (b"%PDF-1.7", "a PDF"),
        (b"hello", "can't be told from its name"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(put(tmp_path, "a.bin", content))


# --- CSV -----------------------------------------------------------------------------------------------------


def test_rows_are_numbered_as_a_spreadsheet_numbers_them(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", 'prompt,completion\n"two\nlines",b\n\nc,d\n')
    assert [(row.number, row.value) for row in rows_of(path)] == [
        (2, {"prompt": "two\nlines", "completion": "b"}),
        (4, {"prompt": "c", "completion": "d"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    content = "".join(f"{a}{delimiter}{b}\n" for a, b in [("q", "a"), ("what, then?", "x; y"), ("z", "w")])
    if delimiter == ",":
        content = 'q,a\n"what, then?",x; y\nz,w\n'
    if delimiter == ";":
        content = 'q;a\nwhat, then?;"x; y"\nz;w\n'
    assert values(put(tmp_path, "a.csv", content)) == [{"q": "what, then?", "a": "x; y"}, {"q": "z", "a": "w"}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("only", "has 1 cells, but the header names 2"),
        ("a,b,c", "has 3 cells, but the header names 2 columns"),
        ('"a"b,c', "text stands after a closing quote"),
        ('"never ends', "a quoted cell never ends"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path, line: str, said: str) -> None:
    rows = list(rows_of(put(tmp_path, "a.csv", f"p,c\n1,2\n{line}\n")))
    assert rows[0].value == {"p": "1", "c": "2"}
    assert (rows[1].number, rows[1].value) == (3, None)
    assert said in rows[1].problem


def test_reading_goes_on_after_a_bad_row(tmp_path: Path) -> None:
    rows = list(rows_of(put(tmp_path, "a.csv", 'p,c\n"a"b,c\n3,4\n')))
    assert [row.value for row in rows] == [None, {"p": "3", "c": "4"}]


@pytest.mark.parametrize(("head", "said"), [("a,a", 'two columns are named "a"'), ("a,,b", "column 2 has no name")])
def test_a_header_must_name_each_column_once(tmp_path: Path, head: str, said: str) -> None:
    assert said in refused(put(tmp_path, "a.csv", f"{head}\n1,2,3\n"))


def test_a_cell_of_many_megabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    one_line = put(tmp_path, "a.csv", b"p,c\n" + b"x" * (20 << 20) + b",y\n1,2\n")
    assert "a line is longer than 8 MiB" in refused(one_line)
    many = put(tmp_path, "b.csv", b'p,c\n"' + b"xxxxxxx\n" * (3 << 20) + b'",y\n1,2\n')
    problems = [row.problem for row in rows_of(many) if row.problem]
    assert "a cell is longer than 8 MiB" in problems[0]
    empty_cells = put(tmp_path, "c.csv", b"p,c\n" + b"," * (1 << 20) + b"\n")
    assert [row.problem for row in rows_of(empty_cells)] == []  # no cell holds anything


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_what_the_csv_module_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([("p", "c"), *pairs])
    path = put(tmp_path_factory.mktemp("csv"), "a.csv", "\ufeff" + out.getvalue())
    got = [(row.value["p"] or "", row.value["c"] or "") for row in rows_of(path)]
    assert got == [pair for pair in pairs if any(pair)]


# --- encodings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp932", "euc_jp"]
)
def test_japanese_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = "prompt,completion\nplease send my new card,ok then\n" + f"{JAPANESE},はい\n" * 3
    if encoding.startswith("utf-16-"):
        text = text.replace(JAPANESE, "plain").replace("はい", "plain")  # without a mark, only plain letters tell
        assert values(put(tmp_path, "a.csv", text.encode(encoding)))[-1] == {"prompt": "plain", "completion": "plain"}
        return
    assert values(put(tmp_path, "a.csv", text.encode(encoding)))[-1] == {"prompt": JAPANESE, "completion": "はい"}


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        ("Où est ma carte ? Elle n'est pas arrivée, déjà élan", "cp1252", "cp1252"),
        ("Größe — “Straße”", "cp1252", "cp1252"),
        ("Où est l'élève", "latin-1", "cp1252"),
        ("ﾊﾝｶｸだけのカタカナ、そしてひらがな", "cp932", "cp932"),
        ("漢字仮名交じり文です。", "cp932", "cp932"),
    ],
)
def test_older_encodings(text: str, encoding: str, found: str) -> None:
    content = (text + "\n").encode(encoding) * 3
    name = encoding_of(io.BytesIO(content))
    assert name == found
    assert content.decode(name) == (text + "\n") * 3


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Привет и пока", "cp1251"),
        ("我的卡还没有到。", "gb18030"),
        ("我的卡還沒有到，請問什麼時候會寄來？", "big5"),
        ("카드가 아직 안 왔어요", "cp949"),
    ],
)
def test_what_cannot_be_told_is_refused_and_not_garbled(tmp_path: Path, text: str, encoding: str) -> None:
    path = put(tmp_path, "a.csv", ("prompt,completion\n" + f"{text},ok\n" * 5).encode(encoding))
    assert "--encoding" in refused(path)
    assert values(path, encoding=encoding)[0] == {"prompt": text, "completion": "ok"}


def test_one_broken_byte_in_utf8_is_named_and_not_taken_for_another_encoding(tmp_path: Path) -> None:
    content = ("p,c\n" + "é,日本語のテキスト\n" * 20).encode() + b"\xe9,x\n"
    at = content.index(b"\xe9,x") + 1
    assert f"byte {at} is not UTF-8, though the rest" in refused(put(tmp_path, "a.csv", content))


def test_binary_and_unknown_encodings(tmp_path: Path) -> None:
    assert "binary" in refused(put(tmp_path, "a.csv", bytes(range(256)) * 8))
    assert 'no encoding "utf-99"' in refused(put(tmp_path, "b.csv", "p,c\n"), encoding="utf-99")
    assert "name its encoding" in refused(put(tmp_path, "c.csv", b"p,c\n\x80,\xff\n"), encoding="utf-8")


# --- JSON ----------------------------------------------------------------------------------------------------

ROWS = [{"a": 'x"\\,]}[{', "b": [1, {"c": "\\"}]}, {"a": "日本\u2028"}, {"z": None}]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(row) for row in ROWS),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        json.dumps({"data": ROWS}),
        json.dumps({"version": 1, "rows": ROWS}, indent=2),
    ],
)
def test_json_in_any_shape(tmp_path: Path, content: str) -> None:
    assert values(put(tmp_path, "a.json", content)) == ROWS


TEXTS = st.text('a"\\[]{},日', max_size=6)
JSON = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(TEXTS, JSON, max_size=3), min_size=1, max_size=4),
    st.sampled_from([None, 0, 2]),
    st.integers(1, 40),
)
@settings(max_examples=100, deadline=None)
def test_an_array_is_cut_as_a_parser_would(items: list[dict[str, object]], indent: int | None, chunk: int) -> None:
    """However the text falls into chunks."""
    text = io.TextIOWrapper(io.BytesIO(json.dumps(items, indent=indent).encode()), "utf-8")
    with mock.patch.object(json_values, "_CHUNK", chunk):
        assert [json.loads(one) for one in json_values.json_texts(text)] == items


@pytest.mark.parametrize("content", ['[{"a": 1}', '[{"a": "x', '[{"a": 1}] more'])
def test_json_that_breaks_off(tmp_path: Path, content: str) -> None:
    assert "breaks off" in refused(put(tmp_path, "a.json", content))


def test_a_bad_value_is_named_by_its_number(tmp_path: Path) -> None:
    rows = list(rows_of(put(tmp_path, "a.json", '[{"a": 1}, {"a": NaN}, 3, {"a": 1, "a": 2}]')))
    assert [row.number for row in rows] == [1, 2, 3, 4]
    assert [bool(row.problem) for row in rows] == [False, True, True, True]


def test_text_is_a_completion_a_line(tmp_path: Path) -> None:
    assert values(put(tmp_path, "a.txt", "one\r\n\n two\n")) == [{"completion": "one"}, {"completion": " two"}]


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    assert "no whole gzip file" in refused(put(tmp_path, "a.csv.gz", gzip.compress(b"p,c\n1,2\n" * 999, mtime=0)[:-20]))


# --- Excel ---------------------------------------------------------------------------------------------------


def workbook(folder: Path, rows: list[list[object]], merge: str | None = None, name: str = "a.xlsx") -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if merge:
        book.active.merge_cells(merge)
    book.create_sheet("second").append(["p", "c"])
    book.save(folder / name)
    return folder / name


def test_cells_of_excel_become_text_as_people_write_it(tmp_path: Path) -> None:
    day = dt.datetime(2024, 2, 29)  # noqa: DTZ001 - Excel knows no time zones
    path = workbook(
        tmp_path, [["p", "c", "d"], ["x", 42.0, day], [], [1.5, True, day.replace(hour=9)], ["日本", None, None]]
    )
    assert [(row.number, row.value) for row in rows_of(path)] == [
        (2, {"p": "x", "c": 42, "d": "2024-02-29"}),
        (4, {"p": 1.5, "c": True, "d": "2024-02-29 09:00:00"}),
        (5, {"p": "日本", "c": None, "d": None}),
    ]
    assert values(path, sheet="second") == []
    assert 'no sheet "third"; it has Sheet, second' in refused(path, sheet="third")


def test_a_formula_without_value_an_error_and_merged_cells_are_named(tmp_path: Path) -> None:
    path = workbook(tmp_path, [["p", "c"], ["a", "=1+1"], ["b", "#N/A"], ["c", "d"], [None, "e"]], merge="A4:A5")
    problems = {row.number: row.problem for row in rows_of(path)}
    assert "cell B2 holds a formula without its value" in problems[2]
    assert "cell B3 shows the error #N/A" in problems[3]
    assert problems[4] is None
    assert "merged cells A4:A5" in problems[5]


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = workbook(tmp_path, [["p", "c"], ["a", "b"]])
    bomb = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            out.writestr(name, source.read(name))
        with out.open("xl/worksheets/sheet9.xml", "w", force_zip64=True) as part:
            for _ in range(40):
                part.write(b" " * (1 << 20))
    monkeypatch.setattr(sheets, "_MAX_UNPACKED", 16 << 20)
    assert bomb.stat().st_size < 1 << 20
    assert "unpacks to 40 MiB, more than 16 MiB" in refused(bomb)


def test_entities_damaged_and_other_zips_are_refused(tmp_path: Path) -> None:
    good = workbook(tmp_path, [["p", "c"], ["a", "b"]])
    evil = tmp_path / "evil.xlsx"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as out:
        for name in source.namelist():
            content = source.read(name)
            out.writestr(name, content.replace(b"<worksheet", b'<!DOCTYPE x [<!ENTITY a "b">]><worksheet', 1))
    assert "XML entities" in refused(evil)
    assert "damaged" in refused(put(tmp_path, "cut.xlsx", good.read_bytes()[:-300]))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as out:
        out.writestr("a.csv", "p,c\n")
    assert "no Excel workbook" in refused(tmp_path / "other.zip")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path, [["p", "c"], ["a", "b"]])

    def missing(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(sheets, "import_module", missing)
    assert refused(path) == "reading Excel files needs openpyxl: pip install 'pegbox[tables]'"


# --- Parquet -------------------------------------------------------------------------------------------------


def parquet(folder: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def test_parquet_with_nested_messages_and_missing_values(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = parquet(
        tmp_path,
        {"messages": [talk, talk[:1]], "score": [42.0, float("nan")], "day": [dt.date(2024, 1, 2), None]},
    )
    assert [(row.number, row.value) for row in rows_of(path)] == [
        (1, {"messages": talk, "score": 42, "day": "2024-01-02"}),
        (2, {"messages": talk[:1], "score": None, "day": None}),
    ]


def test_parquet_reads_all_batches_and_names_damage(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"p": [f"q{i}" for i in range(1_000)], "c": ["x" * 1_000] * 1_000})
    assert [row.value["p"] for row in rows_of(path)] == [f"q{i}" for i in range(1_000)]
    assert "can't be read" in refused(put(tmp_path, "b.parquet", path.read_bytes()[:-50]))


def test_real_files() -> None:
    if not DATA.is_dir():
        pytest.skip("the shared data sets are not here")
    assert sum(1 for row in rows_of(DATA / "banking77" / "train.csv") if row.value) == 10_003
    assert sum(1 for row in rows_of(DATA / "hh-rlhf" / "harmless-base-test.jsonl.gz") if row.value) == 2_312
    assert tables.kind_of(DATA / "gsm8k" / "test.jsonl") == "jsonl"
