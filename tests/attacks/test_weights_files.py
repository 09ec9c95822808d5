"""Rows 1, 2 and 10 of the attack table: weights that are programs, configurations that are programs, weight files whose
headers lie."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from pegbox.catalog import pull
from pegbox.catalog.config import MAX_TEXT, check_adapter
from pegbox.catalog.models import Catalog
from pegbox.data.quality import token_vectors
from pegbox.data.weights import MAX_HEADER, WeightsError, read_header
from pegbox.engines.base import AdapterRef, Generation
from pegbox.engines.torch import TorchEngine
from pegbox.errors import CatalogError, EngineError

Header = dict[str, Any]


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.sign),)


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    """Is there when a stranger's code has run."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def refused(folder: Path, tmp_path: Path) -> str:
    """Why `pegbox models add` does not take it."""
    catalog = Catalog(tmp_path / "models")
    with pytest.raises(CatalogError) as error:
        pull.add(catalog, str(folder), name="m", price=0.0, progress=lambda *_: None)
    assert catalog.bases() == []
    assert len(str(error.value)) < 700
    return str(error.value)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


# --- row 1: pickles ------------------------------------------------------------------------------------------

PICKLES = ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt"]


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_by_any_name_is_not_weights(folder: Path, tmp_path: Path, sign: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(sign), folder / name)
    assert "no .safetensors weights; convert them (pickled .bin files are never opened)" in refused(folder, tmp_path)
    assert not sign.exists()


@pytest.mark.parametrize("how", ["pickle", "zip"])
def test_a_pickle_named_safetensors(folder: Path, tmp_path: Path, sign: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(pickle.dumps(Bomb(sign))) if how == "pickle" else torch.save(Bomb(sign), weights)
    said = refused(folder, tmp_path)
    assert "model.safetensors can't be used as weights: its header would be" in said
    assert "is it a pickle?" in said
    assert not sign.exists()


def test_a_pickle_beside_weights_that_are_not_the_models(folder: Path, tmp_path: Path) -> None:
    """transformers falls back to the .bin where it finds no safetensors of the right name, even when we did."""
    state = {name: p.clone() for name, p in AutoModelForCausalLM.from_pretrained(folder).state_dict().items()}
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    torch.save(state, folder / "pytorch_model.bin")  # harmless, and loads: so the refusal is ours
    assert "the model can't be used: transformers can't load it" in refused(folder, tmp_path)


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/passwd", "pytorch_model.bin", "gone.safetensors", 7]
)
def test_an_index_that_leads_elsewhere(folder: Path, tmp_path: Path, name: object) -> None:
    (folder / "pytorch_model.bin").touch()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"model.norm.weight": name}}), "utf-8"
    )
    assert "no safetensors file of that folder" in refused(folder, tmp_path)
    assert token_vectors.find(folder) is None


