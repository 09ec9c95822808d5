"""The base models on this machine. Each is a folder below the models directory with a `pegbox.json`, which is
written last: a folder without it is not a model yet."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pegbox import durable
from pegbox.catalog.table import ALIASES, Alias, Format
from pegbox.errors import CatalogError

MANIFEST = "pegbox.json"
_NAME = re.compile(r"\w[\w .+-]*(/\w[\w .+-]*)?")
_NAME_BYTES = 200  # a folder is called so, and tuned models carry it
_OWN_FOLDERS = ("hub", "incoming")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """One base model, ready to be trained and asked."""

    name: str
    folder: str  # where config.json, model.safetensors and tokenizer.json lie
    created_at: int  # unix seconds
    source: str  # a package, a folder or a hub id
    formats: tuple[Format, ...]
    context: int  # tokens
    hidden_size: int
    parameters: int
    license: str
    fingerprint: str  # sha256 over the weight files' names, sizes and hashes
    price: float = 0.0  # for a million training tokens, in the operator's currency


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name that a client gave, and the base it means."""

    asked: str
    base: BaseModel
    alias: Alias | None

    @property
    def formats(self) -> tuple[Format, ...]:
        return (self.alias.format,) if self.alias else self.base.formats

    @property
    def context(self) -> int:
        """Most tokens an example may have."""
        limit = self.alias.context if self.alias else None
        return min(limit or self.base.context, self.base.context)


class Catalog:
    """Reads the models directory afresh at each question, so a model added now is there now."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def bases(self) -> list[BaseModel]:
        found = [load_manifest(path) for path in sorted(self.root.glob(f"*/{MANIFEST}"))]
        return sorted(found, key=lambda model: model.created_at)

    def aliases(self) -> list[tuple[Alias, BaseModel]]:
        """The aliases whose base is here."""
        bases = {model.name: model for model in self.bases()}
        return [(alias, bases[alias.base]) for alias in ALIASES.values() if alias.base in bases]

    def find(self, name: str) -> Resolved | None:
        """What `name` means, or None where it is no base of ours. Never an adapter."""
        alias = ALIASES.get(name)
        base = alias.base if alias else name
        if not is_name(base) or not (path := self.folder(base) / MANIFEST).is_file():
            return None
        model = load_manifest(path)
        return Resolved(name, model, alias) if model.name == base else None

    def folder(self, name: str) -> Path:
        """Where a model of that name (see `is_name`) has its manifest. Hub ids hold a slash, which a folder can't."""
        return self.root / name.replace("/", "--")


def is_name(name: str) -> bool:
    """Whether a base model may be called so: one or two plain parts, and no colon, which separates the parts of a
    tuned model's name. What the catalogue keeps beside the models has such a name too, and is no model."""
    if not _NAME.fullmatch(name) or ".." in name or name in _OWN_FOLDERS:
        return False
    return len(name.encode()) <= _NAME_BYTES


def load_manifest(path: Path) -> BaseModel:
    try:
        values = json.loads(path.read_text("utf-8"))
        return BaseModel(**{**values, "formats": tuple(values["formats"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CatalogError(f"{path} can't be read ({error}); remove that folder and add the model again") from None


def save_manifest(path: Path, model: BaseModel) -> None:
    """Write the manifest by rename: this is the moment at which the model exists."""
    durable.put(path, json.dumps(asdict(model), indent=1).encode(), "model")
