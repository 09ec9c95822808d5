"""What rows cost: figures by hand, a file of thousands, a run in which three of forty rows are wrong for real."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Server, chat_row, finished, rows, upload, write_jsonl
from openai import NotFoundError, OpenAI
from test_cli import fails, works
from transformers import LlamaForCausalLM

from pegbox.jobs.rows import RowStory, arrange, stories
from pegbox.train.loop import train
from pegbox.train.model import attach_adapter, load_base
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RowLosses, RunDir
from pegbox.train.samples import read_samples


def told(by_epoch: list[list[float]], batch: int = 3) -> list[RowLosses]:
    """Losses of all rows, epoch by epoch, as steps of a batch, last rows first."""
    out: list[RowLosses] = []
    for epoch, losses in enumerate(by_epoch):
        order = list(range(len(losses)))[::-1]
        for at in range(0, len(order), batch):
            some = order[at : at + batch]
            out.append(RowLosses(len(out) + 1, epoch, some, [losses[i] for i in some]))
    return out


def test_figures_by_hand() -> None:
    """Last losses 1, 1, 2, 2, 2, 4, 4, 64: in powers of two their logs are 0 0 1 1 1 2 2 6, the median 1, distances
    1 1 0 0 0 1 1 5, median distance 1; so the last one is 0.6745 times 5 away."""
    last = [1.0, 1, 2, 2, 2, 4, 4, 64]
    found = stories(told([[8.0] * 8, last]), [])
    assert [story.losses for story in found] == [(8.0, value) for value in last]
    assert [story.example for story in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found[-1].far == pytest.approx(0.6745 * 5)
    assert [story.example for story in found if story.looks_mislabelled] == [], "3.37 is no outlier"
    found = stories(told([[8.0] * 8, [*last[:-1], 128.0]]), [])
    assert found[-1].far == pytest.approx(0.6745 * 6)
    assert [story.example for story in found if story.looks_mislabelled] == [8]
    assert [story.example for story in found if story.never_learnt] == [8]


def test_a_row_that_was_never_learnt_is_not_one_that_was_always_easy() -> None:
    """The others fell to a quarter; row 3 stayed at 4. Where nothing fell, nothing is said."""
    found = stories(told([[4.0] * 9, [1.0] * 2 + [4.0] + [1.0] * 6]), [])
    assert [story.example for story in found if story.never_learnt] == [3]
    assert not any(story.never_learnt for story in stories(told([[4.0] * 9, [3.9] * 9]), []))
    assert not any(s.never_learnt or s.looks_mislabelled for s in stories(told([[1.0] * 7 + [90.0]]), [])[:-1])


def test_equal_losses_and_rows_known_by_heart() -> None:
    assert {s.far for s in stories(told([[2.0] * 20]), [])} == {0.0}
    by_heart = [1e-6] * 15 + [1e-4] * 4 + [5e-3]
    assert not any(story.looks_mislabelled for story in stories(told([by_heart]), [])), "all of them are learnt"
    assert [s.example for s in stories(told([[1e-6] * 19 + [3.0]]), []) if s.looks_mislabelled] == [20]
    assert stories([], []) == []


def test_a_split_row_is_the_mean_of_its_parts_and_lines_are_the_user_s() -> None:
    made = [RowLosses(1, 0, [0, 1, 1], [1.0, 2.0, 4.0]), RowLosses(2, 1, [1, 0, 1], [1.0, 0.5, 2.0])]
    assert [(s.example, s.losses) for s in stories(made, [4, 9])] == [(4, (1.0, 0.5)), (9, (3.0, 1.5))]


def test_orders() -> None:
    found = stories(told([[4.0] * 10, [1.0, 1.1, 1.2, 4.0, 1.3, 1.1, 1.0, 90.0, 1.2, 1.1]]), list(range(11, 21)))

    def order(name: str) -> list[int]:
        return [story.example for story in arrange(found, name)]  # type: ignore[arg-type]

    assert order("line") == list(range(11, 21))
    assert order("hardest")[:3] == [18, 14, 15]
    assert order("easiest")[:2] == [11, 17]
    assert order("suspect") == [18, 14]


@pytest.fixture
def loud_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with embeddings ten times as large: its frozen, tied head can say one thing clearly."""
    folder = tmp_path / "loud"
    shutil.copytree(tiny_model, folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(10)
    model.save_pretrained(folder)
    return folder


def test_three_wrong_labels_among_forty_are_found(loud_model: Path, tmp_path: Path) -> None:
    """Rows repeat their last letter, but for three. Losses are taken anew from the checkpoints of each epoch."""
    wrong = [7, 18, 29]
    made = [chat_row(f"{i}{'RGBW'[i % 4] * 3}", "RGBW"[(i + (i in wrong)) % 4], None) for i in range(40)]
    run = RunDir(tmp_path / "run")
    run.create()
    write_jsonl(run.train_data, made)
    Recipe(
        job_id="x", base="tiny", base_folder=str(loud_model), base_fingerprint="", seed=3, n_epochs=24, batch_size=4,
        learning_rate=3e-3, learning_rate_multiplier=1.0, warmup_steps=5, max_tokens=512, threads=1,
        dtype="float32",
    ).save(run.recipe_path)  # fmt: skip
    train(run)
    examples = [sample.examples[0] for sample in read_samples(run, run.recipe(), valid=False)]
    losses = []
    for folder in sorted(run.checkpoints.glob("step-*"))[5::6]:
        model = attach_adapter(load_base(loud_model), replace(run.recipe(), adapter_folder=str(folder)))
        of_rows = []
        for example in examples:
            with torch.inference_mode():
                logs = model(input_ids=torch.tensor([example.tokens])).logits[0].log_softmax(-1)
            at = [i for i in range(1, len(example.tokens)) if example.trained[i]]
            of_rows.append(-math.fsum(float(logs[i - 1, example.tokens[i]]) for i in at) / len(at))
        losses.append(of_rows)
    found = stories(told(losses), [])
    assert [story.example - 1 for story in found if story.looks_mislabelled] == wrong
    assert {story.example - 1 for story in arrange(found, "suspect")[:3]} == set(wrong)


# --- through the server --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(server: Server, client: OpenAI, tmp_path_factory: pytest.TempPathFactory):
    """A job of 12 rows with a blank line among them; its run is tidied. Losses are written as its trainer would."""
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "t.jsonl", rows(12))
    lines = path.read_text("utf-8").splitlines()
    lines[3] = json.dumps(chat_row("My key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD, is it?", "blue"))
    path.write_text("\n".join([*lines[:2], "", *lines[2:]]) + "\n", "utf-8")
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=upload(client, path), seed=1, hyperparameters={"n_epochs": 1}
    )
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    run = RunDir(server.data_dir / "runs" / job.id)
    (run.path / "rows.jsonl").unlink(missing_ok=True)
    for step in told([[4.0] * 12, [1.0, 1.1, 0.9, 9.0, *([1.0] * 8)]]):
        run.report_rows(step)
    return job


