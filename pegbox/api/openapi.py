"""The API's own description, as OpenAPI. The framework knows answers and queries; bodies are read by `deps.body`, and
the upload's form by `upload.py`, so those are added here."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

_REF = "#/components/schemas/{model}"
_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "purpose": {"type": "string"},
                "file": {"type": "string", "format": "binary"},
                "expires_after[anchor]": {"const": "created_at"},
                "expires_after[seconds]": {"type": "integer", "minimum": 3_600, "maximum": 2_592_000},
            },
            "required": ["purpose", "file"],
        }
    }
}


def describe(app: FastAPI, routes: Iterator[APIRoute]) -> dict[str, Any]:
    """The document, with a body for every route that reads one."""
    described = app.openapi()
    schemas = described["components"]["schemas"]
    for route in routes:
        for method in route.methods or ():
            operation = described["paths"][_plain(route.path)][method.lower()]
            if model := _body_of(route):
                operation["requestBody"] = {"required": True, "content": _json(model, schemas)}
            elif (method, route.path) == ("POST", "/v1/files"):
                operation["requestBody"] = {"required": True, "content": _FORM}
    return described


def _body_of(route: APIRoute) -> type[BaseModel] | None:
    for dependency in route.dependant.dependencies:
        model: type[BaseModel] | None = getattr(dependency.call, "reads", None)
        if model is not None:
            return model
    return None


def _json(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _plain(path: str) -> str:
    """`/v1/models/{name:path}` → `/v1/models/{name}`."""
    return path.replace(":path}", "}")
