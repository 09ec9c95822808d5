import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pegbox.catalog import pull
from pegbox.catalog.models import MANIFEST, BaseModel, Catalog, load_manifest, save_manifest
from pegbox.catalog.table import ALIASES, DEFAULT_BASE, WHEELS
from pegbox.errors import CatalogError


def model(name: str, **more: Any) -> BaseModel:
    values: dict[str, Any] = {
        "folder": "/somewhere", "created_at": 1, "source": "tests", "formats": ("chat", "completion"), "context": 8192,
        "hidden_size": 64, "parameters": 1000, "license": "Apache-2.0", "fingerprint": "f", "price": 0.5,
    }  # fmt: skip
    return BaseModel(name=name, **{**values, **more})


def put(root: Path, name: str, **more: Any) -> BaseModel:
    made = model(name, **more)
    folder = Catalog(root).folder(name)
    folder.mkdir(parents=True)
    save_manifest(folder / MANIFEST, made)
    return made


def silent(_: str, __: float) -> None:
    pass


# --- manifests and names -------------------------------------------------------------------------------------


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST
    made = model("é/日本", formats=("completion",))
    save_manifest(path, made)
    assert load_manifest(path) == made
    assert [entry.name for entry in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"name": "x"}', '{"formats": []}', '{"formats": 5}', "\xff"]
)
def test_a_damaged_manifest_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / MANIFEST
    path.write_text(content, "latin-1")
    with pytest.raises(CatalogError, match="remove that folder and add the model again") as error:
        load_manifest(path)
    assert str(path) in str(error.value)


def test_an_unknown_key_in_a_manifest_is_damage(tmp_path: Path) -> None:
    save_manifest(tmp_path / MANIFEST, model("x"))
    values = json.loads((tmp_path / MANIFEST).read_text("utf-8"))
    (tmp_path / MANIFEST).write_text(json.dumps({**values, "colour": 1}), "utf-8")
    with pytest.raises(CatalogError, match="colour"):
        load_manifest(tmp_path / MANIFEST)


def test_bases_are_by_age_and_leaves_out_what_is_not_whole(tmp_path: Path) -> None:
    new, old = put(tmp_path, "a-new", created_at=9), put(tmp_path, "org/old", created_at=3)
    (tmp_path / "incoming" / "half").mkdir(parents=True)
    (tmp_path / "no-manifest").mkdir()
    assert Catalog(tmp_path).bases() == [old, new]
    assert Catalog(tmp_path / "nowhere").bases() == []


@pytest.mark.parametrize("name", ["plain", "org/name", "Org/Name-1.5_b", "日本語", "with space", "x" * 200])
def test_a_model_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    made = put(tmp_path, name)
    found = Catalog(tmp_path).find(name)
    assert (found.asked, found.base, found.alias) == (name, made, None)
    assert (found.formats, found.context) == (("chat", "completion"), 8192)
    assert Catalog(tmp_path).folder(name).parent == tmp_path


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "..\\x", "a\\b", "\x00", "x\x00y", ".hidden", "x" * 201, "/etc", "incoming", "nothing",
     "ft:x:y::z", "\ud800", "~", "x/", "*", "a/../x",
     pytest.param("日" * 100, id="long")],
)  # fmt: skip
def test_path_tricks_find_nothing(tmp_path: Path, name: str) -> None:
    root = tmp_path / "models"
    put(root, "x")
    put(root, "no-such-model-at-all")
    save_manifest(tmp_path / MANIFEST, model("outside"))
    (tmp_path / "x").mkdir()
    save_manifest(tmp_path / "x" / MANIFEST, model("outside"))
    assert Catalog(root).find(name) is None


def test_the_folders_spelling_of_a_name_is_not_the_name(tmp_path: Path) -> None:
    put(tmp_path, "org/name")
    assert Catalog(tmp_path).find("org--name") is None


# --- aliases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formats", "context"),
    [
        ("gpt-3.5-turbo", ("chat",), 4096),
        ("babbage-002", ("completion",), 4096),
        ("davinci", ("completion",), 2048),
        ("gpt-4o-mini-2024-07-18", ("chat",), 8192),
    ],
)
def test_an_alias_means_the_default_base(tmp_path: Path, name: str, formats: tuple[str, ...], context: int) -> None:
    base = put(tmp_path, DEFAULT_BASE)
    found = Catalog(tmp_path).find(name)
    assert (found.asked, found.base, found.alias) == (name, base, ALIASES[name])
    assert (found.formats, found.context) == (formats, context)


