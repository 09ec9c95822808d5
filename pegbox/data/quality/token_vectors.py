"""A base model's own token embeddings, read from its safetensors files without torch.

A safetensors file is eight bytes with the length of a JSON header, the header, and the tensors' bytes at the offsets
that it names. The file is mapped, and only the rows that are asked for are read.
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

    data: NDArray[np.generic]
    kind: str

    @property
    def dimensions(self) -> int:
        return int(self.data.shape[1])

    def __len__(self) -> int:
        return len(self.data)

    def take(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """(tokens, dimensions)."""
        rows = np.asarray(self.data[tokens])
        if self.kind == "BF16":  # the upper half of a float32
            return (rows.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return rows.astype(np.float32)


def find(folder: Path) -> TokenVectors | None:
    """None where the folder holds no such tensor in a number format that is known here."""
    for file in _files(folder):
        try:
            found = _read(file)
        except (OSError, ValueError, KeyError, TypeError):
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
            kind = tensor["dtype"]
            offset = 8 + length + tensor["data_offsets"][0]
            data = np.memmap(file, dtype=_KINDS[kind], mode="r", offset=offset, shape=tuple(tensor["shape"]))
            return TokenVectors(data, kind)
    return None
