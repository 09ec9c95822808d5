"""The estimate: what is computed, and what past jobs teach."""

import math

import pytest

from pegbox.data.estimate import Load, Machine, Timing, estimate, load_timings, save_timing


def timing(seconds: float, work: float = 1_000, base: str = "b", parameters: int = 100) -> Timing:
    return Timing(base, parameters, 2, work, seconds, 5_000)


LOAD = Load(tokens_per_epoch=3_000, computed_per_epoch=900, epochs=2, steps=10, scored=600)


def test_work_is_training_and_a_third_of_scoring():
    assert LOAD.work == 900 * 2 + 600 / 3


def test_one_job_with_this_base_sets_the_rate():
    made = estimate(LOAD, Machine("b", 100, 2, (timing(50),)), micro_batch_tokens=2_048)
    assert made.jobs == 1
    assert made.seconds == pytest.approx(8 + LOAD.work * 0.05)
    assert made.peak_bytes == 5_000
    assert made.basis == "Learnt from one finished job with this base on this machine"


def test_the_interval_narrows_with_jobs_that_agree_and_widens_with_those_that_do_not():
    def width(*timings: Timing) -> float:
        made = estimate(LOAD, Machine("b", 100, 2, timings), micro_batch_tokens=2_048)
        return (made.seconds_high - 8) / (made.seconds_low - 8)

    one, many, odd = width(timing(50)), width(*[timing(50)] * 10), width(timing(20), timing(120))
    assert many < one < odd
    assert one == pytest.approx(math.exp(2 * 1.645 * 0.2 * math.sqrt(2)))


def test_another_base_teaches_by_its_size():
    made = estimate(LOAD, Machine("b", 300, 2, (timing(50, base="other"),)), micro_batch_tokens=2_048)
    assert made.seconds == pytest.approx(8 + LOAD.work * 0.05 * 3)
    assert "other bases" in made.basis


def test_jobs_with_other_threads_teach_nothing():
    made = estimate(LOAD, Machine("b", 100, 4, (timing(50),)), micro_batch_tokens=2_048)
    assert made.jobs == 0
    assert made.seconds_low < made.seconds < made.seconds_high


def test_timings_are_kept_and_broken_lines_passed_over(tmp_path):
    path = tmp_path / "timings.jsonl"
    assert load_timings(path) == ()
    save_timing(path, timing(1))
    with path.open("a") as out:
        out.write('{"base": 1}\nnot json\n')
    save_timing(path, timing(2))
    assert load_timings(path) == (timing(1), timing(2))
