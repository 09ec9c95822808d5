"""The receipt, through a real server: what a job that went well carries, and how a broken one fails."""

import json
from pathlib import Path

import pytest
from conftest import Server, ServerMaker, chat_row, finished, messages, rows, upload, write_jsonl
from openai import OpenAI

NAMES = [
    "row_accounting", "supervised_tokens", "mask", "truncation", "token_parity", "single_bos", "stop_learned",
    "engine_agrees", "adapter_applied", "template_rewrites_turns", "learnt",
]  # fmt: skip


def receipt_of(server: Server, job_id: str) -> dict:
    answer = server.http().get(f"/fine_tuning/jobs/{job_id}/receipt")
    assert answer.status_code == 200, answer.text
    return answer.json()


def trained(client: OpenAI, path: Path, **choices):
    job = client.fine_tuning.jobs.create(
        training_file=upload(client, path), **{"model": "tiny", "seed": 3, "hyperparameters": {"n_epochs": 4, "batch_size": 4, "learning_rate_multiplier": 3}, **choices}
    )
    return finished(client, job.id)


def test_a_job_that_went_well(server: Server, client: OpenAI, tmp_path: Path) -> None:
    job = trained(client, write_jsonl(tmp_path / "t.jsonl", rows(20)))
    assert job.status == "succeeded", job.error
    found = receipt_of(server, job.id)
    print(json.dumps(found, indent=1))
    print("\n".join(messages(client, job.id)))
    assert [check["name"] for check in found["checks"]] == NAMES
    assert found["status"] == "passed"
