"""The base model with a LoRA adapter on every linear layer, or by itself: stock transformers, stock PEFT."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from pegbox.catalog.config import check_adapter, check_config
from pegbox.train import attention
from pegbox.train.recipe import Recipe

_PLAIN = "_pegbox_plain"  # where a model's config keeps the name of its own attention meanwhile


def load_base(folder: str | Path, dtype: str = "float32", device: str = "cpu") -> torch.nn.Module:
    """The frozen base in one dtype, in evaluation mode (there is no dropout to leave out in training)."""
    check_config(Path(folder) / "config.json")
    kind = getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, trust_remote_code=False, use_safetensors=True)
    model.requires_grad_(requires_grad=False)
    model.config.use_cache = False
    return model.eval().to(device)


def attach_adapter(base: torch.nn.Module, recipe: Recipe) -> PeftModel:
    """A fresh adapter, drawn from the recipe's seed, or the one that the recipe trains on from; in fp32.

    A fresh adapter changes nothing yet: its B matrices are zero.
    """
    torch.manual_seed(recipe.seed)
    if recipe.adapter_folder:
        check_adapter(Path(recipe.adapter_folder))
        model = PeftModel.from_pretrained(base, recipe.adapter_folder, is_trainable=True, autocast_adapter_dtype=True)
    else:
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
        )
        model = get_peft_model(base, config, autocast_adapter_dtype=True)
    return model


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """Without what PEFT wraps around it; a model that learns all its weights is bare."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def use_trie(model: torch.nn.Module, *, on: bool) -> None:
    """Let the model's layers attend over tries, or by themselves, as transformers chose for them."""
    config = bare(model).config
    if on and not on_trie(model):
        setattr(config, _PLAIN, config._attn_implementation)  # noqa: SLF001 - its only way
        config._attn_implementation = attention.NAME  # noqa: SLF001
    elif on_trie(model) and not on:
        config._attn_implementation = getattr(config, _PLAIN)  # noqa: SLF001


def on_trie(model: torch.nn.Module) -> bool:
    return bool(bare(model).config._attn_implementation == attention.NAME)  # noqa: SLF001


def body(model: torch.nn.Module) -> torch.nn.Module:
    """All but the head: tokens to hidden states."""
    base = bare(model)
    inner: torch.nn.Module = getattr(base, base.base_model_prefix)
    return inner


def head(model: torch.nn.Module) -> torch.nn.Linear:
    """Hidden states to logits. Raises UnfitError where more than a matrix stands between the two."""
    base = bare(model)
    found = base.get_output_embeddings()
    if not isinstance(found, torch.nn.Linear):
        raise attention.UnfitError("its head is no plain matrix")
    return found


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The tensors that learn (an adapter's, or all) by name, in a fixed order; tied ones once."""
    named = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return dict(sorted(named, key=lambda item: item[0]))
