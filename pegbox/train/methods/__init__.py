"""What a sample costs, by method. A new method is a new file here, an entry in METHODS and its loss in `losses.py`."""

from collections.abc import Callable

from pegbox.train.methods.base import Method
from pegbox.train.methods.dpo import Dpo
from pegbox.train.methods.supervised import Supervised
from pegbox.train.recipe import Recipe

METHODS: dict[str, Callable[[Recipe], Method]] = {
    "supervised": lambda _: Supervised(),
    "dpo": lambda recipe: Dpo(recipe.beta),
}
