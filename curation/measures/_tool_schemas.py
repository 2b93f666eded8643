"""Tools as JSON schemas: read from what sources write, and asked whether arguments keep to them, in bounded time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import orjson

# Type names of Python that some sources write in place of those of JSON Schema
PYTHON_TYPES = {"dict": "object", "str": "string", "int": "integer", "float": "number", "double": "number",
                "list": "array", "tuple": "array", "set": "array", "bool": "boolean", "none": "null",
                "nonetype": "null", "any": None, "union": None}  # fmt: skip
JSON_TYPES = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
MAX_DEPTH = 60
MAX_REFERENCES = 500  # $ref that one check may follow
MAX_CHARS = 100_000  # of a schema or of arguments: larger ones are not checked
SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SCHEMA_PLACES = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
                 "unevaluatedProperties", "unevaluatedItems")  # fmt: skip


class Unusable(Exception):
    """Why arguments cannot be checked against a schema."""


def functions(tools: str) -> list[dict[str, Any]]:
    """The functions of a row's `tools`: OpenAI's `{"type": "function", "function": {...}}`, or bare; one alone or a
    list. What is neither is left out."""
    try:
        found = orjson.loads(tools)
    except orjson.JSONDecodeError:
        return []
    listed = found if isinstance(found, list) else [found]
    inner = [item.get("function", item) for item in listed if isinstance(item, dict)]
    return [item for item in inner if isinstance(item, dict) and isinstance(item.get("name"), str)]


def schema_of(function: dict[str, Any]) -> Any:
    """The schema of a function's arguments; None where it states none. Takes `parameters`, Anthropic's `input_schema`,
    MCP's `inputSchema`, and a bare map of properties (each an object)."""
    schema = next((function[key] for key in ("parameters", "input_schema", "inputSchema", "arguments")
                   if function.get(key) is not None), None)  # fmt: skip
    if isinstance(schema, dict) and schema and "type" not in schema and "properties" not in schema \
            and all(isinstance(value, dict) and not key.startswith("$") for key, value in schema.items()):  # fmt: skip
        return {"type": "object", "properties": schema}
    return schema


def translated(schema: Any, depth: int = 0) -> Any:
    """A schema with Python's type names as those of JSON Schema, and `required: true` inside of a property (draft 3)
    and a `required` of null left out. Raises Unusable where it is too deep."""
    if depth > MAX_DEPTH:
        raise Unusable("is too deep")
    if not isinstance(schema, dict):
        return schema
    out = {key: value for key, value in schema.items() if not (key == "required" and not isinstance(value, list))}
    if isinstance(out.get("type"), str) and out["type"] not in JSON_TYPES:
        out["type"] = _plain_type(out["type"])
        if out["type"] is None:
            del out["type"]
    for key in SCHEMA_MAPS:
        if isinstance(out.get(key), dict):
            out[key] = {name: translated(value, depth + 1) for name, value in out[key].items()}
    for key in SCHEMA_LISTS:
        if isinstance(out.get(key), list):
            out[key] = [translated(value, depth + 1) for value in out[key]]
    for key in SCHEMA_PLACES:
        if isinstance(out.get(key), dict):
            out[key] = translated(out[key], depth + 1)
    return out


def _plain_type(kind: str) -> str | None:
    """A type name of Python ('dict', 'List[int]', 'Optional[str]', 'str, optional') as one of JSON Schema; None for any
    value, the name itself where it is unknown."""
    plain = kind.lower().partition(",")[0].strip().removeprefix("optional[").partition("[")[0].rstrip("]")
    return PYTHON_TYPES.get(plain, plain if plain in JSON_TYPES else kind)


def json_bytes(value: Any) -> bytes | None:
    """Canonical JSON; None for what is nested too deeply."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None


@functools.lru_cache(maxsize=4096)
def checker(schema_json: bytes | None) -> tuple[Any, str]:
    """(a validator or None, what is wrong with the schema): '' for a good one, 'foreign' for one that is good once
    Python's type names are translated, else 'invalid'. A reference to elsewhere is never fetched."""
    from jsonschema import Draft7Validator, Draft202012Validator
    from jsonschema.validators import validator_for

    if schema_json is None or len(schema_json) > MAX_CHARS:
        return None, "invalid"
    schema = orjson.loads(schema_json)
    wrong = ""
    try:
        plain = translated(schema)
    except Unusable:
        return None, "invalid"
    if plain != schema:
        wrong, schema = "foreign", plain
    if schema is None or schema == {}:
        return None, wrong
    named = validator_for(schema, Draft202012Validator) if isinstance(schema, dict) else Draft202012Validator
    for draft in (named, Draft7Validator):
        rules = _bounded(draft)(draft.META_SCHEMA, registry=_specifications())
        try:
            if first_error(rules, schema, MAX_REFERENCES * 100) is None:
                return _bounded(draft)(schema, registry=_specifications()), wrong
        except Unusable:
            continue
    return None, "invalid"


