"""Schemathesis, with our own description of the API: whatever is sent, no answer is a 5xx."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from conftest import KEY, Server
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

from pegbox.api.app import all_routes, make_api
from pegbox.api.openapi import describe

schema = schemathesis.openapi.from_dict(describe(make_api(), all_routes()))


@pytest.fixture(scope="module")
def fuzzed(tiny_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("fuzzed") / "data", tiny_catalog).start()
    yield server
    server.close()


OPERATIONS = {operation.label: operation for found in schema.get_all_operations() if (operation := found.ok())}


@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_no_request_breaks_the_server(label: str, fuzzed: Server):
    legal, illegal = (OPERATIONS[label].as_strategy(mode) for mode in GenerationMode)

    @given(case=legal | illegal)
    @settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(
            base_url=fuzzed.root_url, headers={"authorization": f"Bearer {KEY}"}, checks=[not_a_server_error],
            timeout=60,
        )  # fmt: skip

    send()
