"""The validation file is looked at as closely as the training file, and every finding says which file it is about."""

from pathlib import Path

import pytest
from conftest import write_jsonl
from feeding import chat, pair

from pegbox.data.check import check
from pegbox.data.report import Report
from pegbox.data.views.as_text import as_text

CLEAN: list[object] = [
    chat("Where is my trumpet?", "It leaves our store today."),
    chat("Do you tune pianos at home?", "Yes, within 50 kilometres of the shop."),
    chat("What does a violin cost for a child?", "From 18 euros a month."),
]
FAULTY: list[object] = [
    chat("Who repairs harps?", "We do, in our own workshop."),
    chat("Who repairs harps?", "We do, in our own workshop."),
    chat("Is the shop open on Sundays?", "No, it is closed."),
    chat("Is the shop open on Sundays?", "Yes, it is open."),
    chat("My key is sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD, keep it", "I will."),
    chat("May I bring my dog?", "CafÃ© and shop welcome dogs."),
]


def looked(tmp_path: Path, train: list[object], valid: list[object], **options: object) -> Report:
    files = write_jsonl(tmp_path / "t.jsonl", train), write_jsonl(tmp_path / "v.jsonl", valid)
    return check(*files, **options)  # type: ignore[arg-type]


def test_faults_of_the_validation_file_are_found_and_placed_there(tmp_path: Path) -> None:
    report = looked(tmp_path, CLEAN, FAULTY)
    found = {one.code: one for one in report.findings if one.file == "validation"}
    assert found["Q06"].lines == (2,)
    assert set(found["Q09"].lines) == {3, 4}
    assert found["Q13"].lines == (5,)
    assert found["Q20"].lines == (6,)
    for one in found.values():
        assert {place.file for sample in one.samples for place in sample.places} <= {"validation"}, one.code
    assert {one.code for one in report.findings if one.file == "training"} == {"Q04"}, "three rows are few"
    text = as_text(report, 200)
    assert "Warning Q06, exact-duplicates in the validation file: " in text
    assert "sk-abcdef" not in text


def test_the_same_fault_in_both_files_is_two_findings(tmp_path: Path) -> None:
    report = looked(tmp_path, [*CLEAN, CLEAN[0]], FAULTY)
    twice = [(one.file, one.lines) for one in report.findings if one.code == "Q06"]
    assert twice == [("training", (4,)), ("validation", (2,))]


def test_pairs_that_validate_are_looked_at_too(tmp_path: Path) -> None:
    good = [pair(f"Question {i}?", "Gladly, this way please.", "No.") for i in range(3)]
    report = looked(tmp_path, good, [*good[:1], pair("And this?", "One answer here.", "One answer here.")])
    (found,) = (one for one in report.findings if one.code == "Q23")
    assert (found.kind, found.file, found.lines) == ("identical-pair", "validation", (2,))


def test_order_and_rare_labels_of_a_validation_file_mean_nothing(tmp_path: Path) -> None:
    labels = [
        chat(f"Message number {i} about a thing?", "repair" if i < 30 else "rental" if i < 57 else "lessons")
        for i in range(60)
    ]
    mine = {one.code for one in looked(tmp_path, labels, CLEAN).findings}
    assert {"Q16", "Q21"} <= mine
    theirs = {one.code for one in looked(tmp_path, CLEAN, labels).findings if one.file == "validation"}
    assert not {"Q16", "Q21"} & theirs


@pytest.mark.parametrize("options", [{"quick": True}, {"seconds": 0.0}])
def test_what_there_was_no_time_for_is_named(tmp_path: Path, options: dict[str, object]) -> None:
    report = looked(tmp_path, CLEAN, FAULTY, **options)
    assert {one.code for one in report.findings} <= {"Q01", "Q04", "Q05"}
    assert {"Q06", "Q09", "Q12", "Q13"} <= report.not_run.keys()
