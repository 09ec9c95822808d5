"""TRL's side of a comparison. Runs in TRL's own environment, and knows nothing of pegbox.

    python trl_side.py ASK.json OUT.json

ASK says what to train (`Ask`, below): the rows as token ids, in the order to be learnt, so that many a step; the
learning rate of every step; and TRL's own settings. OUT holds the loss and the end of every step, and the memory.

TRL is left as it is but for four things that a comparison needs: rows are read from front to back, the schedule is the
one asked for, each step's loss is kept, and the token ids of pairs are given and not worked out anew.
"""

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import datasets
import torch
import transformers
import trl
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer


@dataclass
class Ask:
    method: str  # "supervised" or "dpo"
    base_folder: str
    rows: list[dict]  # input_ids, completion_mask; of pairs prompt_ids, chosen_ids, rejected_ids
    batch: int  # rows a step
    rates: list[float]  # learning rate of each step
    seed: int
    rank: int
    alpha: int
    beta: float
    threads: int
    texts: list[list[dict]] = field(default_factory=list)  # conversations whose tokens should be `expected`
    expected: list[list[int]] = field(default_factory=list)
    adapter: str | None = None  # weights to start from (PEFT's file)
    dtype: str = "fp32"  # "bf16": weights and autocast; "autocast": fp32 weights and bf16 autocast
    padding_free: bool = False
    micro: int = 0  # rows of one forward; 0: all of the step's
    precompute: bool = True  # the reference's log-probabilities, before the first step


@dataclass
class Seen:
    losses: list[torch.Tensor] = field(default_factory=list)  # of every forward
    positions: list[int] = field(default_factory=list)  # of every forward, padding included
    first: float = 0.0  # when the first step began
    ends: list[float] = field(default_factory=list)  # of the steps
    precompute: float = 0.0


class _Watched:
    """What both trainers get."""

    ask: Ask
    seen: Seen

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def create_scheduler(self, num_training_steps, optimizer=None):
        del num_training_steps
        rates = self.ask.rates
        peak = self.args.learning_rate
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda done: [*rates, 0.0][done] / peak)
        return self.lr_scheduler

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.seen.positions.append(inputs["input_ids"].numel())
        out = super().compute_loss(model, inputs, *args, **kwargs)
        self.seen.losses.append((out[0] if isinstance(out, tuple) else out).detach())
        return out


class Supervised(_Watched, SFTTrainer):
    pass


class Preference(_Watched, DPOTrainer):
    def _prepare_dataset(self, dataset, *_):
        return dataset  # of token ids already

    def _precompute_ref_logps(self, *args):
        began = time.perf_counter()
        dataset = super()._precompute_ref_logps(*args)
        self.seen.precompute += time.perf_counter() - began
        return dataset


class _Ends(TrainerCallback):
    def __init__(self, seen):
        self.seen = seen

    def on_step_begin(self, *_, **__):
        self.seen.first = self.seen.first or time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seen.ends.append(time.perf_counter())


def main(ask: Ask) -> dict:
    began = time.perf_counter()
    torch.set_num_threads(ask.threads)
    torch.set_flush_denormal(True)
    tokenizer = AutoTokenizer.from_pretrained(ask.base_folder)
    weights = torch.bfloat16 if ask.dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(ask.base_folder, dtype=weights, attn_implementation="sdpa")
    seen = Seen()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(ask, seen, model, tokenizer, scratch)
        if ask.adapter:
            missing = set_peft_model_state_dict(trainer.model, load_file(ask.adapter)).unexpected_keys
            assert not missing, missing
        trainer.train()
    ended = time.perf_counter()
    per_step = ask.batch // (ask.micro or ask.batch)
    # SFT divides a forward's sum by the whole step's tokens; DPO gives each forward's mean.
    share = 1.0 if ask.method == "supervised" else 1.0 / per_step
    return {
        "losses": [float(sum(part)) * share for part in _chunks(seen.losses, per_step)],
        "positions": [sum(part) for part in _chunks(seen.positions, per_step)],
        "ends": [end - began for end in seen.ends],
        "precompute_seconds": seen.precompute,
        "start_seconds": seen.first - began,
        "whole_seconds": ended - began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "same_ids": _same_ids(ask, tokenizer),
        "versions": {m.__name__: m.__version__ for m in (trl, transformers, torch)},
    }


def _trainer(ask, seen, model, tokenizer, scratch):
    micro = ask.micro or ask.batch
    common = {
        "output_dir": scratch, "per_device_train_batch_size": micro, "gradient_accumulation_steps": ask.batch // micro,
        "num_train_epochs": 1, "learning_rate": max(ask.rates), "weight_decay": 0.0, "max_grad_norm": 1.0,
        "seed": ask.seed, "bf16": ask.dtype != "fp32", "gradient_checkpointing": False, "max_length": None,
        "report_to": "none", "save_strategy": "no", "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }  # fmt: skip
    if ask.method == "supervised":
        kind = Supervised
        arguments = SFTConfig(**common, completion_only_loss=True, packing=False, padding_free=ask.padding_free)
    else:
        kind = Preference
        arguments = DPOConfig(**common, beta=ask.beta, loss_type=["sigmoid"], precompute_ref_log_probs=ask.precompute)
    kind.ask, kind.seen = ask, seen
    return kind(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(ask.rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=ask.rank, lora_alpha=ask.alpha, lora_dropout=0.0, target_modules="all-linear"
        ),
        callbacks=[_Ends(seen)],
    )


def _same_ids(ask, tokenizer) -> list[int]:
    """How many of the conversations have the expected tokens by transformers' own template, but for what the
    template writes behind the last answer; and of how many."""
    same = 0
    for messages, expected in zip(ask.texts, ask.expected, strict=True):
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        same += ids[: len(expected)] == expected and not tokenizer.decode(ids[len(expected) :]).strip()
    return [same, len(ask.texts)]


def _chunks(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    found = main(Ask(**json.loads(Path(sys.argv[1]).read_text("utf-8"))))
    Path(sys.argv[2]).write_text(json.dumps(found), "utf-8")
