"""A base model's own token embeddings, read from its safetensors files without torch.

A safetensors file is eight bytes with the length of a JSON header, the header, and the tensors' bytes at the offsets
that it names. Only the rows that are asked for are read; the file is not mapped, for what is touched of a mapped file
counts as memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight")
_KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
_MAX_HEADER = 100_000_000  # bytes, as the format has it


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """(vocabulary, dimensions), on disk."""

    file: Path
    kind: str  # BF16, F16 or F32
    offset: int  # bytes
    vocabulary: int
    dimensions: int

    def __len__(self) -> int:
        return self.vocabulary

    def take(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """(tokens, dimensions)."""
        stored = np.dtype(_KINDS[self.kind])
        rows = np.empty((len(tokens), self.dimensions), dtype=stored)
        width = self.dimensions * stored.itemsize
        with self.file.open("rb", buffering=0) as content:
            for row, token in zip(rows, tokens.tolist(), strict=True):
                content.seek(self.offset + token * width)
                content.readinto(row.data)
        if self.kind == "BF16":  # the upper half of a float32
            return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return rows.astype(np.float32)


def find(folder: Path) -> TokenVectors | None:
    """None where the folder holds no such tensor in a number format that is known here."""
    for file in _files(folder):
        try:
            found = _read(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if found is not None:
            return found
    return None


def _files(folder: Path) -> list[Path]:
    """The file that the index names for the tensor, or all there are."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            shards = json.loads(index.read_bytes())["weight_map"]
            named = [folder / shard for tensor, shard in shards.items() if tensor.endswith(_NAMES)]
        except (ValueError, KeyError, AttributeError, TypeError):
            named = []
        if named:
            return sorted(set(named))
    return sorted(folder.glob("*.safetensors"))


def _read(file: Path) -> TokenVectors | None:
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        if length > _MAX_HEADER:
            return None
        header = json.loads(content.read(length))
    for name, tensor in header.items():
        if name.endswith(_NAMES) and tensor["dtype"] in _KINDS and len(tensor["shape"]) == 2:
            offset = 8 + length + tensor["data_offsets"][0]
            return TokenVectors(file, tensor["dtype"], offset, *tensor["shape"])
    return None
