"""Open generations, advanced a token at a time: those of one adapter take their next token in one forward.

One token alone reads all of the model's weights for little arithmetic; eight tokens read them once. A prompt that
begins as a former one did goes on from what was computed then. Both change an answer's numbers in their last bits
only; a single generation with a new prompt is computed exactly as transformers would, and one with the same prompt as
before, while that is remembered, from the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from pegbox.engines.base import FAILURES, AdapterRef, Delta, Generation
from pegbox.engines.guide import Guide, Guides
from pegbox.errors import EngineError

_REMEMBERED_BYTES = 256 * 2**20  # of keys and values of former prompts
_WORTH_IT = 16  # tokens in common; fewer are as soon computed again

Owner = tuple[str, str | None]  # whose memory, and the adapter
Layers = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values (B, G, L, D) of each layer, G groups of heads
NextToken = Callable[["Open", torch.Tensor], Delta]


@dataclass(eq=False, slots=True)
class Open:
    """A generation in the making."""

    generation: Generation
    random: torch.Generator
    guide: Guide | None = None
    produced: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens whose keys and values are known: all but the newest."""
        return len(self.generation.prompt) + len(self.produced) - 1


@dataclass(frozen=True, slots=True)
class Known:
    """What a prompt left in memory."""

    owner: Owner
    tokens: list[int]
    layers: Layers
    logits: torch.Tensor  # (V,) after its last token

    @property
    def bytes(self) -> int:
        sizes: list[int] = [x.nbytes for pair in self.layers for x in pair]
        return sum(sizes, int(self.logits.nbytes))


class Prompts:
    """The newest prompts: to answer one again from the same numbers, and to begin those alike with."""

    def __init__(self) -> None:
        self._known: list[Known] = []  # oldest use first

    def longest(self, owner: Owner, prompt: Sequence[int]) -> tuple[int, Known | None]:
        """How much of a prompt is known: all of it where it was one, else all but its last token at most.

        Of an owner's own prompts: how long an answer takes, and its last bits, would tell of a stranger's.
        """
        best, found = 0, None
        for one in self._known:
            same = _in_common(one.tokens, prompt) if one.owner == owner else 0
            if same > best or (found and same == best == len(prompt) == len(one.tokens)):
                best, found = same, one
        if found is None or (found.tokens != prompt and min(best, len(prompt) - 1) < _WORTH_IT):
            return 0, None
        self._known.remove(found)
        self._known.append(found)
        return best if found.tokens == prompt else min(best, len(prompt) - 1), found

    def remember(self, known: Known) -> None:
        self._known.append(known)
        while sum(one.bytes for one in self._known) > _REMEMBERED_BYTES:
            self._known.pop(0)

    def clear(self) -> None:
        self._known = []

    def forget(self, adapter: str) -> None:
        self._known = [one for one in self._known if one.owner[1] != adapter]


