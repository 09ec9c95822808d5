"""The report as SARIF 2.1.0 (OASIS, 2020), which code hosts and editors show beside the lines of a file."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pegbox
from pegbox.data.quality.codes import CODES, Code, Severity
from pegbox.data.quality.findings import Finding, Place, Sample
from pegbox.data.report import FileFacts, Report
from pegbox.data.views import words

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MAX_RESULTS = 100  # of one finding: a review is read by people
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def as_sarif(report: Report, docs: str = "") -> dict[str, Any]:
    """`docs` is the absolute address of docs/codes.md, where one is known; SARIF allows no relative one."""
    files = [facts for facts in (report.training, report.validation) if facts is not None]
    index = {facts.which: i for i, facts in enumerate(files)}
    uris = [quote(facts.name) for facts in files]

    def physical(place: Place) -> dict[str, Any]:
        at = index.get(place.file, 0)
        region: dict[str, Any] = {"startLine": max(1, place.line)}
        if place.excerpt:
            region["snippet"] = {"text": words.visible(place.excerpt)}
        location: dict[str, Any] = {
            "physicalLocation": {"artifactLocation": {"uri": uris[at], "index": at}, "region": region}
        }
        if place.path:
            location["logicalLocations"] = [{"fullyQualifiedName": words.visible(place.path), "kind": "member"}]
        return location

    rules = list(CODES)
    results = []
    for finding in report.findings:
        for sample in _samples(finding):
            result = {
                "ruleId": finding.code,
                "ruleIndex": rules.index(finding.code),
                "level": _LEVELS[finding.severity],
                "message": {"text": _message(finding, sample)},
                "locations": [physical(sample.places[0])],
                "properties": {
                    "kind": finding.kind, "count": finding.count, "share": finding.share, "file": finding.file,
                },
            }  # fmt: skip
            if sample.places[1:]:
                result["relatedLocations"] = [
                    {"id": i, "message": {"text": f"line {place.line}"}, **physical(place)}
                    for i, place in enumerate(sample.places[1:], 1)
                ]
            results.append(result)
    run = {
        "tool": {"driver": {
            "name": "pegbox", "version": pegbox.__version__, "rules": [_rule(code, docs) for code in CODES.values()],
        }},
        "artifacts": [_artifact(facts, uri) for facts, uri in zip(files, uris, strict=True)],
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": list(_not_run(report))}],
        "results": results,
    }  # fmt: skip
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _samples(finding: Finding) -> Iterator[Sample]:
    """What to mark in the file: the samples, then the other lines; or the first line, for the file as a whole."""
    shown = [sample for sample in finding.samples if sample.places][:MAX_RESULTS]
    yield from shown
    marked = {place.line for sample in shown for place in sample.places if place.file == finding.file}
    others = [line for line in finding.lines if line not in marked][: MAX_RESULTS - len(shown)]
    if not shown and not others:
        others = [1]
    for line in others:
        yield Sample((Place(line, "", "", finding.file),))


def _message(finding: Finding, sample: Sample) -> str:
    said = f"{words.sentence(finding.text)} {finding.fix}"
    return words.visible(f"{sample.note}: {said}" if sample.note else said)


def _rule(code: Code, docs: str) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": code.code,
        "name": "".join(word.capitalize() for word in code.name.split("-")),
        "shortDescription": {"text": f"{code.title}."},
        "fullDescription": {"text": f"{code.title}."},
        "help": {
            "text": f"{code.fix} See docs/codes.md.",
            "markdown": f"{code.fix} See [docs/codes.md]({docs or 'docs/codes.md'}#{code.name}).",
        },
        "defaultConfiguration": {"level": _LEVELS[code.severity]},
        "properties": {"tags": ["training-data"]},
    }
    if docs:
        rule["helpUri"] = f"{docs}#{code.name}"
    return rule


def _artifact(facts: FileFacts, uri: str) -> dict[str, Any]:
    return {
        "location": {"uri": uri},
        "length": facts.bytes,
        "roles": ["analysisTarget"],
        "properties": {"rows": facts.rows, "used": facts.used},
    }


def _not_run(report: Report) -> Iterator[dict[str, Any]]:
    for code, why in report.not_run.items():
        yield {"level": "note", "message": {"text": why}, "associatedRule": {"id": code}}