# --- row 2: code from the model's folder ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torch", "json", "transformers", "pegbox", "sitecustomize"])
def test_a_module_in_the_folder_is_not_imported(
    folder: Path, tmp_path: Path, sign: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cd MODEL; pegbox models add .` must run nothing of what lies there."""
    (folder / "model.safetensors").unlink()  # it ends soon
    (folder / f"{name}.py").write_text(f"import os; os.mkdir({str(sign)!r})\n", "utf-8")
    monkeypatch.chdir(folder)
    assert "no .safetensors weights" in refused(Path(), tmp_path)
    assert not sign.exists()


CODE = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
CONFIGS: list[tuple[dict[str, object], str]] = [
    ({"auto_map": CODE}, "brings its own code (auto_map)"),
    ({"text_config": {"auto_map": CODE}}, "brings its own code (auto_map)"),
    ({"a": [{"b": {"auto_map": CODE}}]}, "brings its own code (auto_map)"),
    ({"custom_generate": "someone/code"}, "brings its own code (custom_generate)"),
    ({"_attn_implementation": "someone/kernel:flash"}, "none of eager, sdpa"),
    ({"attn_implementation": "paged|someone/kernel"}, "none of eager, sdpa"),
    ({"_attn_implementation_internal": "/tmp/kernel"}, "none of eager, sdpa"),
    ({"_attn_implementation": {"": "someone/kernel"}}, "none of eager, sdpa"),
    ({"text_config": {"_attn_implementation": "../kernel"}}, "none of eager, sdpa"),
    ({"experts_implementation": "someone/kernel"}, "none of eager, sdpa"),
    ({"tokenizer_class": "evil.Tokenizer"}, "no plain name of a class"),
    ({"model_class": "someone/code--evil.Model"}, "no plain name of a class"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers in config.json is 1,000,000,000"),
    ({"num_local_experts": 10**6}, "num_local_experts in config.json is 1,000,000"),
    ({"model_type": "x" * 1_000_000}, f"a text of 1,000,000 characters, more than {MAX_TEXT:,}"),
    ({"architectures": ["x" * 1_000_000]}, "a text of 1,000,000 characters"),
    ({"anything": ["x" * 1_000] * 5_000}, "config.json is 5,0"),
    ({"model_type": "no-such-model"}, "transformers can't load it"),
]


@pytest.mark.parametrize(("change", "reason"), CONFIGS, ids=lambda value: str(value)[:40])
def test_a_configuration_that_is_a_program(
    folder: Path, tmp_path: Path, sign: Path, change: dict[str, object], reason: str
) -> None:
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(sign)!r})\n", "utf-8")
    edit(folder / "config.json", **change)
    assert reason in refused(folder, tmp_path)
    assert not sign.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "[]", "", "{"])
def test_a_configuration_that_is_no_configuration(folder: Path, tmp_path: Path, text: str) -> None:
    (folder / "config.json").write_text(text, "utf-8")
    assert "config.json" in refused(folder, tmp_path)


def test_the_engine_looks_again(folder: Path) -> None:
    """The folder is used where it is, so it may have changed since it was added."""
    edit(folder / "config.json", _attn_implementation="someone/kernel")
    with pytest.raises(ValueError, match="none of eager, sdpa"):
        TorchEngine(folder, threads=1, loaded_adapters=1)


# --- row 10: headers that lie --------------------------------------------------------------------------------

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}


def safetensors(header: Header | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def is_whole(header: Header, size: int) -> bool:
    """By the format's own words: every byte of the data belongs to exactly one tensor, as long as its shape says."""
    at = 0
    for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
        begin, end = entry["data_offsets"]
        numbers = 1
        for n in entry["shape"]:
            numbers *= n
        if begin != at or end < begin or end - begin != numbers * SIZES.get(entry["dtype"], -1):
            return False
        at = end
    return at == size


@st.composite
def headers(draw: st.DrawFn) -> tuple[Header, int]:
    """A whole header and the size of its data; then, mostly, one or two of its numbers changed."""
    header, at = {}, 0
    for i in range(draw(st.integers(1, 4))):
        dtype, shape = draw(st.sampled_from(sorted(SIZES))), draw(st.lists(st.integers(1, 5), max_size=3))
        size = SIZES[dtype]
        for n in shape:
            size *= n
        header[f"layer.{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    numbers = st.one_of(st.integers(0, 64), st.sampled_from([2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1]))
    for _ in range(draw(st.integers(0, 2))):
        entry = header[draw(st.sampled_from(sorted(header)))]
        match draw(st.sampled_from(["begin", "end", "shape", "dtype", "size", "twin"])):
            case "begin":
                entry["data_offsets"][0] = draw(numbers)
            case "end":
                entry["data_offsets"][1] = draw(numbers)
            case "shape":
                entry["shape"] = [*entry["shape"], draw(numbers)]
            case "dtype":
                entry["dtype"] = draw(st.sampled_from([*SIZES, "F99", ""]))
            case "size":
                at = max(0, at + draw(st.integers(-8, 8)))
            case "twin":
                entry["data_offsets"] = list(header["layer.0"]["data_offsets"])
    return header, at


@given(headers())
def test_whatever_a_header_says(tmp_path_factory: pytest.TempPathFactory, made: tuple[Header, int]) -> None:
    header, size = made
    file = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    file.write_bytes(safetensors(header, bytes(size)))
    if not is_whole(header, size):
        with pytest.raises(WeightsError, match=r"^model\.safetensors can't be used as weights: "):
            read_header(file)
        return
    found = read_header(file)
    assert {name: (t.dtype, list(t.shape)) for name, t in found.items()} == {
        name: (entry["dtype"], entry["shape"]) for name, entry in header.items()
    }
    assert all(file.stat().st_size >= t.end >= t.begin for t in found.values())


@given(st.binary(max_size=64), st.integers(0, 64))
def test_whatever_bytes_a_file_holds(tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + content)
    with pytest.raises(WeightsError):
        read_header(file)


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIES = {
    "twice": (f'{{"a": {json.dumps(ONE)}, "a": {json.dumps(ONE)}}}'.encode(), bytes(8), 'the key "a" appears twice'),
    "overlap": ({"a": ONE, "b": ONE}, bytes(8), "invalid offset"),
    "gap": ({"a": {**ONE, "data_offsets": [8, 16]}}, bytes(16), "invalid offset"),
    "beyond": ({"a": ONE}, bytes(4), "not fully covered"),
    "more": ({"a": ONE}, bytes(800), "not fully covered"),
    "backwards": ({"a": {**ONE, "data_offsets": [8, 0]}}, bytes(8), "invalid offset"),
    "negative": ({"a": {**ONE, "data_offsets": [-8, 8]}}, bytes(8), "integer `-8`"),
    "product": ({"a": {**ONE, "shape": [2**40, 2**40]}}, bytes(8), "overflow"),
    "kind": ({"a": {**ONE, "dtype": "PICKLE"}}, bytes(8), "PICKLE"),
    "deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"", "nested more than 64 levels"),
    "list": (b"[1]", b"", ""),
    "text": (b'{"a": "\xff"}', b"", "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_named(folder: Path, tmp_path: Path, lie: str) -> None:
    header, data, reason = LIES[lie]
    (folder / "model.safetensors").write_bytes(safetensors(header, data))
    said = refused(folder, tmp_path)
    assert "model.safetensors can't be used as weights: " in said
    assert reason in said
    assert said.endswith("save the model anew with safetensors")


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 2**40, 2**63, 2**64 - 1])
def test_a_header_without_end_is_not_read(folder: Path, tmp_path: Path, length: int) -> None:
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    assert f"its header would be {length:,} bytes long" in refused(folder, tmp_path)


# --- the same of adapters ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
    return folder


def lie(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(safetensors({"a": ONE, "b": ONE}, bytes(8)))


def unpickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save(Bomb(folder.parent / "ran"), folder / "adapter_model.bin")


def config(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "adapter_config.json", **values)


ADAPTERS: list[tuple[Callable[[Path], None], str]] = [
    (lie, "adapter_model.safetensors can't be used as weights: "),
    (unpickle, "No such file"),
    (config(auto_mapping={"base_model_class": "Evil"}), "its own code (auto_mapping)"),
    (config(megatron_config={"a": 1}, megatron_core="evil"), "its own code (megatron_config)"),
    (config(peft_type="XLORA"), "peft_type"),
    (config(r=10**9), "r in adapter_config.json"),
    (config(target_modules="(a+)+$"), "target_modules"),
    (config(target_modules=["(a+)+$"]), "target_modules"),
    (config(rank_pattern={"(a+)+$": 8}), "rank_pattern"),
    (config(base_model_name_or_path="x" * 1_000_000), "a text of 1,000,000 characters"),
]


@pytest.mark.parametrize(("harm", "reason"), ADAPTERS)
def test_an_adapter_that_is_none(
    tiny_model: Path, made: Path, tmp_path: Path, sign: Path, harm: Callable[[Path], None], reason: str
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "adapter"))
    check_adapter(folder)
    harm(folder)
    engine = TorchEngine(tiny_model, threads=1, loaded_adapters=1)
    asked = Generation(prompt=[1, 2], max_tokens=1, stop_ids=frozenset(), adapter=AdapterRef("ft:a", str(folder)))
    with pytest.raises(EngineError, match="the adapter ft:a can't be loaded") as error:
        list(engine.stream(asked))
    assert reason in str(error.value)
    assert not sign.exists()
    assert list(engine.stream(Generation(prompt=[1, 2], max_tokens=1, stop_ids=frozenset())))  # the base goes on