class Together:
    """The open generations of one engine."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Prompts,
        guides: Guides,
        use: Callable[[AdapterRef | None], None],
        draw: NextToken,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._guides = guides
        self._use = use  # puts an adapter in force
        self._draw = draw  # from logits (V,) to a token
        self._fresh: dict[str, Open] = {}  # not begun
        self._cohorts: dict[str | None, Cohort] = {}  # by adapter

    def __bool__(self) -> bool:
        return bool(self._fresh or self._cohorts)

    def add(self, key: str, generation: Generation) -> None:
        """Raises EngineError for an empty prompt."""
        if not generation.prompt:
            raise EngineError("the prompt has no tokens")
        self._fresh[key] = Open(generation, _generator(generation.sampling.seed))

    def drop(self, key: str) -> None:
        """Nobody waits for it any more."""
        self._fresh.pop(key, None)
        for cohort in self._cohorts.values():
            cohort.drop(key)
        self._tidy()

    @torch.inference_mode()
    def step(self) -> Iterator[tuple[str, Delta | Exception]]:
        """One step of each open generation, in turn. One that has finished or failed is not open any more."""
        for cohort in list(self._cohorts.values()):
            yield from self._advance(cohort)
        fresh, self._fresh = self._fresh, {}
        for key, opened in fresh.items():
            told: Delta | Exception
            try:
                told = self._begin(key, opened)
            except FAILURES as error:
                told = error
            yield key, told
        self._tidy()

    def _advance(self, cohort: "Cohort") -> Iterator[tuple[str, Delta | Exception]]:
        for key, opened in list(cohort.rows.items()):
            if len(opened.produced) >= opened.generation.max_tokens:
                cohort.drop(key)
                yield key, Delta(None, None, "length")
        if not cohort.rows:
            return
        try:
            self._use(next(iter(cohort.rows.values())).generation.adapter)
            logits = cohort.forward()  # (B, V)
        except FAILURES as error:
            for key in list(cohort.rows):
                cohort.drop(key)
                yield key, error
            return
        for row, (key, opened) in zip(logits, list(cohort.rows.items()), strict=True):
            told: Delta | Exception
            try:
                told = self._draw(opened, row)
            except FAILURES as error:
                told = error
            if isinstance(told, Exception) or told.finish:
                cohort.drop(key)
            yield key, told

    def _begin(self, key: str, opened: Open) -> Delta:
        """Compute the prompt, and the first token."""
        wanted = opened.generation
        if wanted.max_tokens < 1:
            return Delta(None, None, "length")
        if wanted.grammar is not None:
            opened.guide = self._guides.make(wanted.grammar, wanted.stop_ids)
        self._use(wanted.adapter)
        name = wanted.adapter.name if wanted.adapter else None
        cache, logits = self._prefill((wanted.memory, name), wanted.prompt)
        plain = _is_plain(cache)
        delta = self._draw(opened, logits)
        if not delta.finish:
            cohort = self._cohorts.get(name) if plain else None
            if cohort is None:
                self._cohorts[name if plain else key] = Cohort(self._model, key, opened, cache)
            else:
                cohort.admit(key, opened, _layers(cache))
        return delta

    def _prefill(self, owner: Owner, prompt: list[int]) -> tuple[DynamicCache, torch.Tensor]:
        """Keys and values of a prompt, and the logits (V,) after it."""
        n, known = self._prompts.longest(owner, prompt)
        layers = [(k[:, :, :n], v[:, :, :n]) for k, v in known.layers] if known else None
        cache = DynamicCache(layers, config=self._model.config)
        if known and n == len(prompt):
            return cache, known.logits
        out = self._model(input_ids=torch.tensor([prompt[n:]]), past_key_values=cache, logits_to_keep=1)
        logits = out.logits[0, -1].float()  # (V,)
        if _is_plain(cache):
            self._prompts.remember(Known(owner, prompt, _layers(cache), logits))
        return cache, logits

    def _tidy(self) -> None:
        self._cohorts = {name: cohort for name, cohort in self._cohorts.items() if cohort.rows}


class Cohort:
    """Generations that share a cache, a row each. They end at the same column; a shorter one has padding before it,
    which it never sees."""

    def __init__(self, model: PreTrainedModel, key: str, opened: Open, cache: DynamicCache) -> None:
        self._model = model
        self._cache = cache
        self._order = [key]  # of the cache's rows; one that was dropped stays until the next forward
        self.rows = {key: opened}

    def drop(self, key: str) -> None:
        self.rows.pop(key, None)

    def admit(self, key: str, opened: Open, layers: Layers) -> None:
        self._let_go()
        mine = _layers(self._cache)
        longest = max(mine[0][0].shape[2], layers[0][0].shape[2])
        both = [
            (_below(k, new_k, longest), _below(v, new_v, longest))
            for (k, v), (new_k, new_v) in zip(mine, layers, strict=True)
        ]
        self._cache = DynamicCache(both, config=self._model.config)
        self._order.append(key)
        self.rows[key] = opened

    def forward(self) -> torch.Tensor:
        """Logits (B, V) after the newest token of each row, in the order of `rows`."""
        self._let_go()
        opened = [self.rows[key] for key in self._order]
        newest = torch.tensor([[one.produced[-1]] for one in opened])  # (B, 1)
        if len(opened) == 1:
            out = self._model(input_ids=newest, past_key_values=self._cache, logits_to_keep=1)
        else:
            lengths = torch.tensor([one.length for one in opened])  # (B,)
            columns = torch.arange(int(lengths.max()) + 1)  # (L + 1,)
            seen = columns >= lengths.max() - lengths[:, None]  # (B, L + 1): not the padding
            out = self._model(
                input_ids=newest, attention_mask=seen.long(), position_ids=lengths[:, None],
                past_key_values=self._cache, logits_to_keep=1,
            )  # fmt: skip
        logits: torch.Tensor = out.logits[:, -1].float()  # (B, V)
        return logits

    def _let_go(self) -> None:
        """Take rows that were dropped out of the cache, and columns that nobody fills any more."""
        if list(self.rows) == self._order or not self.rows:
            return
        kept = torch.tensor([i for i, key in enumerate(self._order) if key in self.rows])
        self._order = list(self.rows)
        longest = max(one.length for one in self.rows.values())
        left = [(k[kept, :, -longest:], v[kept, :, -longest:]) for k, v in _layers(self._cache)]
        self._cache = DynamicCache(left, config=self._model.config)


def _is_plain(cache: DynamicCache) -> bool:
    """Caches of other kinds (windows, states) can't be padded, cut or shared."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _layers(cache: DynamicCache) -> Layers:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _below(x: torch.Tensor, y: torch.Tensor, length: int) -> torch.Tensor:
    """The rows of both, (B, G, L, D) and (C, G, M, D), with zeros before what is shorter: (B + C, G, length, D)."""
    return torch.cat([torch.nn.functional.pad(each, (0, 0, length - each.shape[2], 0)) for each in (x, y)])


def _in_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens that both begin with."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _generator(seed: int | None) -> torch.Generator:
    random = torch.Generator()
    if seed is None:
        random.seed()
    else:
        random.manual_seed(seed % 2**63)
    return random
