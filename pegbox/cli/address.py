"""Where the server is."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and the key to it."""

    base_url: str
    api_key: str | None = field(repr=False)
