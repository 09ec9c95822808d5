"""What a step learns from: the rows of the run's data as token examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pegbox.data.render import Example, examples, truncate
from pegbox.data.rows import read_rows
from pegbox.data.template import Template, load_template
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir

WIDTHS = {"supervised": 1, "dpo": 2}


@dataclass(frozen=True, slots=True)
class Sample:
    """What is learnt as one: an example; or, of a preference, the chosen and the rejected one."""

    row: int  # of the data file, from 0
    examples: tuple[Example, ...]
    reference: tuple[float, ...] = ()  # of a preference: how likely the reference finds each, log-probabilities

    @property
    def n_tokens(self) -> int:
        return sum(len(example.tokens) for example in self.examples)

    @property
    def n_trained(self) -> int:
        return sum(example.n_trained for example in self.examples)


def read_samples(run: RunDir, recipe: Recipe, *, valid: bool) -> list[Sample]:
    """The run's data, cut at the recipe's limit; a row may give several samples, or none if it is cut to nothing.

    The server has checked these rows; one that fails here means that it did not, so the run stops with ValueError.
    """
    path = run.valid_data if valid else run.train_data
    if not path.exists():
        return []
    return list(_samples(path, recipe, load_template(Path(recipe.base_folder))))


def _samples(path: Path, recipe: Recipe, template: Template) -> Iterator[Sample]:
    width = WIDTHS[recipe.method]
    with path.open("rb") as file:
        for at, row in enumerate(read_rows(file, recipe.method)):
            if row.record is None:
                raise ValueError(f"{path}: {row.problem}")
            cut = [truncate(example, recipe.max_tokens) for example in examples(row.record, template)]
            for start in range(0, len(cut), width):
                group = tuple(cut[start : start + width])
                if all(example.n_trained for example in group):
                    yield Sample(at, group)
