"""Mint and check the ids that cross the API: `file-…`, `ftjob-…`, `ftevent-…`, `ftckpt_…`."""

import re
import secrets
import string

_ALPHABET = (string.ascii_letters + string.digits).encode()
_LETTERS = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))  # 5.95 bits a character, of 5.954
_PREFIXES = {
    "file": "file-",
    "job": "ftjob-",
    "event": "ftevent-",
    "checkpoint": "ftckpt_",
    "request": "req_",
    "chat": "chatcmpl-",
    "completion": "cmpl-",
    "call": "call_",
    "webhook": "whe_",
    "told": "evt_",
    "delivery": "whd_",
    "project": "proj_",
    "key": "key_",
    "audit": "audit_log-",
}
_SUFFIX_LIMIT = 64


def _random(length: int) -> str:
    return secrets.token_bytes(length).translate(_LETTERS).decode("ascii")


def mint(kind: str) -> str:
    """A fresh id, for example `mint("file")` → `file-` and 24 random letters and digits."""
    return _PREFIXES[kind] + _random(24)


def short() -> str:
    """The 8 characters that end a tuned model's name."""
    return _random(8)


def clean_suffix(text: str) -> str:
    """A user's suffix as it stands in a model name: lower case, only `a-z 0-9 - _ .`, no colon.

    Anything else becomes a single dash, as the 2023 command line did.
    """
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-")[:_SUFFIX_LIMIT].rstrip("-")


def tuned_name(base: str, organization: str, suffix: str | None, *, step: int | None = None) -> str:
    """A fresh `ft:BASE:ORG:SUFFIX:ID`, with `:ckpt-step-N` for a checkpoint (which has an ID of its own)."""
    name = f"ft:{base}:{organization}:{clean_suffix(suffix or '')}:{short()}"
    return name if step is None else f"{name}:ckpt-step-{step}"
