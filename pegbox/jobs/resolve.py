"""Every "auto" becomes a number, with the reason for it."""

from pegbox.data.epochs import epochs_for
from pegbox.data.survey import Survey
from pegbox.jobs import submit
from pegbox.jobs.bases import Base
from pegbox.jobs.records import Tuning
from pegbox.settings import Settings
from pegbox.train.recipe import (
    BETA,
    Recipe,
    auto_beta,
    auto_multiplier,
    auto_warmup,
    batch_size_for,
    learning_rate_for,
)
from pegbox.train.sampler import steps_per_epoch


def resolve(tuning: Tuning, base: Base, training: Survey, held: int, settings: Settings, wait: int | None) -> Recipe:
    """`held` of the rows are held out; `wait` is the patience of an early stop, in epochs."""
    n = training.used - held
    method, asked = tuning.request.tunes_by, tuning.request.asked()
    reasons: dict[str, str] = {}

    def choose(name: str, wish: object, auto: tuple[float, str]) -> float:
        if isinstance(wish, (int, float)):
            reasons[name] = "asked for"
            return wish
        reasons[name] = auto[1]
        return auto[0]

    epochs = int(choose("n_epochs", asked.n_epochs, epochs_for(method, training.used)))
    batch = int(choose("batch_size", asked.batch_size, batch_size_for(method, n, epochs)))
    multiplier = choose("learning_rate_multiplier", asked.learning_rate_multiplier, auto_multiplier())
    learns = submit.weights(tuning.request)
    rate, reasons["learning_rate"] = learning_rate_for(method, base.model.hidden_size, learns)
    beta = choose("beta", asked.beta, auto_beta()) if method == "dpo" else BETA
    return Recipe(
        job_id=tuning.id,
        base=base.model.name,
        base_folder=str(base.target.folder),
        base_fingerprint=base.model.fingerprint,
        method=method,
        beta=beta,
        base_key=base.key,
        weights=learns,
        format="chat" if method == "dpo" else min(training.formats),
        adapter_folder=str(base.adapter_folder) if base.adapter_folder else None,
        seed=tuning.seed,
        n_epochs=epochs,
        batch_size=batch,
        learning_rate=rate * multiplier,
        learning_rate_multiplier=multiplier,
        warmup_steps=auto_warmup(steps_per_epoch(n, batch) * epochs),
        max_tokens=base.target.limit,
        patience=wait,
        threads=settings.cpu_threads,
        dtype=settings.dtype,
        reasons=reasons,
    )
