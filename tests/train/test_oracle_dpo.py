"""The plain loop that our preference tuning is held to: its tokens, its loss by hand, and that it learns."""

import math
from pathlib import Path

import oracle_dpo
import pytest
import torch
from conftest import write_jsonl
from oracle_dpo import Answer, Pair

from pegbox.data.formats import parse_row
from pegbox.data.render import examples
from pegbox.data.template import load_template
from pegbox.train.recipe import Recipe
from pegbox.train.rundir import RunDir


def rows(n: int) -> list[object]:
    return [
        {
            "input": {
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Say {i}?"}]
            },
            "preferred_output": [{"role": "assistant", "content": f"It is {i}."}],
            "non_preferred_output": [{"role": "assistant", "content": "Who knows? " * (i % 3 + 1)}],
        }
        for i in range(n)
    ]


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.create()
    write_jsonl(made.train_data, rows(8))
    Recipe(
        job_id="ftjob-test", base="tiny", base_folder=str(tiny_model), base_fingerprint="", method="dpo", seed=3,
        n_epochs=4, batch_size=4, learning_rate=5e-3, learning_rate_multiplier=1.0, warmup_steps=1, max_tokens=512,
        threads=1,
    ).save(made.recipe_path)  # fmt: skip
    return made


def test_tokens_are_those_of_our_own_rendering(run: RunDir, tiny_model: Path) -> None:
    template = load_template(tiny_model)
    for row, pair in zip(rows(8), oracle_dpo.pairs(run, run.recipe()), strict=True):
        ours = examples(parse_row(row, "dpo"), template)
        for mine, theirs in zip(ours, (pair.chosen, pair.rejected), strict=True):
            assert mine.tokens == theirs.ids
            assert mine.trained.index(True) == theirs.start
            assert all(mine.trained[theirs.start :])


def test_first_loss_is_log_two_and_it_falls(run: RunDir) -> None:
    """A new adapter changes nothing, so both rewards are 0."""
    losses = oracle_dpo.naive_dpo_losses(run, run.recipe())
    assert len(losses) == 8
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < 0.8 * losses[0]


class Fixed(torch.nn.Module):
    """A model that predicts the same at every position: token i with probability p[i], and q[i] with its adapter off."""

    def __init__(self, p: list[float], q: list[float]) -> None:
        super().__init__()
        self.p, self.q, self.on = torch.tensor(p).log(), torch.tensor(q).log(), True

    def disable_adapter(self) -> "Fixed":
        return self

    def __enter__(self) -> None:
        self.on = False

    def __exit__(self, *_: object) -> None:
        self.on = True

    def forward(self, input_ids: torch.Tensor) -> object:
        class Out:
            logits = (self.p if self.on else self.q).expand(1, input_ids.shape[1], -1)

        return Out


def test_loss_of_a_pair_by_hand() -> None:
    """Prompt 0; chosen 1 1, rejected 2. With the adapter p(1) = 1/2 and p(2) = 1/4, without 1/4 and 1/2. So the chosen
    reward is 0.1 (2 log 1/2 - 2 log 1/4) = 0.2 log 2, the rejected one 0.1 (log 1/4 - log 1/2) = -0.1 log 2."""
    model = Fixed([0.25, 0.5, 0.25], [0.25, 0.25, 0.5])
    pair = Pair(Answer([0, 1, 1], 1), Answer([0, 2], 1))
    chosen, rejected = oracle_dpo.rewards(model, pair, 0.1)  # type: ignore[arg-type]
    assert float(chosen) == pytest.approx(0.2 * math.log(2))
    assert float(rejected) == pytest.approx(-0.1 * math.log(2))
    loss = oracle_dpo.pair_loss(model, pair, 0.1)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(math.log(1 + 2**-0.3))


def test_gradients_are_those_of_small_moves(run: RunDir) -> None:
    """Along the gradient, the mean loss rises by the gradient's norm times the move."""
    recipe = run.recipe()
    model = oracle_dpo.fresh_model(recipe).double()
    adapter = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for p in adapter.values():
        torch.nn.init.normal_(p, std=0.05, generator=torch.Generator().manual_seed(p.numel()))
    step = oracle_dpo.pairs(run, recipe)[:3]
    gradients = oracle_dpo.naive_dpo_gradients(model, step, recipe.beta)
    assert gradients.keys() == adapter.keys()
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))

    def loss(move: float) -> float:
        with torch.no_grad():
            for name, p in adapter.items():
                p.add_(gradients[name], alpha=move / norm)
            found = sum(float(oracle_dpo.pair_loss(model, pair, recipe.beta)) for pair in step) / len(step)
            for name, p in adapter.items():
                p.sub_(gradients[name], alpha=move / norm)
        return found

    assert (loss(1e-3) - loss(-1e-3)) / 2e-3 == pytest.approx(norm, rel=1e-3)
