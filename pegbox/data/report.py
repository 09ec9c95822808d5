"""What the data desk says about a training file: facts, which the views draw and the API sends."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pegbox.data.quality.findings import Finding
from pegbox.data.rows import Problem

SCHEMA = 1  # of the JSON view; grows when a field changes its meaning or goes


@dataclass(frozen=True, slots=True)
class Distribution:
    """A figure over all rows."""

    min: float
    max: float
    mean: float
    median: float
    p5: float
    p95: float
    edges: tuple[float, ...] = ()  # of the histogram's bins, one more than `counts`
    counts: tuple[int, ...] = ()  # rows in each bin


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file, counted. `rows == used + sum(refused.values())`."""

    name: str
    which: str  # "training" or "validation"
    method: str  # supervised, dpo or reinforcement
    formats: tuple[str, ...]  # chat, completion, preference, reinforcement: those that occur
    bytes: int
    rows: int
    used: int
    refused: Mapping[str, int]  # rows by reason: "unreadable", "nothing left to learn"
    blank_lines: int
    format_errors: Mapping[str, int]  # the guide's error classes: rows in each; only those that occur
    problems: tuple[Problem, ...]  # the first hundred unreadable rows
    missing_system: int
    missing_user: int
    messages: Distribution | None  # a row; None where no row is good
    tokens: Distribution | None  # a row; None where no model is named
    assistant_tokens: Distribution | None  # tokens that loss is taken on
    total_tokens: int
    trained_tokens: int
    over_limit: int  # rows longer than the model's limit
    lost_tokens: int  # trained tokens that cutting them loses
    openai_tokens: int | None = None  # an approximate count by OpenAI's rule, where it was asked for


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do by default, and its price."""

    model: str
    limit: int  # tokens an example
    n_epochs: int
    reason: str  # why that many
    billing_tokens: int  # of all epochs, after cutting at the limit
    price: float  # a million training tokens; 0: none is set
    cost: float | None  # None where no price is set


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would take on this machine."""

    tokens_per_epoch: int
    computed_per_epoch: int  # what is left to compute when shared beginnings are computed once
    seconds: float
    seconds_low: float  # a 90 % interval
    seconds_high: float
    peak_bytes: int  # of the training process
    jobs: int  # finished jobs of this machine that it learnt from; 0: by the model's size alone
    basis: str  # a sentence that says so


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a rendered example."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as the model will see it."""

    line: int  # 1-based
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything. `findings` are in order of gravity, then of rows."""

    training: FileFacts
    validation: FileFacts | None
    plan: Plan | None  # None where no model is named, or no row is good
    estimate: Estimate | None
    findings: tuple[Finding, ...]
    not_run: Mapping[str, str] = field(default_factory=dict)  # code → why it was not looked for
    examples: tuple[Shown, ...] = ()
    seconds: float = 0.0  # that the check took