def test_an_alias_never_promises_more_than_the_base_can_see(tmp_path: Path) -> None:
    put(tmp_path, DEFAULT_BASE, context=512)
    assert {Catalog(tmp_path).find(name).context for name in ALIASES} == {512}


def test_aliases_are_there_when_their_base_is(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    assert catalog.aliases() == []
    assert catalog.find("gpt-4o") is None
    base = put(tmp_path, DEFAULT_BASE)
    assert catalog.aliases() == [(alias, base) for alias in ALIASES.values()]


def test_a_name_can_mean_another_base(tmp_path: Path) -> None:
    catalog, default, other = Catalog(tmp_path), put(tmp_path, DEFAULT_BASE), put(tmp_path, "org/other")
    catalog.point("gpt-3.5-turbo", "org/other")
    catalog.point("our-model", "org/other")
    found = catalog.find("gpt-3.5-turbo")
    assert (found.base, found.formats, found.context) == (other, ("chat",), 4096), "rows and limit stay the name's"
    found = catalog.find("our-model")
    assert (found.base, found.formats, found.context) == (other, other.formats, other.context)
    assert catalog.find("gpt-4o-mini").base == default
    assert {alias.name: base.name for alias, base in catalog.aliases()} == {
        **dict.fromkeys(ALIASES, DEFAULT_BASE), "gpt-3.5-turbo": "org/other", "our-model": "org/other"
    }  # fmt: skip
    pull.remove(catalog, "org/other")
    assert catalog.find("gpt-3.5-turbo") is None, "not another base without a word"
    catalog.forget("gpt-3.5-turbo")
    catalog.forget("our-model")
    assert catalog.find("gpt-3.5-turbo").base == default
    assert catalog.find("our-model") is None


@pytest.mark.parametrize(
    ("name", "base", "why"),
    [
        ("gpt-4o", "nowhere", 'no base model "nowhere"'),
        ("gpt-4o", "gpt-4o-mini", "no base model"),
        ("ft:a:b:c:d", DEFAULT_BASE, "no colon"),
        ("aliases.json", DEFAULT_BASE, "can't be an alias"),
        (DEFAULT_BASE, "plain", "is a base model itself"),
        ("gpt-4o", "plain", "takes chat rows"),
    ],
)
def test_what_no_name_can_mean(tmp_path: Path, name: str, base: str, why: str) -> None:
    put(tmp_path, DEFAULT_BASE)
    put(tmp_path, "plain", formats=("completion",))
    catalog = Catalog(tmp_path)
    before = catalog.aliases()
    with pytest.raises(CatalogError, match=why):
        catalog.point(name, base)
    assert catalog.aliases() == before


def test_a_broken_list_of_aliases_is_named(tmp_path: Path) -> None:
    (tmp_path / "aliases.json").write_text("[]")
    with pytest.raises(CatalogError, match="can't be read"):
        Catalog(tmp_path).find("gpt-4o")


def test_the_table_holds_together() -> None:
    assert all(name == alias.name for name, alias in ALIASES.items())
    assert {alias.base for alias in ALIASES.values()} <= set(WHEELS)
    assert not set(ALIASES) & set(WHEELS)
    assert all(len(wheel.sha256) == 64 and "==" in wheel.package for wheel in WHEELS.values())


# --- bringing models -----------------------------------------------------------------------------------------


def test_pull_knows_its_table_and_leaves_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="not in the table"):
        pull.pull(Catalog(tmp_path), "nothing", silent)
    base = put(tmp_path, DEFAULT_BASE)
    assert pull.pull(Catalog(tmp_path), DEFAULT_BASE, silent) == base


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """The tiny model in a folder of the test's own, less some files."""

    def make(*without: str) -> Path:
        folder = tmp_path / "my-model"
        shutil.copytree(tiny_model, folder)
        for name in without:
            (folder / name).unlink()
        return folder

    return make


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


