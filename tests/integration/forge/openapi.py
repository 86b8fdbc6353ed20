"""GitHub's published OpenAPI description, as the judge of every request and every answer of the stand-in."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

DOCUMENT: dict[str, Any] = json.loads(
    Path(__file__).with_name("github_openapi.json").read_text(encoding="utf-8")
)
ANYWHERE = {"401", "403", "404", "429", "500", "502", "503", "504"}
"""Answers that each operation can have, although most do not list them."""


def _converted(schema: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema: `nullable` is the type null."""
    if isinstance(schema, list):
        return [_converted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    values = {key: _converted(each) for key, each in schema.items() if key != "nullable"}
    return {"anyOf": [values, {"type": "null"}]} if schema.get("nullable") is True else values


COMPONENTS = _converted(DOCUMENT["components"])


def _resolved(value: dict[str, Any], document: dict[str, Any] = DOCUMENT) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


@lru_cache(maxsize=64)
def _validator(text: str) -> Draft202012Validator:
    return Draft202012Validator({**_converted(json.loads(text)), "components": COMPONENTS})


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    """How a value differs from a schema."""
    found = _validator(json.dumps(schema, sort_keys=True)).iter_errors(value)
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message[:200]}" for each in found]


def operation(method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]] | None:
    """The template of the path, its operation, and the values in it. None for a path that is not described."""
    for template, methods in DOCUMENT["paths"].items():
        # Only a ref may have slashes in it.
        pattern = re.sub(r"\{(ref|basehead)\}", r"(?P<\1>.+)", template)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        found = re.fullmatch(pattern, path)
        if found and method.lower() in methods:
            return template, methods[method.lower()], found.groupdict()
    return None


def request_faults(
    described: dict[str, Any], values: dict[str, str], query: dict[str, str], body: Any
) -> list[str]:
    """What a request has that the description does not allow, or misses."""
    found: list[str] = []
    parameters = [_resolved(each) for each in described.get("parameters", ())]
    known = {each["name"]: each for each in parameters if each["in"] == "query"}
    found += [f"query {name} is not described" for name in query if name not in known]
    for each in parameters:
        text = (query if each["in"] == "query" else values).get(each["name"])
        if text is None:
            found += [f"{each['name']} is missing"] if each.get("required") else []
            continue
        kind = _resolved(each["schema"]).get("type")
        value: Any = int(text) if kind == "integer" and text.isdecimal() else text
        value = text == "true" if kind == "boolean" else value
        found += [f"{each['name']} {fault}" for fault in faults(each["schema"], value)]
    wanted = described.get("requestBody")
    if wanted is None:
        return found + ([f"a body is not described: {body}"] if body is not None else [])
    schema = wanted["content"]["application/json"]["schema"]
    found += [f"body {fault}" for fault in faults(schema, body)]
    names = _resolved(schema).get("properties", {})
    return found + [f"body {name} is not described" for name in (body or {}) if name not in names]


def answer_faults(described: dict[str, Any], status: int, body: Any) -> list[str]:
    """How an answer differs from the description."""
    wanted = described["responses"].get(str(status))
    if wanted is None:
        if str(status) not in ANYWHERE:
            return [f"status {status} is not described"]
        return faults({"$ref": "#/components/schemas/basic-error"}, body)
    content = _resolved(wanted).get("content", {}).get("application/json")
    if content is None:
        return [] if body is None else [f"status {status} has no body"]
    return faults(content["schema"], body)


def filled(name: str, /, **values: Any) -> dict[str, Any]:
    """The smallest object of a schema, with these values."""
    return {**_smallest({"$ref": f"#/components/schemas/{name}"}), **values}


def _smallest(schema: dict[str, Any]) -> Any:
    schema = _resolved(schema)
    if schema.get("nullable"):
        return None
    for key in ("allOf", "oneOf", "anyOf"):
        if key in schema:
            return _smallest(schema[key][0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "string":
        by_format = {"date-time": "2026-11-01T08:00:00Z", "uri": "https://forge.example/x"}
        return by_format.get(schema.get("format", ""), "x" * max(1, schema.get("minLength", 1)))
    simple: dict[Any, Any] = {"integer": 1, "number": 1, "boolean": False, "array": []}
    if kind in simple:
        return simple[kind]
    return {name: _smallest(schema["properties"][name]) for name in schema.get("required", ())}
