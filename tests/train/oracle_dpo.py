"""Preference tuning, as plainly as it can be written: transformers and PEFT, one text at a time, no packing, no cache.

The loss of a pair is -log sigmoid(beta ((log p(chosen) - log p0(chosen)) - (log p(rejected) - log p0(rejected)))), with
p the model, p0 the same with its adapter off, and log p(answer) the sum over the answer's tokens, the one that ends
the turn among them. A step's loss is the mean over its pairs. Nothing here comes from pegbox.train but the recipe's
figures and the order of the examples.
"""

import json
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir
from pegbox.train.sampler import examples_of, steps_per_epoch


@dataclass(frozen=True)
class Answer:
    """A prompt and an answer to it."""

    ids: list[int]
    start: int  # of the answer's first token


@dataclass(frozen=True)
class Pair:
    chosen: Answer
    rejected: Answer


def pairs(run: RunDir, recipe: Recipe) -> list[Pair]:
    """The rows of train.jsonl, by transformers' own chat template."""
    tokenizer = AutoTokenizer.from_pretrained(recipe.base_folder)
    rows = [json.loads(line) for line in run.train_data.read_text("utf-8").splitlines()]
    return [
        Pair(
            _answer(tokenizer, row["input"]["messages"], row["preferred_output"], recipe.max_tokens),
            _answer(tokenizer, row["input"]["messages"], row["non_preferred_output"], recipe.max_tokens),
        )
        for row in rows
    ]


def _answer(
    tokenizer: PreTrainedTokenizerBase, before: list[dict[str, str]], said: list[dict[str, str]], limit: int
) -> Answer:
    prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, tokenize=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*before, *said], tokenize=True, return_dict=False)
    assert whole[: len(prompt)] == prompt, "the template only appends"
    stop = whole.index(tokenizer.convert_tokens_to_ids("<|im_end|>"), len(prompt))
    return Answer(whole[: stop + 1][:limit], len(prompt))


def fresh_model(recipe: Recipe) -> PeftModel:
    """The base in fp32 with a new adapter on every linear layer, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    base = AutoModelForCausalLM.from_pretrained(recipe.base_folder, dtype=torch.float32)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules="all-linear"
    )
    return get_peft_model(base, config)


def log_likelihood(model: torch.nn.Module, answer: Answer) -> torch.Tensor:
    """Of the answer given the prompt, in nats (scalar)."""
    logits = model(input_ids=torch.tensor([answer.ids])).logits[0, :-1].float()  # (T - 1, V)
    logs = logits.log_softmax(-1).gather(1, torch.tensor(answer.ids[1:])[:, None])[:, 0]  # (T - 1,)
    return logs[answer.start - 1 :].sum()


def rewards(model: PeftModel, pair: Pair, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the chosen answer and of the rejected one: beta times the log-ratio to the model without its adapter."""
    found = []
    for answer in (pair.chosen, pair.rejected):
        with torch.no_grad(), model.disable_adapter():
            reference = log_likelihood(model, answer)
        found.append(beta * (log_likelihood(model, answer) - reference))
    return found[0], found[1]


def pair_loss(model: PeftModel, pair: Pair, beta: float) -> torch.Tensor:
    chosen, rejected = rewards(model, pair, beta)
    return -torch.nn.functional.logsigmoid(chosen - rejected)


def naive_dpo_gradients(model: PeftModel, step: list[Pair], beta: float) -> dict[str, torch.Tensor]:
    """Of the mean loss of one step's pairs, for every tensor of the adapter, by name. Sums into fresh gradients."""
    model.zero_grad()
    for pair in step:
        (pair_loss(model, pair, beta) / len(step)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def naive_dpo_losses(run: RunDir, recipe: Recipe) -> list[float]:
    """Step losses of the plainest possible loop over all epochs."""
    learn = pairs(run, recipe)
    model = fresh_model(recipe)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    total = steps_per_epoch(len(learn), recipe.batch_size) * recipe.n_epochs
    losses = []
    for step in range(1, total + 1):
        batch = [learn[i] for i in examples_of(step, len(learn), recipe.batch_size, recipe.seed)]
        optimizer.zero_grad()
        loss_sum = 0.0
        for pair in batch:
            loss = pair_loss(model, pair, recipe.beta)
            (loss / len(batch)).backward()
            loss_sum += loss.item()
        losses.append(loss_sum / len(batch))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        rise = min(1.0, step / recipe.warmup_steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * rise * (total - step + 1) / total
        optimizer.step()
    return losses
