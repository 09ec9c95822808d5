"""How a step's samples lie in memory, which changes nothing about what is learnt from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pegbox.data import trie
from pegbox.data.render import Example
from pegbox.train.attention import Layout, layout
from pegbox.train.samples import Sample


@dataclass(frozen=True, slots=True)
class Pack:
    """T tokens that one forward computes: a trie of examples, or a single one."""

    tokens: torch.Tensor  # (1, T) int64
    positions: torch.Tensor  # (1, T) int64: each token's depth
    rows: torch.Tensor  # (n,) int64: the positions that predict
    layout: Layout


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: whole samples, with N predictions in all."""

    samples: tuple[int, ...]  # which of the step's
    examples: int  # how many, counted in the samples' order
    packs: tuple[Pack, ...]
    targets: torch.Tensor  # (N,) int64: the tokens to predict, pack by pack
    owners: torch.Tensor  # (N,) int64: the example that a prediction is learnt for
    unshared: int  # tokens that example by example would compute

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(pack.tokens.shape[1] for pack in self.packs)


def micro_batches(samples: Sequence[Sample], budget: int, *, together: bool = True, device: str = "cpu") -> list[Batch]:
    """Cut a step's samples into micro-batches of at most `budget` laid-out tokens (or one sample, if that is longer).

    Samples with nothing to predict are left out. Not `together`: each example by itself, as models need whose
    attention is of another kind.
    """
    width = len(samples[0].examples) if samples else 1
    examples = [example for sample in samples for example in sample.examples]
    groups = trie.cut(examples, budget if together else 1, width)
    return [_collate(samples, group, together=together, device=device) for group in groups]


def _collate(samples: Sequence[Sample], group: Sequence[int], *, together: bool, device: str) -> Batch:
    examples = [example for i in group for example in samples[i].examples]
    parts = [list(range(len(examples)))] if together else [[i] for i in range(len(examples))]
    laid = [trie.build([examples[i] for i in part]) for part in parts]
    owners = [torch.tensor(part)[torch.from_numpy(t.owners)] for part, t in zip(parts, laid, strict=True)]
    return Batch(
        samples=tuple(group),
        examples=len(examples),
        packs=tuple(_pack(t, device) for t in laid),
        targets=torch.cat([torch.from_numpy(t.targets) for t in laid]).to(device),
        owners=torch.cat(owners).to(device),
        unshared=sum(t.unshared for t in laid),
    )


def _pack(laid: trie.Trie, device: str) -> Pack:
    return Pack(
        tokens=torch.from_numpy(laid.tokens)[None].to(device),
        positions=torch.from_numpy(laid.depths)[None].to(device),
        rows=torch.from_numpy(laid.rows).to(device),
        layout=layout(laid, device),
    )


def alone(examples: Sequence[Example]) -> list[Sample]:
    """Examples as samples of one, for those who have no rows."""
    return [Sample(i, (example,)) for i, example in enumerate(examples)]
