"""Answers in a form that was asked for, from a random model that knows no form at all."""

import json
from collections.abc import Iterator
from typing import Literal

import httpx
import jsonschema_rs
import pytest
from answers import check_error
from conftest import SMOLLM2, Server
from openai import OpenAI
from pydantic import BaseModel

CHAT = "/chat/completions"
ASK = [{"role": "user", "content": "Which city?"}]
CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "size": {"enum": ["small", "large"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 999},
        "near": {"type": "array", "items": {"$ref": "#/$defs/Place"}, "maxItems": 2},
    },
    "required": ["name", "size", "people", "near"],
    "additionalProperties": False,
    "$defs": {"Place": {"type": "object", "properties": {"km": {"type": "integer", "minimum": 0, "maximum": 99}},
                        "required": ["km"], "additionalProperties": False}},
}  # fmt: skip
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}}
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {
    "zone": {"enum": ["UTC", "JST"]}}, "required": ["zone"], "additionalProperties": False}}}  # fmt: skip
STOP = {"type": "function", "function": {"name": "stop"}}


@pytest.fixture(scope="module")
def http(server: Server) -> httpx.Client:
    return server.http()


def ask(http: httpx.Client, **others: object) -> dict[str, object]:
    answer = http.post(CHAT, json={"model": SMOLLM2, "messages": ASK, "max_tokens": 300, "seed": 3, **others})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


@pytest.mark.parametrize("seed", range(4))
def test_json_after_a_schema(http: httpx.Client, seed: int) -> None:
    choice = ask(http, response_format=FORMAT, seed=seed)
    jsonschema_rs.validate(CITY, json.loads(choice["message"]["content"]))
    assert choice["finish_reason"] == "stop"


def test_several_at_a_time_each_in_its_form(http: httpx.Client) -> None:
    body = {"model": SMOLLM2, "messages": ASK, "max_tokens": 300, "n": 3, "response_format": FORMAT}
    for choice in http.post(CHAT, json=body).json()["choices"]:
        jsonschema_rs.validate(CITY, json.loads(choice["message"]["content"]))


def test_any_json_object(http: httpx.Client) -> None:
    choice = ask(http, response_format={"type": "json_object"}, temperature=0, max_tokens=200,
                 logit_bias={str(ord("}")): 3})  # fmt: skip
    text = choice["message"]["content"]
    assert text.startswith("{")
    assert choice["finish_reason"] == "length" or isinstance(json.loads(text), dict)


def test_an_answer_that_is_cut_short_says_so(http: httpx.Client) -> None:
    choice = ask(http, response_format=FORMAT, max_tokens=5)
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("{")


def test_in_a_stream(http: httpx.Client) -> None:
    body = {"model": SMOLLM2, "messages": ASK, "max_tokens": 300, "stream": True, "response_format": FORMAT}
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(http, body)]
    jsonschema_rs.validate(CITY, json.loads("".join(delta.get("content", "") for delta in deltas)))


def streamed(http: httpx.Client, body: dict[str, object]) -> Iterator[dict[str, object]]:
    for line in http.post(CHAT, json=body).text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_the_stock_clients_own_way(server: Server) -> None:
    class City(BaseModel):
        size: Literal["small", "large"]
        by_the_sea: bool

    client: OpenAI = server.client()
    said = client.chat.completions.parse(model=SMOLLM2, messages=ASK, response_format=City, max_tokens=200, seed=1)
    assert isinstance(said.choices[0].message.parsed, City)


@pytest.mark.parametrize(
    ("choice", "finish"),
    [({"type": "function", "function": {"name": "now"}}, "stop"), ("required", "tool_calls"),
     ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NOW]}}, "tool_calls")],
)  # fmt: skip
def test_a_function_that_must_be_called(http: httpx.Client, choice: object, finish: str) -> None:
    tools = [NOW] if choice == "required" else [STOP, NOW]
    for seed in range(3):
        said = ask(http, tools=tools, tool_choice=choice, seed=seed)
        (call,) = said["message"]["tool_calls"]
        assert call["function"]["name"] == "now"
        assert json.loads(call["function"]["arguments"])["zone"] in ("UTC", "JST")
        assert (said["finish_reason"], said["message"]["content"]) == (finish, None)


def test_the_older_way_to_name_a_function(http: httpx.Client) -> None:
    said = ask(http, functions=[STOP["function"], NOW["function"]], function_call={"name": "now"})
    assert said["message"]["function_call"]["name"] == "now"
    assert said["finish_reason"] == "stop"


