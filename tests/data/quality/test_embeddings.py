import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SMOLLM2
from feeding import banking77, chat, corpus_of, gsm8k
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from pegbox.data.quality import embeddings, static_vectors, token_vectors
from pegbox.data.quality.base import Context
from pegbox.data.quality.duplicates import Duplicates
from pegbox.data.quality.forest import Table

MODEL = Path.home() / ".cache" / "pegbox" / "models" / SMOLLM2


def _model() -> Context:
    if not (MODEL / "model.safetensors").exists():
        pytest.skip("SmolLM2's folder is absent: `pegbox pull` it")
    return Context(base_folder=MODEL)


def _write(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """A safetensors file by the format's own description."""
    header, data = {}, b""
    for name, (kind, values) in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


VALUES = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 4.0], [256.0, -0.25, 8.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("F32", VALUES),
        ("F16", VALUES.astype(np.float16)),
        ("BF16", (VALUES.view(np.uint32) >> 16).astype(np.uint16)),  # these values lose nothing
    ],
)
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "transformer.wte.weight", "word_embeddings.weight"])
def test_token_vectors_are_read_from_any_kind_of_number(
    tmp_path: Path, kind: str, stored: np.ndarray, name: str
) -> None:
    _write(tmp_path / "model.safetensors", {"lm_head.bias": ("F32", np.ones(3, np.float32)), name: (kind, stored)})
    found = token_vectors.find(tmp_path)
    assert found is not None
    assert (len(found), found.dimensions) == (3, 3)
    assert np.array_equal(found.take(np.array([2, 0])), VALUES[[2, 0]])


def test_token_vectors_are_found_in_their_shard(tmp_path: Path) -> None:
    _write(tmp_path / "model-00001-of-00002.safetensors", {"model.norm.weight": ("F32", np.ones(3, np.float32))})
    _write(tmp_path / "model-00002-of-00002.safetensors", {"model.embed_tokens.weight": ("F32", VALUES)})
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors",
                            "model.embed_tokens.weight": "model-00002-of-00002.safetensors"}}  # fmt: skip
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = token_vectors.find(tmp_path)
    assert found is not None
    assert found.file.name == "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, struct.pack("<Q", 4) + b"nope", struct.pack("<Q", 2) + b"[]"])
def test_a_broken_file_gives_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert token_vectors.find(tmp_path) is None
    assert token_vectors.find(tmp_path / "nowhere") is None


def test_smollm2s_vectors_are_those_of_another_reader() -> None:
    safetensors = pytest.importorskip("safetensors")
    torch = pytest.importorskip("torch")
    _model()
    with safetensors.safe_open(MODEL / "model.safetensors", framework="pt") as file:
        told = file.get_slice("model.embed_tokens.weight")[100:103].to(torch.float32).numpy()
    found = token_vectors.find(MODEL)
    assert found is not None
    assert np.array_equal(found.take(np.array([100, 101, 102])), told)


def test_without_a_model_there_is_nothing_to_go_by() -> None:
    assert (
        embeddings.prompt_pairs(corpus_of([chat("Where is it?", "Here."), chat("Where might it be?", "Here.")])) is None
    )


def test_signs_tell_the_angle() -> None:
    draw = np.random.default_rng(0)
    planes = draw.standard_normal((64, embeddings._BITS))
    one = draw.standard_normal((200, 64))
    other = one + draw.standard_normal((200, 64)) * draw.uniform(0, 2, (200, 1))
    true = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    signs = [Table(embeddings._BITS // 8) for _ in range(2)]
    for table, rows in zip(signs, (one, other), strict=True):
        table.extend(np.packbits(rows @ planes > 0, axis=1))
    told = embeddings.cosines(signs[0].take(np.arange(200)), signs[1].take(np.arange(200)))
    assert np.abs(told - true).max() < 0.15
    assert abs((told - true).mean()) < 0.02


def test_a_weighted_mean_by_hand(tmp_path: Path) -> None:
    """Three words, one of them common: what sentence vectors are, from the formula."""
    vocabulary = {"[UNK]": 0, "the": 1, "cat": 2, "dog": 3, "sat": 4}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vectors = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    _write(tmp_path / "model.safetensors", {"model.embed_tokens.weight": ("F32", vectors)})
    texts = ["the cat", "the dog", "the the sat", "dog sat", "cat"]
    counts = np.array([0, 4, 2, 2, 2])
    weight = static_vectors._A / (static_vectors._A + counts / counts.sum())
    centred = vectors - vectors[1:].mean(axis=0)  # of the tokens that occur
    mean = np.array([
        sum(weight[vocabulary[w]] * centred[vocabulary[w]] for w in text.split()) / sum(weight[vocabulary[w]] for w in text.split())
        for text in texts
    ])  # fmt: skip
    mean -= mean.mean(axis=0)
    first = np.linalg.svd(mean)[2][0]
    mean -= np.outer(mean @ first, first)
    true = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    corpus = corpus_of([chat(text, "x") for text in texts], context=Context(base_folder=tmp_path))
    found = embeddings.of_prompts(corpus)
    assert found is not None
    told = found.take(np.arange(5))
    assert np.allclose(told @ told.T, true @ true.T, atol=5e-3)  # the axes may be turned


def test_paraphrases_of_banking77_share_their_intent() -> None:
    context = _model()
    rows = [chat(asked, said) for asked, said in banking77()]
    corpus = corpus_of(rows, context=context)
    found = embeddings.prompt_pairs(corpus)
    assert found is not None
    same = np.array(
        [rows[i]["messages"][1] == rows[j]["messages"][1] for i, j in zip(found.first, found.second, strict=True)]
    )
    print(f"{len(found)} pairs, {same.mean():.3f} of one intent")
    assert len(found) > 2_000
    assert same.mean() > 0.88


def test_gsm8ks_problems_all_differ() -> None:
    corpus = corpus_of([chat(asked, said) for asked, said in gsm8k()[:3_000]], context=_model())
    found = embeddings.prompt_pairs(corpus)
    assert found is not None
    assert len(found) <= 1


def test_q08_tells_what_q07_does_not() -> None:
    rows = [chat(asked, said) for asked, said in banking77()[:2_000]]
    context = _model()
    corpus = corpus_of(rows, context=context)
    found = {one.code: one for one in Duplicates(context).found(corpus)}
    assert found["Q08"].count > 20
    assert not set(found["Q08"].lines) & set(found["Q07"].lines)


def test_a_model2vec_model_is_used_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not installed here: a stand-in with its two calls."""
    named = []

    def from_pretrained(folder: str) -> SimpleNamespace:
        named.append(folder)
        return SimpleNamespace(encode=lambda texts: np.array([[len(text), 1.0, text.count("a")] for text in texts]))

    monkeypatch.setitem(
        sys.modules, "model2vec", SimpleNamespace(StaticModel=SimpleNamespace(from_pretrained=from_pretrained))
    )
    monkeypatch.setenv(static_vectors.FOLDER, "potion")
    found = embeddings.of_prompts(corpus_of([chat("aaa", "x"), chat("b", "x")]))
    assert named == ["potion"]
    assert found is not None
    assert np.allclose(np.linalg.norm(found.take(np.arange(2)), axis=1), 1, atol=1e-3)


def test_without_the_package_the_base_model_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(static_vectors.FOLDER, "potion")
    monkeypatch.setitem(sys.modules, "model2vec", None)
    assert static_vectors.packaged() is None