@functools.cache
def _specifications() -> Any:
    """The schemas of JSON Schema itself: all that a reference to elsewhere finds."""
    from jsonschema_specifications import REGISTRY

    return REGISTRY


@functools.cache
def _bounded(draft: Any) -> Any:
    """A validator class that follows few references, matches patterns in linear time, and compares unique items by
    their JSON."""
    from jsonschema import ValidationError, validators

    def reference(plain: Any) -> Any:
        def follow(validator: Any, ref: Any, instance: Any, schema: Any) -> Iterator[Any]:
            _left[0] -= 1
            if _left[0] < 0:
                raise Unusable("follows too many references")
            yield from plain(validator, ref, instance, schema) or ()

        return follow

    def pattern(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not _matches(value, instance):
            yield ValidationError("does not match")

    def pattern_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, dict):
            for text, inner in value.items():
                for key, item in instance.items():
                    if _matches(text, key, otherwise=False):
                        yield from validator.descend(item, inner, path=key, schema_path=text)

    def additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, dict):
            patterns = list(schema.get("patternProperties", ()))
            extra = [key for key in instance if key not in schema.get("properties", ())
                     and not any(_matches(text, key) for text in patterns)]  # fmt: skip
            if value is False and extra:
                yield ValidationError(f"knows no '{extra[0]}'")
            elif isinstance(value, dict):
                for key in extra:
                    yield from validator.descend(instance[key], value, path=key)

    def unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if value and isinstance(instance, list) and len(instance) != len({json_bytes(item) for item in instance}):
            yield ValidationError("items repeat")

    keywords = {"pattern": pattern, "patternProperties": pattern_properties, "additionalProperties": additional,
                "uniqueItems": unique}  # fmt: skip
    for name in ("$ref", "$dynamicRef", "$recursiveRef"):
        if name in draft.VALIDATORS:
            keywords[name] = reference(draft.VALIDATORS[name])
    return validators.extend(draft, keywords)


_left = [0]  # references that the check that is running may still follow


def _matches(pattern: str, text: str, otherwise: bool = True) -> bool:
    """Whether a pattern is found in a text, by an engine that is linear in the text; `otherwise` for a pattern that it
    does not know (look-around, back references)."""
    import polars as pl

    try:
        return bool(pl.Series([text]).str.contains(pattern).item())
    except pl.exceptions.PolarsError:
        return otherwise


def first_error(validator: Any, arguments: Any, references: int = MAX_REFERENCES) -> str | None:
    """The first way in which arguments break a schema, in words; None where they keep to it. Raises Unusable where that
    cannot be told: a reference that leads nowhere or never ends."""
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    _left[0] = references
    try:
        error = next(iter(validator.iter_errors(arguments)), None)
        error = error and best_match([error])
    except (RecursionError, Unresolvable, ArithmeticError, TypeError, ValueError, LookupError,
            AttributeError) as broken:  # fmt: skip
        raise Unusable("cannot be followed") from broken
    return None if error is None else _in_words(error)


def _in_words(error: Any) -> str:
    place = ".".join(str(part) for part in error.absolute_path)[:80]
    where = f"'{place}' " if place else ""
    expected = error.validator_value
    if error.validator == "required" and isinstance(expected, list) and isinstance(error.instance, dict):
        missing = next((name for name in expected if name not in error.instance), "")
        return f"{where}lacks '{str(missing)[:80]}'"
    if error.validator == "type":
        kinds = expected if isinstance(expected, list) else [expected]
        return f"{where}is no {' or '.join(map(str, kinds))}"
    if error.validator == "enum":
        return f"{where}is none of the {len(expected)} values that are allowed"
    if error.validator == "additionalProperties":
        return f"{where}{error.message[:100]}"
    return f"{where}breaks {error.validator}"