def test_a_forced_call_in_a_stream(http: httpx.Client) -> None:
    body = {
        "model": SMOLLM2,
        "messages": ASK,
        "max_tokens": 300,
        "stream": True,
        "tools": [NOW],
        "tool_choice": "required",
    }
    chunks = [chunk["choices"][0] for chunk in streamed(http, body)]
    (call,) = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])]
    assert call["function"]["name"] == "now"
    assert chunks[-1]["finish_reason"] == "tool_calls"


def test_a_tool_or_an_answer_in_its_form(http: httpx.Client) -> None:
    for seed in range(4):
        choice = ask(http, tools=[NOW], response_format=FORMAT, seed=seed)
        said = choice["message"]
        if "tool_calls" in said:
            assert json.loads(said["tool_calls"][0]["function"]["arguments"])["zone"] in ("UTC", "JST")
        elif choice["finish_reason"] == "stop":  # the tools leave a random model little room for its spaces
            jsonschema_rs.validate(CITY, json.loads(said["content"]))
        else:
            assert said["content"][0] in "{<"


def test_tools_that_may_be_used_as_the_model_likes(http: httpx.Client) -> None:
    """Only those that are allowed are shown to it."""
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NOW]}}
    body = {"model": SMOLLM2, "messages": ASK, "max_tokens": 1}
    tokens = [
        http.post(CHAT, json={**body, **others}).json()["usage"]["prompt_tokens"]
        for others in ({"tools": [NOW]}, {"tools": [STOP, NOW], "tool_choice": allowed}, {"tools": [STOP, NOW]})
    ]
    assert tokens[0] == tokens[1] < tokens[2]


def test_keywords_that_cannot_be_enforced(http: httpx.Client) -> None:
    """Refused where all of the schema must hold, else passed over."""
    odd = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}, "additionalProperties": False}
    loose = {"type": "json_schema", "json_schema": {"name": "odd", "schema": odd}}
    assert ask(http, response_format=loose, max_tokens=4)
    strict = {"type": "json_schema", "json_schema": {"name": "odd", "schema": odd, "strict": True}}
    body = {"model": SMOLLM2, "messages": ASK, "response_format": strict}
    check_error(http.post(CHAT, json=body), 400, param="response_format", code="invalid_value", message="not")


BAD = [
    ({"response_format": {"type": "xml"}}, "response_format", "use 'text', 'json_object' or 'json_schema'"),
    ({"response_format": {}}, "response_format", "use 'text'"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format", "json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}}, "response_format", "objekt"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}}, "response_format", "nowhere"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"pattern": "(", "type": "string"}}}}, "response_format", "schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["a" * 300_000]}}}}, "response_format", "bytes"),
    ({"tool_choice": "required"}, "tool_choice", "only allowed when 'tools' are specified"),
    ({"tool_choice": {"type": "function", "function": {"name": "now"}}}, "tool_choice", "only allowed when"),
    ({"tool_choice": {"type": "function", "function": {"name": "later"}}, "tools": [NOW]}, "tool_choice", "no tool called 'later'"),
    ({"tool_choice": "always", "tools": [NOW]}, "tool_choice", "use 'auto'"),
    ({"tool_choice": {"type": "function"}, "tools": [NOW]}, "tool_choice", "use 'auto'"),
    ({"function_call": "required", "functions": [NOW["function"]]}, "function_call", "use 'auto'"),
    ({"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}]}, "tools", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param", "message"), BAD)
def test_forms_that_are_none(http: httpx.Client, change: dict[str, object], param: str, message: str) -> None:
    body = {"model": SMOLLM2, "messages": ASK, "max_tokens": 2, **change}
    check_error(http.post(CHAT, json=body), 400, param=param, code="invalid_value", message=message)
    assert ask(http, max_tokens=1)


def nested(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


HOSTILE = [
    nested(25),
    {"type": "object", "properties": {f"key{i}": {"type": "string", "maxLength": 500} for i in range(2_000)}},
    {"enum": [f"value {i}" for i in range(10_000)]},
    {"type": "string", "pattern": "^(a|b|ab){1,3000}(c?){1000}$"},
    {"$ref": "#"},
    {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1_000_000},
]


@pytest.mark.parametrize("schema", HOSTILE, ids=range(len(HOSTILE)))
def test_schemas_that_would_like_to_take_long(http: httpx.Client, schema: dict[str, object]) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "hostile", "schema": schema}}
    answer = http.post(CHAT, json={"model": SMOLLM2, "messages": ASK, "max_tokens": 3, "response_format": asked})
    assert answer.status_code in (200, 400), answer.text
    assert ask(http, max_tokens=1)
