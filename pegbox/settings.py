"""The server's settings: environment variables `PEGBOX_*`, read once at start."""

import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
Network = IPv4Network | IPv6Network


class Settings(BaseSettings):
    """All that an operator can set. An unknown value is an error at start, not a surprise later."""

    model_config = SettingsConfigDict(env_prefix="PEGBOX_", frozen=True)

    data_dir: Path = Field(Path("~/.pegbox"), description="database, files, run directories, adapters")
    models_dir: Path = Field(Path("~/.cache/pegbox/models"), description="base models, shared by servers")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL, as postgresql://USER:PASSWORD@HOST/NAME; SQLite in the data directory if unset"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    api_key: SecretStr | None = Field(None, description="the first API key; made and printed once if unset")
    organization: str = Field("pegbox", pattern=r"^[a-z0-9-]+$", description="ORG in the names of tuned models")
    tuned_names: Literal["base", "asked"] = Field(
        "base", description="BASE in their names: the base model's own name, or `asked`, the one a job asked for"
    )

    allowed_hosts: str | None = Field(
        None, description="names of this server that browsers may use, with commas between"
    )
    allowed_origins: str | None = Field(
        None, description="sites whose pages may use this server, as https://ui.example, with commas between"
    )
    requests_per_minute: int = Field(0, ge=0, description="requests that each API key may send; 0 = no limit")
    wrong_keys_per_minute: int = Field(120, ge=0, description="wrong keys an address may send; 0 = no limit")

    max_file_bytes: int = Field(512 * MIB, gt=0, description="largest file that may be uploaded")
    max_body_bytes: int = Field(4 * MIB, gt=0, description="largest JSON body")
    min_examples: int = Field(10, ge=1, description="fewest examples that a training file may hold")
    check_seconds: float = Field(60.0, ge=0, description="time for the quality checks of a job's files")
    holdout: bool = Field(True, description="carve a validation set where none is given (200 rows or more)")
    concurrent_jobs: int = Field(1, ge=1, description="jobs that train at the same time")
    max_stored_bytes: int = Field(0, ge=0, description="most that the data directory may hold; 0 = what the disk has")
    keep_free_bytes: int = Field(64 * MIB, ge=0, description="room left on the disk that no upload or job may take")
    project_jobs: int = Field(0, ge=0, description="jobs of one project that train at once; 0 = no limit of its own")
    work_jobs: bool = Field(True, description="the server works on jobs; false where only `pegbox worker` does")
    job_attempts: int = Field(
        5, ge=1, description="how often in a row work on a job may break off, without getting further, before it fails"
    )
    job_memory_bytes: int = Field(0, ge=0, description="address space of a training process; 0 = no limit")
    job_file_bytes: int = Field(64 * 1024 * MIB, ge=0, description="largest file it may write; 0 = no limit")
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

    webhook_networks: str | None = Field(
        None, description="private networks that webhooks may reach, as `10.1.0.0/16,fd00::/8`; else the internet only"
    )
    webhook_http: bool = Field(False, description="webhooks to those networks may be plain http")
    keep_deliveries_days: int = Field(
        30, ge=0, description="days for which it is kept who was told of a job's end; 0 = for ever"
    )

    log: str = Field("text", pattern=r"^(text|json)$", description="form of the log on standard error: text or json")
    log_level: str = Field(
        "info", pattern=r"^(debug|info|warning|error)$", description="least level that is logged; debug may show data"
    )
    metrics_open: bool = Field(False, description="`GET /metrics` without a key")
    min_free_bytes: int = Field(256 * MIB, ge=0, description="`GET /readyz` says no when the disk has less room")
    shutdown_seconds: float = Field(10.0, ge=0, description="time for answers in the making when the server is ended")

    @field_validator("webhook_networks")
    @classmethod
    def _networks_can_be_read(cls, text: str | None) -> str | None:
        _networks(text)
        return text

    @property
    def webhook_reach(self) -> tuple[Network, ...]:
        """What webhooks may reach beside the public internet."""
        return _networks(self.webhook_networks)

    @property
    def cpu_threads(self) -> int:
        """Threads for a child process: as set, or all that this process may use (a container's share, too)."""
        return self.threads or _usable_threads()

    @property
    def database(self) -> Path | str:
        """Where the rows are: a file, or the URL of a PostgreSQL server."""
        return self.database_url.get_secret_value() if self.database_url else self.root / "pegbox.db"

    @property
    def root(self) -> Path:
        """The data directory, absolute."""
        return self.data_dir.expanduser().resolve()

    @property
    def models(self) -> Path:
        """The folder of base models, absolute."""
        return self.models_dir.expanduser().resolve()


def _networks(text: str | None) -> tuple[Network, ...]:
    """Raises ValueError for what is no network, and for one with bits set beyond its prefix."""
    return tuple(ip_network(part.strip()) for part in (text or "").split(",") if part.strip())


def _usable_threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": microseconds of CPU in each period; or "max …"
    try:
        quota, period = limit.read_text("ascii").split()[:2]
        return max(1, min(usable, int(quota) // int(period)))
    except (OSError, ValueError):
        return usable
