"""Hold the bytes against what was said of them when they were stored."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pegbox.storage.blobs import MANIFEST
from pegbox.upkeep.store import References


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are not what a row says. `key` is that of the blob."""

    key: str
    text: str


def damage(blobs: Path, wanted: References) -> list[Damage]:
    """What in that folder is not what its row says. Reads every byte. Empty where all that has a row is whole."""
    problems = [(key, file_problem(blobs / key, sha256)) for key, sha256 in sorted(wanted.files.items())]
    problems += [(key, folder_problem(blobs / key)) for key in sorted(wanted.adapters)]
    return [Damage(key, problem) for key, problem in problems if problem]


def file_problem(path: Path, sha256: str) -> str | None:
    """How a file differs from its hash; None where it doesn't."""
    try:
        found = digest_of(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return None if found == sha256 else f"has other bytes than were stored (sha256 {found[:12]}…, not {sha256[:12]}…)"


def folder_problem(path: Path) -> str | None:
    """How a stored folder differs from its manifest. One of before there were manifests is taken as it is."""
    if not path.is_dir():
        return "is missing"
    manifest = path / MANIFEST
    if not manifest.exists():
        return None
    try:
        digests: dict[str, str] = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return "has a manifest that can't be read"
    problems = ((name, file_problem(path / name, digest)) for name, digest in digests.items())
    return next((f"{name} {problem}" for name, problem in problems if problem), None)


def digest_of(path: Path) -> str:
    """sha256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
