"""What a model says of a micro-batch: the log-probability of each token that is to be predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pegbox.train.attention import UnfitError
from pegbox.train.batches import Batch, Pack
from pegbox.train.head import log_probs
from pegbox.train.lora import use_own_linear, use_peft_linear
from pegbox.train.model import body, head, on_trie, use_trie
from pegbox.train.optim import FlatAdapter


@dataclass(frozen=True, slots=True)
class Said:
    """Of a batch's N predictions, in the order of its targets."""

    logps: torch.Tensor  # (N,) float32, nats
    hits: torch.Tensor  # (N,) bool: it was the likeliest token


def say(model: torch.nn.Module, batch: Batch) -> Said:
    """The fast way where the model takes it (`find_the_way`), else transformers' own."""
    ask = _fast if on_trie(model) else _plain
    parts = []
    start = 0
    for pack in batch.packs:
        stop = start + len(pack.rows)
        parts.append(ask(model, pack, batch.targets[start:stop]))
        start = stop
    if len(parts) == 1:
        return Said(*parts[0])
    return Said(torch.cat([logps for logps, _ in parts]), torch.cat([hits for _, hits in parts]))


def _fast(model: torch.nn.Module, pack: Pack, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = body(model)(
        input_ids=pack.tokens, position_ids=pack.positions, use_cache=False, trie=pack.layout
    ).last_hidden_state[0]  # (T, H)
    return log_probs(head(model), hidden.index_select(0, pack.rows), targets)


def _plain(model: torch.nn.Module, pack: Pack, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = model(input_ids=pack.tokens, position_ids=pack.positions, logits_to_keep=pack.rows, use_cache=False)
    logits = out.logits[0].float()  # (n, V)
    hits = logits.detach().argmax(-1) == targets
    return -torch.nn.functional.cross_entropy(logits, targets, reduction="none"), hits


def find_the_way(
    model: torch.nn.Module, adapter: FlatAdapter, together: Sequence[Batch], singly: Sequence[Batch]
) -> str | None:
    """Let the model compute the fast way, if it then says the same; both are batches of the same samples.

    Returns None, or why it stays with transformers' own way, example by example.
    """
    plain = _in_order(model, singly)
    use_own_linear(model, adapter)
    use_trie(model, on=True)
    try:
        difference = (_in_order(model, together) - plain).abs()
        why = None if _close(difference, adapter) else f"its predictions would differ by {difference.max():.2g} nats"
    except UnfitError as unfit:
        why = str(unfit)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        why = f"its layers are of another kind ({type(error).__name__})"
    if why is not None:
        use_trie(model, on=False)
        use_peft_linear(model)
    return why


def _close(difference: torch.Tensor, adapter: FlatAdapter) -> bool:
    """To rounding: of single tokens in fp32; in bf16, which keeps three digits, of their mean."""
    if adapter.working.dtype == torch.float32:
        return bool(difference.max() < 1e-3)
    return bool(difference.mean() < 5e-2)


@torch.inference_mode()
def _in_order(model: torch.nn.Module, batches: Sequence[Batch]) -> torch.Tensor:
    """Of every trained token, in the samples' order, (N,)."""
    logps, places = [], []
    for batch in batches:
        logps.append(say(model, batch).logps)
        width = batch.examples // len(batch.samples)
        sample = torch.tensor(batch.samples, device=batch.owners.device)
        places.append(sample[batch.owners // width] * width + batch.owners % width)
    return torch.cat(logps)[torch.cat(places).argsort(stable=True)]
