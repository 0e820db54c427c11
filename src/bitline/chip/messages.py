"""Turn what pydantic found wrong with a record into lines a person can act on."""

from collections.abc import Mapping
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

from bitline.errors import nearest


def explain(error: ValueError, data: Mapping[str, Any], model: type[BaseModel], where: str) -> str:
    """Say each problem in a line: key, value, rule and, for an unknown key or word, the nearest known one."""
    if not isinstance(error, ValidationError):
        return f"{where}: {error}"
    return "\n".join(f"{where}: {_line(problem, data, model)}" for problem in error.errors())


def _line(problem: Any, data: Mapping[str, Any], model: type[BaseModel]) -> str:
    path = _path(problem["loc"], data)
    key = ".".join(path)
    given = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = _keys(_records_at(model, problem["loc"][:-1]))
            return f"unknown key {key}{nearest(path[-1], known)}; allowed here: {', '.join(known)}"
        case "missing":
            return f"{key} is missing"
        case "union_tag_invalid":
            return f"{key}.kind = {problem['ctx']['tag']!r}{_choice(problem['ctx']['tag'], model, problem['loc'])}"
        case "union_tag_not_found":
            return f"{key}.kind is missing{_choice('', model, problem['loc'])}"
        case "literal_error":
            words = problem["ctx"]["expected"].split("'")[1::2]
            return f"{key} = {given!r}{nearest(str(given), words)}; allowed: {', '.join(map(repr, words))}"
        case "value_error":
            return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{key} = {given!r}: {message}"


def _choice(tag: str, model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    kinds = [kind for record in _records_at(model, loc) for kind in _kinds(record)]
    return f"{nearest(tag, kinds)}; allowed: {', '.join(map(repr, kinds))}"


def _path(loc: tuple[int | str, ...], data: Mapping[str, Any]) -> list[str]:
    """Drop the tags of unions, which are no keys of the file."""
    path: list[str] = []
    here: Mapping[str, Any] = data
    for part in map(str, loc[:-1]):
        if part not in here and here.get("kind", part) == part and path:
            continue
        path.append(part)
        below = here.get(part)
        here = cast("Mapping[str, Any]", below) if isinstance(below, Mapping) else {}
    return [*path, *(str(part) for part in loc[-1:])]


def _records_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """Return the records that may stand at `loc` below `model`."""
    records: list[type[BaseModel]] = [model]
    for part in map(str, loc):
        fields = [record.model_fields[part].annotation for record in records if part in record.model_fields]
        deeper = [below for annotation in fields for below in _records(annotation)]
        records = deeper or [record for record in records if part in _kinds(record)] or records
    return records


def _keys(records: list[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record.model_fields))


def _kinds(record: type[BaseModel]) -> tuple[str, ...]:
    return get_args(record.model_fields["kind"].annotation) if "kind" in record.model_fields else ()


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for part in get_args(annotation) for record in _records(part)]
