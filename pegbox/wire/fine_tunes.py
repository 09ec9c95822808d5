"""The fine-tune of /v1/fine-tunes, the API of `openai.FineTune`: what fine-tuning was before August 2023."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pegbox.wire.base import Request, Response
from pegbox.wire.files import File


class CreateFineTune(Request):
    """The body of `POST /v1/fine-tunes`. Null is as good as absent."""

    training_file: str
    validation_file: str | None = None
    model: str | None = None
    n_epochs: Annotated[int, Field(ge=1, le=50)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None = None
    prompt_loss_weight: float | None = None
    compute_classification_metrics: bool | None = None
    classification_n_classes: int | None = None
    classification_positive_class: str | None = None
    classification_betas: list[float] | None = None
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None


class Hyperparams(Response):
    """Null until they are chosen."""

    n_epochs: int | None
    batch_size: int | None
    learning_rate_multiplier: float | None
    prompt_loss_weight: float = 0.0  # only completions are learnt here


class FineTuneEvent(Response):
    object: Literal["fine-tune-event"] = "fine-tune-event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str


class FineTune(Response):
    id: str
    object: Literal["fine-tune"] = "fine-tune"
    created_at: int
    updated_at: int
    model: str
    organization_id: str
    status: Literal["pending", "running", "succeeded", "failed", "cancelled"]
    fine_tuned_model: str | None
    hyperparams: Hyperparams
    training_files: list[File]
    validation_files: list[File]
    result_files: list[File]


class FineTuneWithEvents(FineTune):
    """As create, retrieve and cancel show it; lists leave the events out."""

    events: list[FineTuneEvent]


class FineTunes(Response):
    """All of them: this list has no pages."""

    object: Literal["list"] = "list"
    data: list[FineTune]


class FineTuneEvents(Response):
    object: Literal["list"] = "list"
    data: list[FineTuneEvent]
