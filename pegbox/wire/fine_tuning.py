"""The fine-tuning job, its events and checkpoints, and the body that creates it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from pegbox.wire.base import JSONObject, Request, Response, is_absent

EARLY_STOP_KEY = "pegbox.early_stop"  # metadata of a job: epochs without a better validation loss before it ends
WEIGHTS_KEY = "pegbox.weights"  # metadata of a job: "adapter", or "all" to learn the base's own weights
Auto = Literal["auto"]


def _azure_auto(value: object) -> object:
    """Azure's scripts write -1 where everybody else writes "auto"."""
    return "auto" if value == -1 and not isinstance(value, bool) else value


class Hyperparameters(Request):
    """As a client sends them: numbers, "auto" or null (which means "auto")."""

    n_epochs: Annotated[Auto | Annotated[int, Field(ge=1, le=50)] | None, BeforeValidator(_azure_auto)] = None
    batch_size: Annotated[Auto | Annotated[int, Field(ge=1, le=256)] | None, BeforeValidator(_azure_auto)] = None
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] | None = None


class PreferenceHyperparameters(Hyperparameters):
    """Those of preference tuning (DPO)."""

    beta: Annotated[Auto | Annotated[float, Field(gt=0, le=2)] | None, BeforeValidator(_azure_auto)] = None


class SupervisedMethod(Request):
    hyperparameters: Hyperparameters | None = None


class PreferenceMethod(Request):
    hyperparameters: PreferenceHyperparameters | None = None


class Method(Request):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: PreferenceMethod | None = None
    reinforcement: JSONObject | None = None


class WandbSettings(Request):
    project: str
    name: str | None = None
    entity: str | None = None
    tags: list[str] | None = None


class Integration(Request):
    type: Literal["wandb"]
    wandb: WandbSettings


MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class CreateJob(Request):
    """The body of `POST /v1/fine_tuning/jobs`. Old clients send `null` for what they don't set."""

    model: str
    training_file: str
    validation_file: str | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None

    @property
    def tunes_by(self) -> str:
        """The method's name; "supervised" where none is named."""
        return self.method.type if self.method else "supervised"

    def asked(self) -> PreferenceHyperparameters:
        """The hyperparameters, wherever the client put them: each that `method` names wins over the older field.
        A supervised job has no beta."""
        older = self.hyperparameters
        method = self.method
        named = (method.dpo if method.type == "dpo" else method.supervised) if method else None
        newer = named.hyperparameters if named else None
        said = [one.model_dump(exclude_none=True) for one in (older, newer) if one is not None]
        return PreferenceHyperparameters(**{name: value for one in said for name, value in one.items()})


class ResolvedHyperparameters(Response):
    """As a job shows them: "auto" until the worker has chosen, numbers from then on. Never null."""

    n_epochs: Auto | int = "auto"
    batch_size: Auto | int = "auto"
    learning_rate_multiplier: Auto | float = "auto"
    beta: Annotated[Auto | float | None, Field(exclude_if=is_absent)] = None  # of a dpo job, and only there


class ResolvedBlock(Response):
    hyperparameters: ResolvedHyperparameters


class ResolvedMethod(Response):
    """The method's name and its own block; the blocks of other methods are left out."""

    type: Literal["supervised", "dpo"]
    supervised: Annotated[ResolvedBlock | None, Field(exclude_if=is_absent)] = None
    dpo: Annotated[ResolvedBlock | None, Field(exclude_if=is_absent)] = None


class JobError(Response):
    code: str
    message: str
    param: str | None


class Job(Response):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    model: str
    organization_id: str
    status: str
    training_file: str
    validation_file: str | None
    hyperparameters: ResolvedHyperparameters
    method: ResolvedMethod
    fine_tuned_model: str | None
    finished_at: int | None
    trained_tokens: int | None
    estimated_finish: int | None
    error: JobError | None
    result_files: list[str]
    seed: int
    integrations: list[Integration]
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    queue_position: Annotated[int | None, Field(exclude_if=is_absent)] = None  # from 1, while queued; not in lists


class JobEvent(Response):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: JSONObject | None


Reward = Annotated[float | None, Field(exclude_if=is_absent)]  # a supervised job has none


class CheckpointMetrics(Response):
    step: int
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    train_reward_margin: Reward = None
    train_reward_accuracy: Reward = None
    train_chosen_reward: Reward = None
    train_rejected_reward: Reward = None
    valid_reward_margin: Reward = None
    valid_reward_accuracy: Reward = None
    full_valid_reward_margin: Reward = None
    full_valid_reward_accuracy: Reward = None


class Checkpoint(Response):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: CheckpointMetrics
