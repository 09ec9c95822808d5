"""A base model's own token embeddings, read from its safetensors files without torch.

Only the rows that are asked for are read; the file is not mapped, for what is touched of a mapped file counts as
memory.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pegbox.data.weights import WeightsError, read_header, weight_files

_NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight")
_KINDS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}


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
    try:
        files = weight_files(folder)
    except WeightsError:
        return None
    for file in files:
        try:
            found = _read(file)
        except WeightsError:
            continue
        if found is not None:
            return found
    return None


def _read(file: Path) -> TokenVectors | None:
    for name, tensor in read_header(file).items():
        if name.endswith(_NAMES) and tensor.dtype in _KINDS and len(tensor.shape) == 2:
            return TokenVectors(file, tensor.dtype, tensor.begin, *tensor.shape)
    return None
