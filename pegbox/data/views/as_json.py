"""The report as JSON: every fact, in a shape that docs/report.schema.json describes and docs/check.md explains."""

import dataclasses
import json
import math
import types
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pegbox
from pegbox.data.quality.codes import CODES
from pegbox.data.quality.findings import Finding
from pegbox.data.quality.secrets import redact
from pegbox.data.report import SCHEMA, Piece, Report
from pegbox.data.rows import Problem
from pegbox.data.views import words


def as_json(report: Report) -> dict[str, Any]:
    """JSON values only; no NaN, and no text of a row but what findings and examples show of it."""
    found = Counter(finding.severity.value for finding in report.findings)
    return {
        "schema": SCHEMA,
        "tool": {"name": "pegbox", "version": pegbox.__version__},
        "verdict": words.verdict(report),
        "found": {severity.value: found[severity.value] for severity in words.GRAVITIES},
        **_plain(report),
    }


def json_bytes(report: Report) -> bytes:
    """As a file: UTF-8, indented, with a line's end."""
    text = json.dumps(as_json(report), ensure_ascii=False, allow_nan=False, indent=2)
    return (text + "\n").encode("utf-8", "backslashreplace")  # \ud800 is JSON's own way to write half a character


def from_json(value: Mapping[str, Any]) -> Report:
    """The report that `as_json` wrote, but for the parsed values of its unreadable rows, which are not written.

    Fields that are not known are passed over: a later version may add some. Raises ValueError for another schema.
    """
    if value.get("schema") != SCHEMA:
        raise ValueError(f"this report is of schema {value.get('schema')!r}; schema {SCHEMA} is known here")
    report: Report = _made(Report, value)
    return report


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return _fields(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _fields(value: object) -> dict[str, Any]:
    named = {"name": CODES[value.code].name} if isinstance(value, Finding) else {}
    hidden = {"value"} if isinstance(value, Problem) else set()  # the row itself, with all that it holds
    names = [field.name for field in dataclasses.fields(value) if field.name not in hidden]  # type: ignore[arg-type]
    plain = named | {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, (Piece, Problem)):  # excerpts are redacted already
        plain["text"] = redact(value.text)
    return plain


def _made(kind: Any, value: Any) -> Any:
    """A value of that type out of its JSON."""
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else _made(next(k for k in get_args(kind) if k is not type(None)), value)
    if get_origin(kind) is tuple:
        return tuple(_made(get_args(kind)[0], item) for item in value)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind)}
        return kind(**{key: _made(hints[key], item) for key, item in value.items() if key in known})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return float(value) if kind is float and value is not None else value
