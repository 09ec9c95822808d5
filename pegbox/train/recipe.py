"""The recipe of a run: every choice as a number, with the reason for each that nobody made."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pegbox import durable

LORA_RANK = 16
LORA_ALPHA = 32
MICRO_BATCH_TOKENS = 4_096  # about 4 GB of activations for a 135M model in fp32; more gives no speed on a CPU
BETA = 0.1
PREFERENCE_RATE = 0.1  # of the supervised learning rate
WHOLE_RATE = 0.1  # of an adapter's learning rate, where all weights are learnt
VALID_EVERY = 10
VALID_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that the trainer is told. Frozen as `recipe.json` before the first step."""

    job_id: str
    base: str  # name in the catalogue
    base_folder: str
    base_fingerprint: str
    base_key: str | None = None  # where the store has `base_folder`, if that is a whole tuned model
    adapter_folder: str | None = None  # train on from this adapter (PEFT format) instead of a fresh one
    weights: str = "adapter"  # what is learnt; or "all" of the base's own
    method: str = "supervised"  # or "dpo"
    beta: float = BETA  # of dpo: how dearly it pays to leave the reference
    format: str = "chat"  # or "completion": what the rows are, and so what the model can be asked
    seed: int
    n_epochs: int
    batch_size: int  # examples in an optimizer step
    learning_rate: float  # peak
    learning_rate_multiplier: float
    warmup_steps: int
    max_tokens: int  # tokens an example; longer ones are cut at the end
    dtype: str = "auto"  # of the frozen weights and the activations; the trainer's probe writes what it chose
    patience: int | None = None  # stop after this many epochs without a better validation loss; None: never early
    lora_rank: int = LORA_RANK
    lora_alpha: int = LORA_ALPHA
    micro_batch_tokens: int = MICRO_BATCH_TOKENS  # most laid-out tokens in one forward; the trainer may lower it
    valid_every: int = VALID_EVERY  # steps between looks at a small validation batch
    valid_rows: int = VALID_ROWS  # rows of that small batch
    snapshot_seconds: float = 120.0  # between snapshots that a killed run resumes from
    threads: int  # CPU threads; part of the recipe because sums depend on it in the last bit
    deterministic: bool = False  # on a GPU: the same numbers at every run, at some cost; a CPU's always are
    settled: bool = False  # the trainer has looked at the machine: dtype and micro_batch_tokens are final
    reasons: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        durable.put(path, json.dumps(asdict(self), indent=1).encode(), "recipe")

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Raises ValueError for a key that no field answers to: a typo must not change a run in silence."""
        values = json.loads(path.read_text("utf-8"))
        unknown = values.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"{path}: unknown keys {sorted(unknown)}")
        return cls(**values)


def auto_batch_size(examples: int, epochs: int) -> tuple[int, str]:
    """Examples a step, so that a small file still gives some 75 steps; at most 8, where quality peaks.

    Where that would be fewer than 4, it grows to 4 by the time that 175 examples are seen. Steps of one or two examples
    at this learning rate learn the rows by heart: of 59 rows of free text held-out loss was 3.81 with 1 a step, 3.52
    with 2 and 3.22 with 4. Short labels hardly mind: of 40 rows with 1 and 4 a step, the same accuracy
    (benchmarks/RESULTS.md). Ten examples seen ten times stay at 1 a step, as OpenAI's rule has it: scripts count on
    their 100 steps.
    """
    seen = examples * epochs
    size = max(1, min(4, (seen - 75) // 25), min(8, seen // 75))
    return size, f"{size} a step gives about {-(-examples // size) * epochs} steps for {examples} examples"


def auto_multiplier() -> tuple[float, str]:
    return 1.0, "the base model's own learning rate"


def base_learning_rate(hidden_size: int) -> tuple[float, str]:
    """Peak learning rate at multiplier 1, for LoRA on all linear layers with alpha 32.

    5e-4 at a width of 2,000, falling with width: between the per-model optima published with "LoRA Without
    Regret" (2.9e-4 for an 8B Llama) and what was measured on SmolLM2-135M (1e-3).
    """
    rate = 5e-4 * (2_000 / hidden_size) ** 0.56
    return float(f"{rate:.2g}"), f"for a model {hidden_size} wide"


def batch_size_for(method: str, examples: int, epochs: int) -> tuple[int, str]:
    return auto_preference_batch_size(examples, epochs) if method == "dpo" else auto_batch_size(examples, epochs)


def learning_rate_for(method: str, hidden_size: int, weights: str = "adapter") -> tuple[float, str]:
    rate, reason = preference_learning_rate(hidden_size) if method == "dpo" else base_learning_rate(hidden_size)
    return (rate, reason) if weights == "adapter" else whole_learning_rate(rate, reason)


def whole_learning_rate(adapters: float, reason: str) -> tuple[float, str]:
    """Where all weights are learnt: a tenth of what an adapter takes.

    AdamW moves every number by about the rate, whatever its gradient. An adapter's numbers reach the layers through a
    product with small ones, but here each step moves the weights themselves. "LoRA Without Regret" finds the optimum
    for LoRA ten times that for full tuning, over models of many sizes and both methods.
    """
    return float(f"{adapters * WHOLE_RATE:.2g}"), f"{reason}, a tenth of an adapter's, as all weights are learnt"


def auto_preference_batch_size(pairs: int, epochs: int) -> tuple[int, str]:
    """Pairs a step. A pair says one thing, and says it less surely than an answer to be learnt, so the steps are
    fewer and larger: some 50 in a small file. At most 16 pairs: LoRA bears large batches badly."""
    size = max(1, min(16, pairs * epochs // 50))
    return size, f"{size} a step gives about {-(-pairs // size) * epochs} steps for {pairs} pairs"


def auto_beta() -> tuple[float, str]:
    """0.1, the value of the paper's own experiments and of every common trainer."""
    return BETA, "the usual one"


def preference_learning_rate(hidden_size: int) -> tuple[float, str]:
    """Peak learning rate at multiplier 1 for dpo: a tenth of that for answers to be learnt.

    The loss is met by pushing the two answers apart, and a rate that is right for copying answers pushes both out of
    what the reference would ever say. Full tuning goes by 1e-6 (TRL) and LoRA by ten times that (Tinker) at some 8B;
    a tenth of the supervised rate is 1e-4 for a model 576 wide, falling with width as that one does.
    """
    rate, reason = base_learning_rate(hidden_size)
    return float(f"{rate * PREFERENCE_RATE:.2g}"), f"{reason}, a tenth of the supervised one"


def auto_warmup(total_steps: int) -> int:
    """Steps over which the learning rate rises: 5 % of the run."""
    return max(1, total_steps // 20)
