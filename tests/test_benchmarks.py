"""The plumbing of the trainer's benchmarks, at tiny size: what they feed, count and compare. No figure is asserted that
depends on the machine."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import rows

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import auto_sweep  # noqa: E402
import ledger  # noqa: E402
import resume_exact  # noqa: E402
import sides  # noqa: E402
import tasks  # noqa: E402
import train_cost  # noqa: E402
import versus  # noqa: E402
from overlay import draw  # noqa: E402
from sides import Job, Plan, Side  # noqa: E402
from tasks import Task  # noqa: E402

from pegbox.data.template import load_template  # noqa: E402
from pegbox.train.recipe import Recipe  # noqa: E402

PAIR = {
    "input": {"messages": [{"role": "user", "content": "Hi?"}]},
    "preferred_output": [{"role": "assistant", "content": "Hello."}],
    "non_preferred_output": [{"role": "assistant", "content": "No."}],
}


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Job:
    task = Task("rows", "supervised", tuple(rows(12)), ())  # type: ignore[arg-type]
    return sides.lay_out(tmp_path / "job", task, tiny_model, batch=4, threads=1)


# --- tasks -----------------------------------------------------------------------------------------------------


def test_dialogues_become_pairs() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: a\n\nHuman: b"
    row = tasks.preference(f"{start}\n\nAssistant: Yes.", f"{start}\n\nAssistant: No.")
    assert row == {
        "input": {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "a\n\nb"},
            ]
        },
        "preferred_output": [{"role": "assistant", "content": "Yes."}],
        "non_preferred_output": [{"role": "assistant", "content": "No."}],
    }
    assert tasks.preference(f"{start}\n\nAssistant: Yes.", f"{start}\n\nAssistant: Yes.") is None
    assert tasks.preference(f"{start}\n\nAssistant: Yes.", "\n\nHuman: x\n\nAssistant: No.") is None


def test_held_out_rows_are_never_trained(tiny_model: Path) -> None:
    task = tasks.load("style", load_template(tiny_model), train=59, held_out=20)
    assert (len(task.train), len(task.held_out)) == (59, 20)
    assert not {json.dumps(row) for row in task.train} & {json.dumps(row) for row in task.held_out}
    with pytest.raises(ValueError, match="fewer than 60"):
        tasks.load("style", load_template(tiny_model), train=60, held_out=20)
    assert not tasks.load("style", load_template(tiny_model), train=0, held_out=0, longest=10).train


# --- one job for both sides -------------------------------------------------------------------------------------


def test_trl_is_given_our_ids_in_our_order(job: Job) -> None:
    ask = sides.ask_trl(job, steps=2)
    order = [*job.batch(1), *job.batch(2)]
    assert sorted(order + job.batch(3)) == list(range(12))
    assert [row["input_ids"] for row in ask["rows"]] == [job.rows[i][0].tokens for i in order]  # type: ignore[attr-defined]
    assert [row["completion_mask"] for row in ask["rows"]] == [[int(t) for t in job.rows[i][0].trained] for i in order]  # type: ignore[attr-defined]
    assert ask["rates"] == pytest.approx([5e-4, 5e-4 * 2 / 3])  # one step of warm-up, then down over three
    assert len(ask["texts"]) == len(ask["expected"]) == 12  # type: ignore[arg-type]


def test_a_pair_is_a_prompt_and_two_answers(tiny_model: Path, tmp_path: Path) -> None:
    task = Task("pair", "dpo", (PAIR,), ())
    job = sides.lay_out(tmp_path / "pair", task, tiny_model, batch=1, threads=1)
    (row,) = sides.ask_trl(job, steps=1)["rows"]  # type: ignore[misc]
    decode = job.template.tokenizer.decode
    assert decode(row["prompt_ids"], skip_special_tokens=False).endswith("<|im_start|>assistant\n")
    assert decode(row["chosen_ids"], skip_special_tokens=False) == "Hello.<|im_end|>"
    assert decode(row["rejected_ids"], skip_special_tokens=False) == "No.<|im_end|>"
    # The byte-level tokenizer: a token a byte, a mark is one. Both sides share all of the prompt; the tokens that end
    # them predict nothing.
    prompt = len(row["prompt_ids"])
    assert sides.plan(job, range(1, 2)) == Plan(unshared=2 * prompt + 7 + 4, computed=prompt + 6 + 3, predicted=11)


def test_uneven_steps_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    task = Task("rows", "supervised", tuple(rows(10)), ())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a multiple of 4"):
        sides.lay_out(tmp_path / "job", task, tiny_model, batch=4, threads=1)


def test_our_side_tells_every_step(job: Job) -> None:
    side = sides.run_pegbox(job)
    assert len(side.losses) == len(side.ends) == 3
    assert side.ends == sorted(side.ends)
    assert side.seconds() == side.ends[2] - side.ends[0]
    assert side.peak_bytes > 2**20
    assert side.losses == [m.train_loss for m in job.run.curve()]


def test_trl_learns_the_same_where_it_is_installed(job: Job, tmp_path: Path) -> None:
    if not (sides.TRL_VENV / "done").exists():
        pytest.skip("TRL's environment is made by benchmarks/train_vs_trl.py")
    theirs = sides.run_trl(sides.trl_python(None), job)
    ours = sides.run_pegbox(sides.fresh(job, tmp_path / "ours"))
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-4)


# --- figures ----------------------------------------------------------------------------------------------------


def test_operations_by_hand(tiny_model: Path) -> None:
    """Two layers 64 wide: q and o 64 x 64, k and v 32 x 64, gate, up and down 128 x 64. V is 259."""
    shapes = ledger.shapes_of(tiny_model)
    assert shapes.blocks == 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)
    assert shapes.adapter(16) == 2 * 16 * (2 * 128 + 2 * 96 + 3 * 192)
    assert shapes.head == (259, 64)
    blocks = 4 * shapes.blocks + 6 * shapes.adapter(16)
    assert ledger.operations(shapes, 16, computed=10, predicted=3) == 10 * blocks + 3 * 4 * 259 * 64
    assert ledger.operations_of_trl(shapes, 16, positions=10) == 10 * (blocks + 6 * 259 * 64)
    assert ledger.ceiling(shapes, "fp32", 8, 1) > 0


def side(seconds: float, peak_mb: int) -> Side:
    return Side([1.0, 0.5, 0.25], [9.0, 9.0 + seconds / 2, 9.0 + seconds], 5.0, 20.0, peak_mb * 2**20, {})


def test_figures_by_hand() -> None:
    work = Plan(unshared=1_000, computed=250, predicted=50)
    runs = [side(2.0, 100), side(1.0, 300), side(4.0, 200)]
    ours = versus.figures(runs, work, 8, 10**9, 250, "fp32", {"fp32": 2e9})
    assert ours.examples_per_second == 4  # 8 rows in the median 2 s
    assert ours.tokens_per_second_as_if_unshared == 500
    assert ours.gflops == 0.5
    assert ours.share_of_ceiling == 0.25
    assert ours.peak_mb == 300
    theirs = replace(ours, examples_per_second=1.0, tokens_computed=1_000, peak_mb=200.0)
    said = versus.Versus(
        "t", ours, theirs, "fp32", [4.0], 0.0, 1e-6, {"fp32": 2.0}, {}, 8, 4, 1, "tiny", 1_000, 50, {}, "here"
    )
    assert said.ratio == 4
    assert versus.losing(said) == ["peak memory in MB: 300, TRL 200"]
    assert "of the ratio, 4.00 is tokens not computed (shared or padding), 1.00 the rest" in versus.lines(said)
    assert versus.losing(replace(said, theirs=ours)) == ["in none of these figures"]


def test_curves_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "deep" / "losses.png", "two", {"a": [1.0, 0.5], "b": [1.0, 0.5]})
    assert (tmp_path / "deep" / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_line_through_points_by_hand() -> None:
    straight = train_cost.fit([1, 2, 3], [3, 5, 7])
    assert (straight.slope, straight.start, straight.r_squared) == pytest.approx((2, 1, 1))
    # y = 1, 3, 2 about their mean 2: slope 1/2, what is left 1/4 + 1 + 1/4, the spread 2
    assert train_cost.fit([1, 2, 3], [1, 3, 2]).r_squared == pytest.approx(1 - 1.5 / 2)


def test_cost_of_a_few_short_rows(tiny_model: Path, tmp_path: Path) -> None:
    assert len({json.dumps(row) for row in train_cost.short_rows(2_000)}) == 2_000
    point = train_cost.cost(32, tiny_model, tmp_path / "run")
    assert point.rows == 32
    assert 0 < point.steps < point.seconds


# --- kills ------------------------------------------------------------------------------------------------------


def test_endings_are_compared_to_the_bit(job: Job) -> None:
    sides.run_pegbox(job)
    metrics = {m.step: {"step": m.step, "train_loss": m.train_loss} for m in job.run.curve()}
    one = resume_exact.Ended((b"adapter",), metrics, 10)  # type: ignore[arg-type]
    assert resume_exact.difference(one, one) is None
    assert resume_exact.difference(replace(one, adapter=(b"other",)), one) == "other bytes in the adapter"
    assert resume_exact.difference(replace(one, trained_tokens=9), one) == "9 trained tokens and not 10"
    moved = metrics | {2: {"step": 2, "train_loss": metrics[2]["train_loss"] + 1e-15}}
    assert str(resume_exact.difference(replace(one, metrics=moved), one)).startswith("step 2")  # type: ignore[arg-type]


def test_a_few_kills_of_a_real_run(tiny_model: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "resume_exact.py"), "--kills", "2", "--model", str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["kills"], said["identical"], said["unequal"]) == (2, 2, [])


# --- sweep ------------------------------------------------------------------------------------------------------


def test_twelve_points_around_auto() -> None:
    auto = Recipe(
        job_id="200", base="b", base_folder="f", base_fingerprint="", seed=0, n_epochs=3, batch_size=8,
        learning_rate=2e-3, learning_rate_multiplier=2.0, warmup_steps=3, max_tokens=512, threads=1,
    )  # fmt: skip
    found = dict(auto_sweep.points(auto))
    assert found.pop("auto") == auto
    assert len(found) == 12
    one = found["x3 batch 16 epochs 1"]
    assert (one.learning_rate, one.batch_size, one.n_epochs) == (pytest.approx(3e-3), 16, 1)
    assert one.warmup_steps == 1  # 5 % of 13 steps


def test_how_auto_stands() -> None:
    point = auto_sweep.Point(1.0, 4, 1)
    auto = auto_sweep.Judged("m", "t", 10, 5, "auto", point, 1.01, 0.8, 1.0)
    others = [replace(auto, name=str(loss), loss=loss) for loss in (1.0, 1.2, 1.4)]
    told = auto_sweep.verdict([auto, *others])
    assert (told["median"], told["best"]) == (1.2, 1.0)
    assert (told["beats_median"], told["within_2_percent_of_best"]) == (True, True)
    assert auto_sweep.verdict([replace(auto, loss=1.03), *others])["within_2_percent_of_best"] is False
    assert "median" not in auto_sweep.verdict(others)
