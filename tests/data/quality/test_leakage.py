import random
import time

import numpy as np
import pytest
from feeding import banking77, chat, corpus_of, gsm8k, score, some

from pegbox.data.quality.base import Context, Deadline
from pegbox.data.quality.codes import Severity
from pegbox.data.quality.corpus import Corpus
from pegbox.data.quality.findings import Finding
from pegbox.data.quality.leakage import groups, leaks


def _corpora(training: list[dict[str, object]], validation: list[dict[str, object]]) -> tuple[Corpus, Corpus]:
    ours, theirs = corpus_of(training), corpus_of(validation)
    theirs.which = "validation"
    return ours, theirs


def _found(training: list[dict[str, object]], validation: list[dict[str, object]]) -> dict[str, Finding]:
    found = list(leaks(*_corpora(training, validation)))
    assert all(one.code == "Q12" and one.file == "validation" for one in found)
    lines = [line for one in found for line in one.lines]
    assert len(lines) == len(set(lines)), "a row stands under one heading"
    return {one.kind: one for one in found}


TRAINING = [
    chat("Where is my trumpet?", "It leaves our store today."),
    chat("Do you tune pianos at the customer's house in winter?", "Yes, within 50 kilometres of the shop."),
    chat("What does a violin cost for a child of seven?", "From 18 euros a month."),
]


def test_other_rows_do_not_leak() -> None:
    assert _found(TRAINING, [chat("Is the shop open on Sundays?", "No."), chat("Who repairs harps?", "We do.")]) == {}
    assert _found(TRAINING, []) == {}
    assert _found([], TRAINING) == {}


def test_each_way_to_leak_has_its_kind() -> None:
    validation = [
        TRAINING[2],
        chat("where is  my trumpet?", "Still here, I fear."),
        chat("Do you tune pianos at the customers house in winter?", "Within 50 kilometres of the shop."),
        chat("Is the shop open on Sundays?", "No."),
    ]
    found = _found(TRAINING, validation)
    assert {kind: one.lines for kind, one in found.items()} == {
        "same-row": (1,),
        "same-prompt": (2,),
        "near-prompt": (3,),
    }
    same = found["same-row"]
    assert (same.severity, same.count, same.share, same.threshold) == (Severity.WARNING, 1, 0.25, 0.0)
    assert [(place.file, place.line) for place in same.samples[0].places] == [("training", 3), ("validation", 1)]
    assert same.text == "1 validation row of 4 (25 %) also stands in the training file, word for word."
    assert "pegbox split" in same.fix
    assert found["near-prompt"].data["pairs"] == [[2, 3]]


def test_another_number_is_another_question() -> None:
    asked = "Tom has {} apples and buys 4 more at the market on Sunday. How many apples does Tom have now?"
    assert _found([chat(asked.format(3), "#### 7")], [chat(asked.format(5), "#### 9")]) == {}


def test_copied_copies_in_the_validation_file_are_all_named() -> None:
    typed = chat("Do you tune pianos at the customers house in winter?", "Yes.")
    assert _found(TRAINING, [typed, typed])["near-prompt"].lines == (1, 2)


def test_a_pasted_passage_is_told() -> None:
    passage = gsm8k()[11][0] + " " + gsm8k()[12][0]
    validation = [chat("Sum up: " + passage, "Some numbers."), chat("Sum up: " + gsm8k()[40][0], "Others.")]
    found = _found([chat("Read this. " + gsm8k()[300][0] + " " + passage, "Done.")], validation)
    assert found["same-passages"].lines == (1,)
    assert found["same-passages"].severity is Severity.INFO


def test_what_all_training_rows_share_is_no_passage() -> None:
    form = "Read the letter below with care, and say in one short sentence what the writer of it wants from us: "
    draw = random.Random(1)

    def letter() -> str:
        return " ".join("".join(draw.choice("aeioulnrst") for _ in range(6)) for _ in range(8))

    training = [chat(form + form[::-1] + letter(), "Help.") for _ in range(40)]
    assert "same-passages" not in _found(training, [chat(form + form[::-1] + letter(), "Money.")])


def test_no_time_is_no_finding() -> None:
    late = Context(deadline=Deadline(time.monotonic() - 1))
    assert list(leaks(corpus_of(TRAINING, context=late), corpus_of(TRAINING, context=late))) == []


# --- injected into real data ---------------------------------------------------------------------------------


def _edited(text: str, draw: random.Random) -> str:
    at = draw.choice(
        [i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha() and text[i] != text[i + 1]]
    )
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return draw.choice([swapped, text.upper().rstrip("?."), text.replace(" the ", " ", 1), text.rstrip("?.") + "!!"])


@pytest.mark.parametrize("data", [gsm8k, banking77])
@pytest.mark.parametrize("edited", [False, True])
def test_leaked_rows_in_real_data(data, edited: bool) -> None:
    rows = [chat(asked, said) for asked, said in data()[::3]]
    random.Random(0).shuffle(rows)
    training, validation = rows[:-800], rows[-800:]
    clean = _found(training, validation)
    known = {line for one in clean.values() for line in one.lines}
    kept = [row for i, row in enumerate(validation, 1) if i not in known]
    draw = random.Random(2)
    leaked = []
    for i in some(100, len(training), seed=4):
        asked, said = (message["content"] for message in training[i]["messages"])
        leaked.append(chat(_edited(asked, draw) if edited else asked, said))
    found = _found(training, kept + leaked)
    told = {line for one in found.values() for line in one.lines}
    precision, recall = score(told, {len(kept) + 1 + k for k in range(100)})
    print(f"{data.__name__} edited={edited}: precision {precision:.3f}, recall {recall:.3f}")
    assert precision >= 0.9
    assert recall >= 0.95


def test_leaks_in_japanese() -> None:
    asked = ["注文した靴のサイズを交換したいのですが、送料はかかりますか。", "先週頼んだ荷物がまだ届いていません。今どこにありますか。",
             "領収書を会社の名前で発行してもらうことはできますか。"]  # fmt: skip
    training = [chat(one, "承知しました。") for one in asked]
    validation = [
        chat(asked[0], "承知しました。"),
        chat(asked[1].replace("。", ""), "はい。"),
        chat("営業時間を教えてください。", "十時からです。"),
    ]
    assert {kind: one.lines for kind, one in _found(training, validation).items()} == {
        "same-row": (1,),
        "near-prompt": (2,),
    }


# --- what a split keeps together -----------------------------------------------------------------------------


def test_groups_by_hand() -> None:
    rows = [
        *TRAINING,
        TRAINING[0],
        chat("Do you tune pianos at the customers house in winter?", "No."),
        chat("where is my trumpet?", "Here."),
    ]
    assert groups(corpus_of(rows)).tolist() == [0, 1, 2, 0, 1, 0]


def test_a_split_by_groups_leaks_nothing_that_letters_tell() -> None:
    rows = [chat(asked, said) for asked, said in banking77()[::2]]
    group = groups(corpus_of(rows))
    sizes = np.unique(group, return_counts=True)[1]
    assert sizes.max() < len(rows) * 0.02  # no chain that swallows the file
    chosen = np.isin(group, np.random.default_rng(0).permutation(np.unique(group))[: len(sizes) // 5])
    training = [row for row, validates in zip(rows, chosen, strict=True) if not validates]
    validation = [row for row, validates in zip(rows, chosen, strict=True) if validates]
    found = _found(training, validation)
    assert not {"same-row", "same-prompt"} & set(found)
    left = found["near-prompt"].count if "near-prompt" in found else 0
    print(f"{left} of {len(validation)} rows are near after a split by groups")
    assert left <= 0.005 * len(validation)
