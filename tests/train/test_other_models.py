"""Models of other families, tiny and random: those that share beginnings do so exactly; the others say why not, and
train row by row. Either way log-probabilities are stock transformers' own."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from pegbox.data.render import Example
from pegbox.train.batches import alone, micro_batches
from pegbox.train.model import on_trie, trainable
from pegbox.train.optim import FlatAdapter
from pegbox.train.scoring import find_the_way, say

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 1,
}  # fmt: skip
SHARE = ["Qwen2", "Qwen3", "Mistral", "Phi3", "Granite"]
WHY = {
    "Gemma2": "its attention is of another kind",  # soft-capped scores, sliding windows
    "Mistral, windowed": "its attention is of another kind",
    "GptOss": "its attention is of another kind",  # sinks
}


def made(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    family, _, windowed = name.partition(", ")
    config = getattr(transformers, f"{family}Config")(**SIZES)
    config.sliding_window = 4 if windowed or family in ("Gemma2", "GptOss") else None
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.requires_grad_(requires_grad=False).eval()


def texts() -> list[Example]:
    begun = [3, 4, 5, 6, 7, 8, 9]
    found = [[*begun, 10, 11, 12], [*begun, 10, 13], [*begun[:3], 14, 15, 16], [20, 21, 22]]
    return [Example(tokens, [False, *([True] * (len(tokens) - 1))]) for tokens in found]


def log_prob(model: torch.nn.Module, example: Example) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([example.tokens])).logits[0, :-1].float()
    picked = logits.log_softmax(-1).gather(1, torch.tensor(example.tokens[1:])[:, None])
    return float(picked.sum())


@pytest.mark.parametrize("name", [*SHARE, *WHY])
def test_shared_exactly_or_not_at_all(name: str) -> None:
    base = made(name)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for p in trainable(model).values():
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    expected = [log_prob(model, example) for example in texts()]
    adapter = FlatAdapter(trainable(model))
    samples = alone(texts())
    singly = micro_batches(samples, 100, together=False)
    why = find_the_way(model, adapter, micro_batches(samples, 100), singly)
    assert why == WHY.get(name)
    assert on_trie(model) == (why is None)
    batches = singly if why else micro_batches(samples, 100)
    found: dict[int, float] = {}
    for batch in batches:
        logps = say(model, batch).logps
        (-logps.sum()).backward()
        for owner, value in zip(batch.owners.tolist(), logps.tolist(), strict=True):
            found[batch.samples[owner]] = found.get(batch.samples[owner], 0.0) + value
    assert [found[i] for i in range(4)] == pytest.approx(expected, abs=1e-4)
    assert adapter.gradient.isfinite().all()
    assert adapter.gradient.norm() > 0