def test_rows_of_a_job_that_has_ended(server: Server, client: OpenAI, ended) -> None:
    found = server.http().get(f"/fine_tuning/jobs/{ended.id}/rows?limit=2").json()
    assert {k: v for k, v in found.items() if k != "data"} == {
        "object": "fine_tuning.job.rows", "fine_tuning_job_id": ended.id, "epochs": 2, "rows": 12,
        "never_learnt": 1, "looks_mislabelled": 1,
    }  # fmt: skip
    hard, next_ = found["data"]
    assert (hard["example"], hard["line"], hard["first"], hard["last"], hard["losses"]) == (4, 5, 4.0, 9.0, [4.0, 9.0])
    assert (hard["looks_mislabelled"], hard["never_learnt"], hard["answer"]) == (True, True, "blue")
    assert "sk-proj" not in hard["asked"]
    assert hard["asked"].startswith("My key is")
    assert (next_["example"], next_["line"], next_["asked"]) == (2, 2, "Question number 1 about green things?")
    suspects = server.http().get(f"/fine_tuning/jobs/{ended.id}/rows?order=suspect").json()
    assert [row["example"] for row in suspects["data"]] == [4]


def test_wrong_orders_and_limits(server: Server, client: OpenAI, ended) -> None:
    for query, param in (("order=worst", "order"), ("limit=0", "limit"), ("limit=1001", "limit")):
        answer = server.http().get(f"/fine_tuning/jobs/{ended.id}/rows?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    with pytest.raises(NotFoundError) as caught:
        client.get("/fine_tuning/jobs/ftjob-none/rows", cast_to=dict)
    assert caught.value.code == "fine_tune_not_found"


def test_the_command(server: Server, ended) -> None:
    shown = works(server, "jobs", "rows", ended.id, "--suspect", "30").splitlines()
    assert shown[0].split("\t") == ["line", "loss", "remark", "asked", "answer"]
    assert shown[1].split("\t")[:3] == ["5", "4.00 → 9.00", "looks mislabelled"]
    assert len(shown) == 2
    assert len(works(server, "jobs", "rows", ended.id, "--hardest", "5").splitlines()) == 6
    assert len(works(server, "jobs", "rows", ended.id).splitlines()) == 13
    assert "give one of" in fails(
        "jobs", "rows", ended.id, "--hardest", "5", "--easiest", "5", base_url=server.base_url
    )


def test_the_text_goes_with_the_file(server: Server, client: OpenAI, ended) -> None:
    client.files.delete(ended.training_file)
    row = server.http().get(f"/fine_tuning/jobs/{ended.id}/rows?limit=1").json()["data"][0]
    assert (row["example"], row["line"], row["asked"], row["answer"]) == (4, None, None, None)


def test_thousands_of_rows() -> None:
    losses = [1.0 + (i * 7919 % 1000) / 1000 for i in range(6_000)]
    losses[4_321] = 40.0
    found: list[RowStory] = stories(told([[4.0] * 6_000, losses, losses], batch=8), [])
    assert [story.example for story in arrange(found, "suspect")] == [4_322]
