"""Which examples are computed together, and what they begin with in common. The trainer lays its batches out by this,
and the estimate counts by it."""

from collections.abc import Iterable, Iterator, Sequence
from os.path import commonprefix

from pegbox.data.render import Example

WORTH_SHARING = 8  # tokens


def groups(examples: Iterable[Example], budget: int) -> Iterator[list[Example]]:
    """Examples in groups of at most `budget` padded tokens (or one example, if that is longer).

    Sorted by length, so little is padding. What follows an example's last trained token is dropped, for nothing
    learns from it; so are examples with nothing to predict.
    """
    group: list[Example] = []
    for example in sorted(map(_useful, examples), key=lambda e: -len(e.tokens)):
        if not example.n_trained:
            continue
        if group and len(group[0].tokens) * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def shared(group: Sequence[Example]) -> int:
    """How many tokens all begin with, up to the first position that predicts; 0 where it is not worth while."""
    if len(group) < 2:
        return 0
    same = len(commonprefix([example.tokens for example in group]))  # noqa: RUF071 - of tokens, not of paths
    # Position i predicts token i + 1.
    predicts = min((max(e.trained.index(True, 1) - 1, 0) for e in group if True in e.trained[1:]), default=same)
    length = min(same, predicts)
    return length if length >= WORTH_SHARING else 0


def computed(group: Sequence[Example]) -> int:
    """Tokens that a forward of the group computes: what is shared once, the rest of each row padded to the longest."""
    longest = max(len(example.tokens) for example in group)
    once = shared(group)
    return once + len(group) * (longest - once)


def _useful(example: Example) -> Example:
    last = max((i for i, trained in enumerate(example.trained) if trained), default=-1)
    if last == len(example.tokens) - 1:
        return example
    return Example(example.tokens[: last + 1], example.trained[: last + 1])
