"""Checks of the engine: the model that answers is the one that was trained."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pegbox.engines.base import AdapterRef, Engine
from pegbox.errors import EngineError
from pegbox.receipt.case import Case
from pegbox.receipt.record import Check, Figures

NAMES = ("engine_agrees", "adapter_applied")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two computations of one log-probability (nats) may lie apart."""

    largest: float
    mean: float


# By the type that the trainer computed in; the engine computes in float32. docs/receipt.md has what was measured.
TOLERANCES = {"float32": Tolerance(0.01, 0.001), "bfloat16": Tolerance(2.0, 0.25), "float16": Tolerance(0.5, 0.05)}
NOTHING = 1e-6  # nats: an adapter that moves no log-probability by more does nothing


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of all sampled tokens, N each, in the same order."""

    tuned: list[float]  # the engine's, with the adapter
    base: list[float]  # the engine's, without
    trainer_tuned: list[float]
    trainer_base: list[float]


def engine_checks(case: Case) -> list[Check]:
    """Both checks. Where the engine can't be started or dies, warnings that say so."""
    if not case.rows:
        return _not_run("no row was short enough to be scored")
    try:
        with case.engine() as engine:
            found = _with(engine, case)
        if case.base_engine and not isinstance(found, list):  # a whole model's memory is free again
            with case.base_engine() as engine:
                found = _with(engine, case, found)
    except EngineError as error:
        return _not_run(f"the engine did not start: {error}")
    if isinstance(found, list):
        return found
    return [engine_agrees(found, case.evidence.dtype), adapter_applied(found, case)]


def _with(engine: Engine, case: Case, tuned: Scores | None = None) -> Scores | list[Check]:
    """What an engine says; or, where it fails, the checks. `tuned` is what the model said, if it has an engine of its
    own and this is the base's."""
    try:
        if tuned:
            return replace(tuned, base=list(_of_parts(engine, case, None)))
        scores = _score(engine, case)
        if case.adapter:
            engine.unload(case.adapter.name)
    except EngineError as error:
        if not getattr(engine, "alive", True):
            return _not_run(f"the engine ended: {error}")
        text = f"The engine can't answer with the {_what(case)}: {error}."
        return [Check(name, "failed", text, {}, "Report it with the engine's log.") for name in NAMES]
    return scores


def _what(case: Case) -> str:
    return "adapter" if case.adapter else "learnt weights"


def _not_run(why: str) -> list[Check]:
    remedy = "Ask the model once and compare it with its base (`pegbox compare`) before you rely on it."
    return [Check(name, "warned", f"Not run: {why}.", {}, remedy, ran=False) for name in NAMES]


def engine_agrees(scores: Scores, dtype: str) -> Check:
    """The engine gives the trainer's log-probabilities, tuned and base."""
    name = "engine_agrees"
    bar = TOLERANCES.get(dtype, TOLERANCES["bfloat16"])
    tuned, base = _apart(scores.tuned, scores.trainer_tuned), _apart(scores.base, scores.trainer_base)
    figures: Figures = {
        "tokens": len(scores.tuned), "dtype": dtype, "largest": max(tuned), "mean": sum(tuned) / len(tuned),
        "base_largest": max(base), "base_mean": sum(base) / len(base),
        "largest_allowed": bar.largest, "mean_allowed": bar.mean,
    }  # fmt: skip
    for who, found in (("tuned", tuned), ("base", base)):
        if not (max(found) <= bar.largest and sum(found) / len(found) <= bar.mean):
            text = (
                f"The {who} model that answers is not the one that was trained: log-probabilities of {len(found)} "
                f"tokens differ by {sum(found) / len(found):.3g} in the mean, {max(found):.3g} at most "
                f"({bar.mean:g} and {bar.largest:g} are allowed for {dtype})."
            )
            remedy = "See that the base's weights were not changed since the server started; restart it, train again."
            return Check(name, "failed", text, figures, remedy)
    text = (
        f"Engine and trainer give {len(tuned)} tokens the same log-probabilities, to {max(tuned):.2g} (tuned) and "
        f"{max(base):.2g} (base)."
    )
    return Check(name, "passed", text, figures)


def adapter_applied(scores: Scores, case: Case) -> Check:
    """The engine answers otherwise with the adapter than without, and its bytes are those that were trained. Of a whole
    model: otherwise than its base."""
    name = "adapter_applied"
    moved, wanted = _apart(scores.tuned, scores.base), _apart(scores.trainer_tuned, scores.trainer_base)
    what = _what(case)
    attested = case.evidence.hashes.get("adapter_model.safetensors" if case.adapter else "model.safetensors")
    same = attested == case.adapter_sha256
    figures = {"tokens": len(moved), "largest": max(moved), "trainer_largest": max(wanted), "same_bytes": same}
    if not max(moved) > NOTHING:
        text = f"The engine answers with the {what} exactly as the base does."
        remedy = _FAULT if max(wanted) > NOTHING else "Nothing was learnt: use a larger learning_rate_multiplier."
        return Check(name, "failed", text, figures, remedy)
    if not same:
        text = "The adapter in the server's store is not the one that the trainer wrote."
        if not case.adapter:
            text = "The weights in the server's store are not those that the trainer wrote."
        return Check(name, "failed", text, figures, _FAULT)
    text = f"The adapter moves log-probabilities by up to {max(moved):.2g} nats."
    if not case.adapter:
        text = f"The learnt weights, a whole model, move log-probabilities by up to {max(moved):.2g} nats."
    return Check(name, "passed", text, figures)


_FAULT = "Look at the data directory's disk, and train again."


def _score(engine: Engine, case: Case) -> Scores:
    parts = [part for row in case.rows for part in row.sample.parts if part.trained]
    tuned = list(_of_parts(engine, case, case.adapter))
    base = list(_of_parts(engine, case, None)) if case.base_engine is None else []  # else another's to say
    return Scores(tuned, base, [v for part in parts for v in part.tuned], [v for part in parts for v in part.base])


def _of_parts(engine: Engine, case: Case, adapter: AdapterRef | None) -> Iterator[float]:
    for row in case.rows:
        for part in row.sample.parts:
            if part.trained:
                scores = engine.score(part.tokens[: part.trained[-1] + 1], adapter)
                for at in part.trained:
                    score = scores[at]
                    assert score is not None, "only the first token has none, and it is never learnt"
                    yield score.logprob


def _apart(ours: list[float], theirs: list[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
