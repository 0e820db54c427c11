"""What every evaluation has to be once it is a file: of the schema, finite, and the same when it is read again."""

import json
import re
from pathlib import Path
from typing import Any

from bitline.evaluation import Evaluation, load

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
_BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "maxItems": lambda value, bound: len(value) <= bound,
    "pattern": lambda value, bound: re.search(bound, value) is not None,
}
_WORDS = {"title", "description", "default", "discriminator", "ge", "gt"}  # that constrain nothing


def check(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Write an evaluation as the commands do, check the file, and return its content."""
    path = folder / "checked.json"
    path.write_text(json.dumps(evaluation.to_json(), indent=1, allow_nan=False))
    assert load(path) == evaluation
    return check_file(path)


def check_file(path: Path) -> dict[str, Any]:
    """Check a file that a command left, and return its content."""
    content = json.loads(path.read_text())
    schema = Evaluation.model_json_schema()
    assert list(problems(content, schema, schema["$defs"])) == []
    assert load(path).to_json() == content
    return content


def problems(value: Any, schema: dict[str, Any], defs: dict[str, Any], place: str = "$") -> list[str]:
    """List where a value breaks a JSON schema; a keyword that is not known here is an error."""
    said: list[str] = []
    for word, rule in sorted(schema.items(), key=lambda item: item[0] != "type"):
        match word:
            case "$ref":
                said += problems(value, defs[rule.rpartition("/")[2]], defs, place)
            case "type":
                whole = isinstance(value, bool) and rule != "boolean"
                if whole or not isinstance(value, _TYPES[rule]):
                    return [f"{place} is no {rule}"]
            case "const" | "enum":
                said += [f"{place} is none of {rule}"] if value not in (rule if word == "enum" else [rule]) else []
            case "anyOf" | "oneOf":
                branches = [problems(value, one, defs, place) for one in rule]
                said += [] if [] in branches else [f"{place} fits none: {branches}"]
            case "properties" if isinstance(value, dict):
                for key in rule.keys() & value.keys():
                    said += problems(value[key], rule[key], defs, f"{place}.{key}")
            case "required" if isinstance(value, dict):
                said += [f"{place} lacks {key}" for key in rule if key not in value]
            case "additionalProperties" if isinstance(value, dict):
                for key in value.keys() - schema.get("properties", {}).keys():
                    below = f"{place}.{key}"
                    said += problems(value[key], rule, defs, below) if isinstance(rule, dict) else [f"{below} unknown"]
            case "propertyNames" if isinstance(value, dict):
                said += [one for key in value for one in problems(key, rule, defs, f"{place} key {key}")]
            case "items" if isinstance(value, list):
                said += [one for i, item in enumerate(value) for one in problems(item, rule, defs, f"{place}.{i}")]
            case _ if word in _BOUNDS:
                said += [f"{place} breaks {word} {rule}"] if not _BOUNDS[word](value, rule) else []
            case "properties" | "required" | "additionalProperties" | "propertyNames" | "items" | "$defs":
                pass
            case _:
                assert word in _WORDS, f"no rule for {word}"
    return said
