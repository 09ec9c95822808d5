"""The methods that a job is tuned by, as the stock client sends them and reads them back."""

import json
from typing import Any

import openai
import pytest
from conftest import Server, rows, upload_bytes
from openai import OpenAI
from sqlalchemy import text

from pegbox.storage.db import Database

AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


def pair(asked: str, better: str, worse: str, word: str = "output") -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": asked}]},
        f"preferred_{word}": [{"role": "assistant", "content": better}],
        f"non_preferred_{word}": [{"role": "assistant", "content": worse}],
    }


def jsonl(lines: list[Any]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


@pytest.fixture(scope="module")
def pairs_file(client: OpenAI) -> str:
    return upload_bytes(client, jsonl([pair(f"Say {i}", "Gladly: yes.", "No.") for i in range(12)]))


def dpo(**hyperparameters: object) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"method": {"type": "dpo"}}, {**AUTO, "beta": "auto"}),
        ({"method": {"type": "dpo", "dpo": {}}}, {**AUTO, "beta": "auto"}),
        ({"method": {"type": "dpo", "dpo": None, "supervised": None}}, {**AUTO, "beta": "auto"}),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": None}}}, {**AUTO, "beta": "auto"}),
        ({"method": dpo(beta="auto", n_epochs="auto")}, {**AUTO, "beta": "auto"}),
        ({"method": dpo(beta=None, n_epochs=None)}, {**AUTO, "beta": "auto"}),
        ({"method": dpo(beta=-1, n_epochs=-1, batch_size=-1)}, {**AUTO, "beta": "auto"}),  # Azure's "auto"
        ({"method": dpo(beta=2)}, {**AUTO, "beta": 2}),
        ({"method": dpo(beta=0.05)}, {**AUTO, "beta": 0.05}),
        (
            {"method": dpo(beta=0.2, n_epochs=2, batch_size=3, learning_rate_multiplier=1.5)},
            {"beta": 0.2, "n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 1.5},
        ),
        ({"method": {"type": "dpo"}, "hyperparameters": {"n_epochs": 2}}, {**AUTO, "n_epochs": 2, "beta": "auto"}),
        (
            {"method": dpo(beta=0.3, n_epochs=4), "hyperparameters": {"n_epochs": 2, "batch_size": 5}},
            {**AUTO, "n_epochs": 4, "batch_size": 5, "beta": 0.3},
        ),
    ],
)
def test_a_dpo_job_as_it_is_created(client: OpenAI, pairs_file: str, options: dict[str, Any], shown: dict[str, Any]):
    job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=pairs_file, **options)
    try:
        assert job.method.to_dict() == {"type": "dpo", "dpo": {"hyperparameters": shown}}
        assert job.method.dpo.hyperparameters.beta == shown["beta"]
        assert job.method.supervised is None
        assert job.hyperparameters.n_epochs == shown["n_epochs"], "old clients read it of every job they list"
        assert job.hyperparameters.to_dict() == shown
        assert client.fine_tuning.jobs.list(limit=1).data[0].method == job.method
    finally:
        client.fine_tuning.jobs.cancel(job.id)


def test_a_supervised_job_shows_no_beta(client: OpenAI):
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=upload_bytes(client, jsonl(rows(12))),
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
        hyperparameters={"n_epochs": 2, "batch_size": 5},
    )
    client.fine_tuning.jobs.cancel(job.id)
    shown = {**AUTO, "n_epochs": 3, "batch_size": 5}
    assert job.method.to_dict() == {"type": "supervised", "supervised": {"hyperparameters": shown}}
    assert job.hyperparameters.to_dict() == shown


def test_what_is_no_hyperparameter_of_dpo(client: OpenAI, pairs_file: str):
    with pytest.raises(openai.BadRequestError, match=r"less than or equal to 2") as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file=pairs_file, method=dpo(beta=2.5))
    assert (caught.value.param, caught.value.code) == ("method.dpo.hyperparameters.beta", "invalid_value")
    with pytest.raises(openai.BadRequestError, match="use 'supervised' or 'dpo'") as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file=pairs_file, method={"type": "reinforcement"})
    assert (caught.value.param, caught.value.code) == ("method.type", "unsupported_value")


def test_jobs_of_earlier_versions_stay_readable(client: OpenAI, server: Server):
    """Their bodies know no beta, and may hold a dpo block that nobody read."""
    job = client.fine_tuning.jobs.create(model="tiny", training_file=upload_bytes(client, jsonl(rows(12))))
    client.fine_tuning.jobs.cancel(job.id)
    db = Database(server.data_dir / "pegbox.db")
    with db.write() as tx:
        old = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": None,
               "learning_rate_multiplier": None}}, "dpo": {"what": 1}, "reinforcement": None}  # fmt: skip
        body = json.loads(tx.execute(text("select request from tunings where job_id = :id"), {"id": job.id}).scalar())
        body["method"] = old
        tx.execute(
            text("update tunings set request = :body, hyperparameters = :shown where job_id = :id"),
            {"body": json.dumps(body), "shown": json.dumps({**AUTO, "n_epochs": 2}), "id": job.id},
        )
    db.close()
    again = client.fine_tuning.jobs.retrieve(job.id)
    assert again.method.to_dict() == {"type": "supervised", "supervised": {"hyperparameters": {**AUTO, "n_epochs": 2}}}
