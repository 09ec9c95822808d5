"""The base models on this machine. Each is a folder below the models directory with a `pegbox.json`, which is
written last: a folder without it is not a model yet."""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pegbox import durable
from pegbox.catalog.table import ALIASES, Alias, Format
from pegbox.errors import CatalogError

MANIFEST = "pegbox.json"
_NAME = re.compile(r"\w[\w .+-]*(/\w[\w .+-]*)?")
_NAME_BYTES = 200  # a folder is called so, and tuned models carry it
_ALIASES = "aliases.json"  # what the operator lets names mean, over the table: name → base
_OWN_NAMES = ("hub", "incoming", _ALIASES)


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
        return (self.alias.format,) if self.alias and self.alias.format else self.base.formats

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
        own = self._own_aliases()
        named = [_alias(name, own) for name in (*ALIASES, *(name for name in own if name not in ALIASES))]
        return [(alias, bases[alias.base]) for alias in named if alias and alias.base in bases]

    def find(self, name: str) -> Resolved | None:
        """What `name` means, or None where it is no base of ours. Never an adapter."""
        alias = _alias(name, self._own_aliases())
        base = alias.base if alias else name
        if not is_name(base) or not (path := self.folder(base) / MANIFEST).is_file():
            return None
        model = load_manifest(path)
        return Resolved(name, model, alias) if model.name == base else None

    def point(self, name: str, base: str) -> Alias:
        """Let `name` mean the base of that name from now on. Raises CatalogError with the reason where it can't."""
        target = self.find(base)
        if target is None or target.alias is not None:
            raise CatalogError(f'there is no base model "{base}" here; `pegbox models list` shows them')
        if not is_name(name):
            raise CatalogError(
                f'"{name}" can\'t be an alias (words of letters, digits, . _ - +, at most one /, no colon)'
            )
        taken = self.find(name)
        if taken is not None and taken.alias is None:
            raise CatalogError(f'"{name}" is a base model itself')
        alias = _alias(name, {name: base})
        assert alias is not None
        if alias.format and alias.format not in target.base.formats:
            raise CatalogError(f"{name} takes {alias.format} rows, and {base} has no chat template for them")
        self._keep_aliases({**self._own_aliases(), name: base})
        return alias

    def forget(self, name: str) -> None:
        """Take back what `point` did: the name means what the table says, or nothing. Raises CatalogError."""
        own = self._own_aliases()
        if name not in own:
            raise CatalogError(f'"{name}" is no alias that was set here')
        self._keep_aliases({kept: base for kept, base in own.items() if kept != name})

    def _own_aliases(self) -> dict[str, str]:
        path = self.root / _ALIASES
        try:
            return {str(name): str(base) for name, base in json.loads(path.read_text("utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError) as error:
            raise CatalogError(f"{path} can't be read ({error}); mend or remove it") from None

    def _keep_aliases(self, aliases: dict[str, str]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        durable.put(self.root / _ALIASES, json.dumps(aliases, indent=1).encode(), "model")

    def folder(self, name: str) -> Path:
        """Where a model of that name (see `is_name`) has its manifest. Hub ids hold a slash, which a folder can't."""
        return self.root / name.replace("/", "--")


def _alias(name: str, own: dict[str, str]) -> Alias | None:
    """What a name means: what the operator says, else what the table says. Row format and limit stay the table's."""
    listed = ALIASES.get(name)
    if name not in own:
        return listed
    return replace(listed, base=own[name]) if listed else Alias(name, None, None, own[name])


def is_name(name: str) -> bool:
    """Whether a base model may be called so: one or two plain parts, and no colon, which separates the parts of a
    tuned model's name. What the catalogue keeps beside the models has such a name too, and is no model."""
    if not _NAME.fullmatch(name) or ".." in name or name in _OWN_NAMES:
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
