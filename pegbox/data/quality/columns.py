"""Figures of every row, kept on disk: memory stays the same however long the file is."""

import tempfile
from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS_IN_MEMORY = 1 << 15


class Column:
    """One number a row, in order. Appended to row by row, read whole (a million rows of 8 bytes are 8 MB)."""

    def __init__(self, typecode: str = "Q") -> None:
        """`typecode` as in `array`: Q uint64, L or I uint32, f float32 and so on."""
        self._recent = array(typecode)
        self._file = tempfile.TemporaryFile(prefix="pegbox-")  # noqa: SIM115 - it lives as long as the column
        self._length = 0
        self.append = self._recent.append  # the fast way in; `roll` must be called now and then

    def roll(self) -> None:
        """Write what memory holds to disk, if it is much. Call it every so many rows."""
        if len(self._recent) >= _ROWS_IN_MEMORY:
            self._spill()

    def load(self) -> NDArray[Any]:
        """All values, (rows,)."""
        self._spill()
        self._file.seek(0)
        return np.fromfile(self._file, dtype=self._recent.typecode)

    def __len__(self) -> int:
        return self._length + len(self._recent)

    def __getitem__(self, row: int) -> Any:
        """One value, `row` from 0, without reading the rest."""
        if row >= self._length:
            return self._recent[row - self._length]
        size = self._recent.itemsize
        self._file.seek(row * size)
        return array(self._recent.typecode, self._file.read(size))[0]

    def __del__(self) -> None:
        self._file.close()

    def _spill(self) -> None:
        self._file.seek(0, 2)
        self._recent.tofile(self._file)
        self._length += len(self._recent)
        del self._recent[:]
