"""The main path on the real model: SmolLM2 learns from a few tickets, and what was trained is what answers."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SMOLLM2, ServerMaker, finished, upload
from openai import OpenAI
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from pegbox.catalog.models import Catalog

TICKETS = Path(__file__).parent.parent / "examples" / "tickets"


def likelihood(model: torch.nn.Module, tokenizer, messages: list[dict[str, str]], answer: list[int]) -> list[float]:
    """Log-probabilities of an answer's tokens by transformers alone, template and all."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    with torch.inference_mode():
        logprobs = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return [float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)]


def test_a_few_tickets_on_smollm2(smollm2_models: Path, new_server: ServerMaker, tmp_path: Path) -> None:
    found = Catalog(smollm2_models).find(SMOLLM2)
    assert found is not None
    server = new_server(smollm2_models, PEGBOX_THREADS="2")
    client: OpenAI = server.client()
    few = tmp_path / "few.jsonl"
    few.write_text(
        "".join(line + "\n" for line in (TICKETS / "train.jsonl").read_text("utf-8").splitlines()[:32]), "utf-8"
    )
    job = client.fine_tuning.jobs.create(
        model="gpt-3.5-turbo",
        training_file=upload(client, few),
        seed=1,
        hyperparameters={"n_epochs": 1, "batch_size": 4},
    )
    job = finished(client, job.id)
    assert job.status == "succeeded", job.error
    curve = client.files.content(job.result_files[0]).text.splitlines()[1:]
    losses = [float(line.split(",")[1]) for line in curve]
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 2, losses

    # --- the served model against PEFT on the stored adapter, and both against the base --------------------
    messages = [
        {"role": "system", "content": "Route the customer's message to one team. Answer with one word."},
        {"role": "user", "content": "My cello's bridge snapped."},
    ]
    said = client.chat.completions.create(
        model=job.fine_tuned_model, messages=messages, temperature=0, max_tokens=6, logprobs=True
    )
    tokenizer = AutoTokenizer.from_pretrained(found.base.folder)
    scored = said.choices[0].logprobs.content
    answer = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(token.token))[0] for token in scored]
    base = AutoModelForCausalLM.from_pretrained(found.base.folder, dtype=torch.float32)
    of_base = likelihood(base, tokenizer, messages, answer)
    (adapter,) = (server.data_dir / "blobs" / "adapters" / job.id).iterdir()
    of_adapter = likelihood(PeftModel.from_pretrained(base, adapter), tokenizer, messages, answer)
    served = [token.logprob for token in scored]
    assert served == pytest.approx(of_adapter, abs=1e-3)
    assert served != pytest.approx(of_base, abs=0.1), "the adapter changes what the model says"

    # --- and the base is still the base ---------------------------------------------------------------------
    plain = client.chat.completions.create(
        model=SMOLLM2,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=12,
    )
    assert plain.choices[0].message.content == "The capital of France is Paris."

    # --- kept to a form, it says the same ------------------------------------------------------------------
    schema = {
        "type": "object", "properties": {"capital": {"type": "string"}, "of": {"const": "France"}},
        "required": ["capital", "of"], "additionalProperties": False,
    }  # fmt: skip
    formed = client.chat.completions.create(
        model=SMOLLM2,
        messages=[{"role": "user", "content": "Answer in JSON: what is the capital of France?"}],
        temperature=0,
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
    )
    assert json.loads(formed.choices[0].message.content) == {"capital": "Paris", "of": "France"}
