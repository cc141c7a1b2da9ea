"""The OpenAPI document: the table of operations, written as other tools read it.

`python -m snapd.api.openapi` prints it; `docs/api/openapi.json` is what that printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from snapd import __version__
from snapd.api.operations import ID_PATTERN, OPERATIONS, Answer, Body, Operation
from snapd.api.schemas import Schema, Schemas

_DESCRIPTION = """\
What `snapctl` asks of the daemon over its Unix socket, and the little that is served over TCP.

On the socket the kernel tells who asks, and `[access]` in the configuration says what they may do:
`x-role` names the least role for an operation. What TCP serves can only be read; it takes a token
unless the address is loopback. A stream is `application/x-ndjson`, one document a line."""

_ERROR: Schema = {
    "type": "object",
    "description": "Why a request failed, and what to do about it.",
    "properties": {
        "code": {"type": "string"},
        "exit_code": {"type": "integer"},
        "message": {"type": "string"},
        "hint": {"type": "string"},
        "details": {"type": "object"},
    },
    "required": ["code", "exit_code", "message", "hint"],
}
_SERVERS = {
    "socket": {"url": "http://snapd", "description": "The control socket, a Unix socket."},
    "tcp": {"url": "http://127.0.0.1:9477", "description": "`[daemon] listen`."},
}


def openapi_document() -> dict[str, Any]:
    """Make the document."""
    schemas = Schemas()
    schemas.named["Error"] = _ERROR
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = paths.setdefault(operation.path, {})
        path[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "snapd", "version": __version__, "description": _DESCRIPTION},
        "servers": [_SERVERS["socket"]],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.named.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers: dict[str, Any] = {}
    for answer in operation.answers:
        content = {_media_type(answer): {"schema": _resolved(answer.schema, schemas)}}
        answers[str(answer.status)] = {"description": operation.summary, "content": content}
    answers["default"] = {"description": "It failed.", "content": error}
    document: dict[str, Any] = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "x-role": operation.role.word,
        "servers": [_SERVERS[each] for each in operation.served],
        "responses": answers,
    }
    if operation.served == ("tcp",) and not operation.free:
        document["security"] = [{}, {"token": []}, {"password": []}]
    if parameters := [*_path_parameters(operation), *_query_parameters(operation)]:
        document["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": _body(operation.body)}}
        document["requestBody"] = {"required": True, "content": content}
    return document


def _operation_id(operation: Operation) -> str:
    words = [word.strip("{}").split(".")[0] for word in operation.path.split("/") if word != "v1"]
    return "_".join([operation.method.lower(), *filter(None, words)])


def _media_type(answer: Answer) -> str:
    if answer.text:
        return answer.text
    return "application/x-ndjson" if answer.stream else "application/json"


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    schema: Schema = {"type": "string", "minLength": 1}
    if "snapshots" in operation.path:
        schema = {"type": "string", "pattern": ID_PATTERN}
    names = [word[1:-1] for word in operation.path.split("/") if word.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in operation.query.items()
    ]


def _body(body: Body) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": dict(body.properties),
        "additionalProperties": False,
    }
    if body.required:
        schema["required"] = list(body.required)
    if body.one_of:
        schema["oneOf"] = [dict(each) for each in body.one_of]
    return schema


def _resolved(schema: Any, schemas: Schemas) -> Any:
    """Put references where dataclasses stand."""
    if isinstance(schema, type):
        return schemas.of(schema)
    if isinstance(schema, Mapping):
        return {key: _resolved(value, schemas) for key, value in schema.items()}
    return schema


def add_openapi(app: web.Application) -> None:
    """Let an application serve the document."""
    text = json.dumps(openapi_document())

    async def openapi(_request: web.Request) -> web.Response:
        """`GET /v1/openapi.json`: the document."""
        return web.json_response(text=text)

    app.router.add_get("/v1/openapi.json", openapi, allow_head=False)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(openapi_document(), indent=2) + "\n")