def test_add_a_folder(copy: Callable[..., Path], tmp_path: Path) -> None:
    source, catalog, said = copy(), Catalog(tmp_path / "models"), []
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    made = pull.add(catalog, str(source), name=None, price=2.5, progress=lambda *what: said.append(what))
    assert catalog.find("my-model").base == made
    assert (made.name, made.folder, made.source, made.price) == ("my-model", str(source), str(source), 2.5)
    assert (made.formats, made.context, made.hidden_size) == (("chat", "completion"), 512, 64)
    # Embeddings 259×64 (tied); two layers of attention 64·(64+32+32+64), MLP 3·64·128 and two norms; a last norm.
    assert made.parameters == 259 * 64 + 2 * (64 * 192 + 3 * 64 * 128 + 128) + 64
    assert len(made.fingerprint) == 64
    assert said[-1] == ("done", 1.0)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == files  # used where it is, as it is


def test_remove_forgets_the_model_and_keeps_its_weights(copy: Callable[..., Path], tmp_path: Path) -> None:
    source, catalog = copy(), Catalog(tmp_path / "models")
    put(catalog.root, "org/name", folder=str(source))
    put(catalog.root, "other")
    pull.remove(catalog, "org/name")
    assert [found.name for found in catalog.bases()] == ["other"]
    assert (source / "model.safetensors").exists()


@pytest.fixture
def _no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is found without loading the model, which takes seconds."""
    monkeypatch.setattr(pull, "_child", lambda *_: '{"hidden_size": 64, "parameters": 1}')


@pytest.mark.usefixtures("_no_child")
def test_add_without_a_chat_template_takes_completions(copy: Callable[..., Path], tmp_path: Path) -> None:
    source = copy("chat_template.jinja")
    made = pull.add(Catalog(tmp_path / "models"), str(source), name="plain", price=0.0, progress=silent)
    assert made.formats == ("completion",)


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def nan_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def missing_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def own_code(folder: Path) -> None:
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n", "utf-8")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", "utf-8")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (no_config, "holds no config.json"),
        (own_code, "brings its own code (auto_map), which pegbox never runs"),
        (pickled, "no .safetensors weights"),
        (damage_weights, "the model can't be used"),
        (nan_weights, "not finite; the weights are damaged"),
        (broken_config, "the model can't be used"),
        pytest.param(missing_weights, "up_proj"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_add_refuses_what_cannot_be_trained(
    copy: Callable[..., Path], tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    source = copy()
    harm(source)
    catalog = Catalog(tmp_path / "models")
    with pytest.raises(CatalogError) as error:
        pull.add(catalog, str(source), name=None, price=0.0, progress=silent)
    assert reason in str(error.value)
    assert catalog.bases() == []
    assert not (source / "ran").exists()


@pytest.mark.usefixtures("_no_child")
def test_add_refuses_a_model_that_cannot_stop(copy: Callable[..., Path], tmp_path: Path) -> None:
    source = copy("chat_template.jinja", "generation_config.json")
    edit(source / "tokenizer_config.json", eos_token=None)
    edit(source / "config.json", eos_token_id=None)
    with pytest.raises(CatalogError, match="no end-of-text token"):
        pull.add(Catalog(tmp_path / "models"), str(source), name=None, price=0.0, progress=silent)


def test_add_refuses_a_colon_in_the_name(copy: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="can't be a model's name"):
        pull.add(Catalog(tmp_path / "models"), str(copy()), name="a:b", price=0.0, progress=silent)


@pytest.mark.parametrize("name", ["../x", ".x", "a\\b", "x" * 201, "hub", "incoming", "gpt-4o"])
@pytest.mark.usefixtures("_no_child")
def test_add_refuses_a_name_that_cannot_be_a_models(copy: Callable[..., Path], tmp_path: Path, name: str) -> None:
    catalog = Catalog(tmp_path / "models")
    with pytest.raises(CatalogError):
        pull.add(catalog, str(copy()), name=name, price=0.0, progress=silent)
    assert catalog.bases() == []


@pytest.mark.parametrize("name", ["nothing", "gpt-4o", "../x", ""])
def test_remove_of_what_is_no_model_here(tmp_path: Path, name: str) -> None:
    put(tmp_path / "models", DEFAULT_BASE)
    with pytest.raises(CatalogError, match="no base model"):
        pull.remove(Catalog(tmp_path / "models"), name)
    assert len(Catalog(tmp_path / "models").bases()) == 1
