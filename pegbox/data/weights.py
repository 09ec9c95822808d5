"""The headers of weight files. Weights are safetensors and nothing else: eight bytes with the length of a JSON header,
the header, and the tensors' bytes at the offsets that it names.

The format's own library checks that the offsets lie in the file, leave no gap, do not overlap and are as long as shape
and number format say. What it lets through is refused here before: the same name twice, and headers without measure.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pegbox.data import strict_json

MAX_HEADER = 16 * 2**20  # bytes; the largest models have about 1 MiB a file
_REMEDY = "take a whole copy from the model's author, or save the model anew with safetensors"


class WeightsError(ValueError):
    """A weight file that is not to be opened; `str(error)` names it, says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies in its file."""

    dtype: str  # as the format writes it: F32, BF16, …
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file
    end: int


def read_header(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises WeightsError for anything but a whole and unambiguous one."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > MAX_HEADER:
                raise _refused(file, f"its header would be {length:,} bytes long (is it a pickle?)")
            text = content.read(length).decode("utf-8")
        header = strict_json.loads(text)
        with safe_open(file, framework="np"):
            pass
    except OSError as error:
        raise _refused(file, error.strerror or "it can't be read") from None
    except (UnicodeDecodeError, strict_json.JSONError, SafetensorError) as error:
        raise _refused(file, str(error)) from None
    assert isinstance(header, dict), "the library found tensors in it"
    start = 8 + length
    return {
        name: Tensor(entry["dtype"], tuple(entry["shape"]), *(start + offset for offset in entry["data_offsets"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: those that its index names, or all there are.

    Raises WeightsError for an index that names what is no such file of the folder.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _refused(index, "it maps no weights to files") from None
    for name in named:
        plain = isinstance(name, str) and name.endswith(".safetensors") and "/" not in name and "\\" not in name
        if not plain or not (folder / name).is_file():
            raise _refused(index, f"it names {strict_json.printable(str(name))!r}, no safetensors file of that folder")
    return sorted(folder / name for name in named)


def _refused(file: Path, why: str) -> WeightsError:
    return WeightsError(f"{file.name} can't be used as weights: {why[:300]}; {_REMEDY}")
