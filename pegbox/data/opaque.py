"""A text that refuses to be looked into, to find out whether a chat template looks (skeleton.py)."""

from typing import Any, NoReturn


class LookedIntoError(Exception):
    """The template's output depends on what a content says."""


class Opaque(str):
    """A text that may be written out and joined to others, and nothing else."""

    __slots__ = ()

    def __add__(self, other: str) -> "Opaque":
        return Opaque(str.__str__(self) + str.__str__(other))

    def __radd__(self, other: str) -> "Opaque":
        return Opaque(str.__str__(other) + str.__str__(self))

    def __bool__(self) -> bool:
        return True  # the contents it stands for are not empty

    def __str__(self) -> str:
        return str.__getitem__(self, slice(None))

    def strip(self, characters: str | None = None) -> "Opaque":
        if characters is not None:
            raise LookedIntoError("strip")
        return self  # the contents it stands for have no white space at their ends

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name == "strip":
            return object.__getattribute__(self, name)
        raise LookedIntoError(name)


def _refuse(*_: object, **__: object) -> NoReturn:
    raise LookedIntoError


for _name in ("__contains__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__len__", "__iter__",
              "__getitem__", "__hash__", "__mul__", "__rmul__", "__mod__", "__rmod__", "__format__"):  # fmt: skip
    setattr(Opaque, _name, _refuse)
