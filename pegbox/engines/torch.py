"""The reference engine: stock transformers and PEFT, fp32 like the trainer, so what was learnt is what answers."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pegbox.catalog.config import check_adapter, check_config
from pegbox.engines.base import AdapterRef, Delta, Generation, Sampling, TokenScore
from pegbox.engines.guide import Guides
from pegbox.engines.together import Open, Prompts, Together
from pegbox.errors import EngineError


class TorchEngine:
    """Many generations may be open at once, in one `together()` or in streams of their own."""

    def __init__(self, folder: Path, *, threads: int, loaded_adapters: int) -> None:
        torch.set_num_threads(threads)
        check_config(folder / "config.json")
        self._base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        ).eval()
        self._peft: PeftModel | None = None  # wraps the base from the first adapter on
        self._prompts = Prompts()
        self._guides = Guides(folder, self._base.config.get_text_config().vocab_size)
        self._loaded: OrderedDict[str, str] = OrderedDict()  # adapter → PEFT's name for it, oldest use first
        self._capacity = loaded_adapters
        self._serial = 0
        self._active: str | None = None  # PEFT's name of the adapter in force; None: the base

    def together(self) -> Together:
        """For many generations at a time."""
        return Together(self._base, self._prompts, self._guides, self._use, _draw)

    def stream(self, generation: Generation) -> Iterator[Delta]:
        alone = self.together()
        alone.add("", generation)
        while alone:
            for _, told in alone.step():
                if isinstance(told, Exception):
                    raise told
                yield told

    @torch.inference_mode()
    def score(self, tokens: Sequence[int], adapter: AdapterRef | None, top: int = 0) -> list[TokenScore | None]:
        self._use(adapter)
        logits = self._base(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].float()  # (L, V)
        return [None, *(_score(logits[i], token, top) for i, token in enumerate(tokens[1:]))]

    @torch.inference_mode()  # PEFT marks tensors that were made under it
    def unload(self, adapter: str) -> None:
        self._prompts.forget(adapter)
        name = self._loaded.pop(adapter, None)
        if name is not None and self._peft is not None:
            self._peft.delete_adapter(name)
            self._active = ""  # PEFT may have switched by itself: switch anew at the next use

    def forget_prompts(self) -> None:
        """Give back what former prompts left in memory."""
        self._prompts.clear()

    def close(self) -> None:
        self._peft = None
        self._base = None

    def _use(self, adapter: AdapterRef | None) -> None:
        """Put an adapter in force, or none; load it if need be."""
        wanted = self._load(adapter) if adapter else None
        if wanted == self._active or (wanted is None and self._peft is None):
            return
        assert self._peft is not None, "an adapter that is loaded has wrapped the base"
        if wanted is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(wanted)
        self._active = wanted

    def _load(self, adapter: AdapterRef) -> str:
        if adapter.name in self._loaded:
            self._loaded.move_to_end(adapter.name)
            return self._loaded[adapter.name]
        self._serial += 1
        name = f"adapter{self._serial}"  # PEFT uses the name as a module's, which allows no dots
        try:
            check_adapter(Path(adapter.folder))
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(
                    self._base, adapter.folder, adapter_name=name, autocast_adapter_dtype=False
                )
            else:
                self._peft.load_adapter(adapter.folder, adapter_name=name, autocast_adapter_dtype=False)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise EngineError(f"the adapter {adapter.name} can't be loaded: {error}") from error
        self._active = ""  # loading switches adapters behind our back
        self._loaded[adapter.name] = name
        while len(self._loaded) > self._capacity:
            self.unload(next(iter(self._loaded)))
        return name


def _draw(opened: Open, logits: torch.Tensor) -> Delta:
    """The next token out of logits (V,), or the end."""
    wanted = opened.generation
    allowed = opened.guide.mask(logits) if opened.guide else logits
    token = _sample(allowed, wanted.sampling, opened.produced, opened.random)
    if token in wanted.stop_ids:
        return Delta(None, None, "stop")
    opened.produced.append(token)
    if opened.guide:
        opened.guide.follow(token)
    return Delta(token, _score(logits, token, wanted.top_logprobs))


def _sample(logits: torch.Tensor, how: Sampling, produced: list[int], random: torch.Generator) -> int:
    """The next token. Penalties and bias as the API defines them: subtracted from the logits."""
    if how.logit_bias or ((how.frequency_penalty or how.presence_penalty) and produced):
        logits = logits.clone()  # (V,)
        for token, bias in how.logit_bias.items():
            with suppress(IndexError):  # a bias on a token that this vocabulary lacks
                logits[token] += bias
        if produced:
            ids, counts = torch.unique(torch.tensor(produced), return_counts=True)
            logits[ids] -= how.frequency_penalty * counts + how.presence_penalty
    if how.temperature == 0 or how.top_p == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / how.temperature, dim=-1)  # (V,)
    if how.top_p < 1:
        likeliest, order = probabilities.sort(descending=True)
        likeliest[likeliest.cumsum(0) - likeliest >= how.top_p] = 0  # keeps the one that crosses the line
        return int(order[torch.multinomial(likeliest, 1, generator=random)])
    return int(torch.multinomial(probabilities, 1, generator=random))


def _score(logits: torch.Tensor, token: int, top: int | None) -> TokenScore | None:
    if top is None:
        return None
    logprobs = torch.log_softmax(logits, dim=-1)  # (V,)
    values, ids = logprobs.topk(top) if top else (torch.empty(0), torch.empty(0, dtype=torch.int64))
    pairs = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenScore(float(logprobs[token]), pairs)
