"""The server's settings: environment variables `PEGBOX_*`, read once at start."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """All that an operator can set. An unknown value is an error at start, not a surprise later."""

    model_config = SettingsConfigDict(env_prefix="PEGBOX_", frozen=True)

    data_dir: Path = Field(Path("~/.pegbox"), description="database, files, run directories, adapters")
    models_dir: Path = Field(Path("~/.cache/pegbox/models"), description="base models, shared by servers")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    api_key: SecretStr | None = Field(None, description="the first API key; made and printed once if unset")
    organization: str = Field("pegbox", pattern=r"^[a-z0-9-]+$", description="ORG in the names of tuned models")

    max_file_bytes: int = Field(512 * MIB, gt=0, description="largest file that may be uploaded")
    max_body_bytes: int = Field(4 * MIB, gt=0, description="largest JSON body")
    min_examples: int = Field(10, ge=1, description="fewest examples that a training file may hold")
    check_seconds: float = Field(60.0, ge=0, description="time for the quality checks of a job's files")
    holdout: bool = Field(True, description="carve a validation set where none is given (200 rows or more)")
    concurrent_jobs: int = Field(1, ge=1, description="jobs that train at the same time")
    keep_checkpoints: int = Field(3, ge=1, description="newest checkpoints kept a job; the best is kept too")
    threads: int = Field(0, ge=0, description="CPU threads a child process uses; 0 = all that it may use")
    dtype: str = Field(
        "auto", pattern=r"^(auto|float32|bfloat16)$", description="what training computes in; auto: what is faster here"
    )
    loaded_adapters: int = Field(8, ge=1, description="adapters kept in the engine's memory")
    loaded_models: int = Field(2, ge=1, description="whole tuned models in memory at once, beside their bases")
    concurrent_generations: int = Field(64, ge=1, description="chat answers in the making at once; more get 429")

    smtp_host: str | None = Field(None, description="mail server; no mail is sent where unset")
    smtp_port: int = Field(587, ge=1, le=65535, description="its port")
    smtp_security: str = Field("starttls", pattern=r"^(none|starttls|tls)$", description="none, starttls or tls")
    smtp_user: str | None = Field(None, description="login, where the server wants one")
    smtp_password: SecretStr | None = Field(None, description="its password")
    mail_from: str = Field("pegbox@localhost", description="sender of the mail")
    mail_to: str | None = Field(None, description="address that is told when a job ends")

    @property
    def cpu_threads(self) -> int:
        """Threads for a child process: as set, or all that this process may use (a container's share, too)."""
        return self.threads or _usable_threads()

    @property
    def root(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().resolve()

    @property
    def models(self) -> Path:
        """The folder of base models, absolute."""
        return self.models_dir.expanduser().resolve()


def _usable_threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": microseconds of CPU in each period; or "max …"
    try:
        quota, period = limit.read_text("ascii").split()[:2]
        return max(1, min(usable, int(quota) // int(period)))
    except (OSError, ValueError):
        return usable
