"""Held-out rows as stock transformers and PEFT judge them: nothing of our trainer's arithmetic is used.

    python benchmarks/judge.py RECIPE.json ADAPTER_FOLDER ROWS.jsonl

prints [loss, accuracy]. Supervised: nats a learnt token, and the share of examples whose every learnt token is the most
likely one, which is to say that the model would give just this answer at temperature 0. Pairs: the mean DPO loss, and
the share whose preferred answer has the higher reward.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pegbox.data.render import Example, examples, truncate
from pegbox.data.rows import read_rows
from pegbox.data.template import load_template
from pegbox.train.recipe import Recipe


@dataclass(frozen=True)
class Told:
    nll: float  # nats, all learnt tokens together
    tokens: int
    exact: bool  # each of them is the most likely


def main(recipe: Recipe, adapter: Path, rows: Path) -> tuple[float, float]:
    torch.set_num_threads(recipe.threads)
    base = AutoModelForCausalLM.from_pretrained(recipe.base_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    template = load_template(Path(recipe.base_folder))
    with rows.open("rb") as file:
        records = [row.record for row in read_rows(file, recipe.method)]
    held = [[truncate(one, recipe.max_tokens) for one in examples(record, template)] for record in records]
    if recipe.method == "dpo":
        return _pairs(model, held, recipe.beta)
    told = [tell(model, one) for row in held for one in row]
    return sum(t.nll for t in told) / sum(t.tokens for t in told), sum(t.exact for t in told) / len(told)


def _pairs(model: PeftModel, held: list[list[Example]], beta: float) -> tuple[float, float]:
    losses, right = [], 0
    for pair in held:
        margins = []
        for answer in pair:
            with model.disable_adapter():
                reference = tell(model, answer).nll
            margins.append(beta * (reference - tell(model, answer).nll))
        chosen, rejected = margins
        losses.append(math.log1p(math.exp(rejected - chosen)))
        right += chosen > rejected
    return sum(losses) / len(losses), right / len(losses)


@torch.inference_mode()
def tell(model: torch.nn.Module, example: Example) -> Told:
    """One example by itself."""
    logs = model(input_ids=torch.tensor([example.tokens])).logits[0, :-1].float().log_softmax(-1)  # (T - 1, V)
    learnt = torch.tensor(example.trained[1:])  # (T - 1,)
    targets = torch.tensor(example.tokens[1:])[learnt]  # (N,)
    logs = logs[learnt]  # (N, V)
    found = logs.gather(1, targets[:, None])  # (N, 1)
    return Told(-float(found.double().sum()), len(targets), bool((logs.argmax(-1) == targets).all()))


if __name__ == "__main__":
    print(json.dumps(main(Recipe.load(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))))
