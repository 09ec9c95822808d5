"""What a training step computes, in floating-point operations, and what the machine's own matrix product could do.

    python benchmarks/ledger.py MODEL_FOLDER fp32|bf16 TOKENS THREADS

prints the machine's GFLOP/s at that model's shapes: each linear layer forward and backward, with so many tokens.

Counted, for LoRA on every linear layer of the blocks, with the base frozen and no recomputation: N numbers in these
layers, l in their adapters, V x H in the head. A token of the blocks costs 2N + 2l forward, 2N + 2l for the gradient
of its input and 2l for the adapters': 4N + 6l. A prediction of ours costs two products with the head: 4VH. TRL, where
it has no Triton (on a CPU), projects every position, trained or not, and once more in backward: 6VH a position.
Attention's products, norms and activations are left out on both sides.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

FORMULA = "(4N + 6l) a computed token + 4VH a trained prediction (TRL on a CPU: + 6VH every position, padding too)"
_SECONDS = 0.25  # for one shape


@dataclass(frozen=True)
class Shapes:
    """The matrices of a model."""

    linears: dict[tuple[int, int], int]  # (out, in) → how many such layers the blocks have
    head: tuple[int, int]  # (V, H)

    @property
    def blocks(self) -> int:
        """N"""
        return sum(out * into * n for (out, into), n in self.linears.items())

    def adapter(self, rank: int) -> int:
        """l"""
        return sum(rank * (out + into) * n for (out, into), n in self.linears.items())


def shapes_of(folder: Path) -> Shapes:
    """From the headers of the weights' files: nothing is loaded."""
    linears: Counter[tuple[int, int]] = Counter()
    head = None
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name == "__metadata__" or len(tensor["shape"]) != 2:
                continue
            if ".layers." in name:
                linears[tuple(tensor["shape"])] += 1
            elif head is None or name.startswith("lm_head"):  # an untied head goes before the embedding
                head = tuple(tensor["shape"])
    if head is None or not linears:
        raise ValueError(f"{folder}: no weights of a kind this knows")
    return Shapes(dict(linears), head)


def operations(shapes: Shapes, rank: int, *, computed: int, predicted: int) -> int:
    """Of a step of ours."""
    vocabulary, width = shapes.head
    return (4 * shapes.blocks + 6 * shapes.adapter(rank)) * computed + 4 * vocabulary * width * predicted


def operations_of_trl(shapes: Shapes, rank: int, *, positions: int) -> int:
    """Of a step of TRL's on a CPU; `positions` with padding."""
    vocabulary, width = shapes.head
    return (4 * shapes.blocks + 6 * shapes.adapter(rank) + 6 * vocabulary * width) * positions


def ceiling(shapes: Shapes, dtype: str, tokens: int, threads: int) -> float:
    """Operations a second of plain matrix products at these shapes: the best of several tries of each, weighted as
    the model uses them."""
    import torch

    torch.set_num_threads(threads)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    work = seconds = 0.0
    for (out, into), n in shapes.linears.items():
        weight = torch.randn(out, into).to(kind)  # (O, I)
        x, dy = torch.randn(tokens, into).to(kind), torch.randn(tokens, out).to(kind)  # (T, I), (T, O)
        best = []
        for left, right in ((x, weight.T), (dy, weight)):
            times = []
            until = time.perf_counter() + _SECONDS
            while len(times) < 3 or time.perf_counter() < until:
                began = time.perf_counter()
                left @ right
                times.append(time.perf_counter() - began)
            best.append(min(times))
        work += 4.0 * tokens * out * into * n
        seconds += sum(best) * n
    return work / seconds


if __name__ == "__main__":
    folder, dtype, tokens, threads = sys.argv[1:]
    print(ceiling(shapes_of(Path(folder)), dtype, int(tokens), int(threads)) / 1e9)
