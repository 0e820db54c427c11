"""Turn what pydantic found wrong with a record into lines a person can act on."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bitline.errors import nearest


def explain(error: ValueError, data: dict[str, Any], model: type[BaseModel], where: str) -> str:
    """Say each problem in a line: key, value, rule and, for an unknown key, the nearest known one."""
    if not isinstance(error, ValidationError):
        return f"{where}: {error}"
    return "\n".join(f"{where}: {_line(problem, data, model)}" for problem in error.errors())


def _line(problem: Any, data: dict[str, Any], model: type[BaseModel]) -> str:
    path = _path(problem["loc"], data)
    key = ".".join(path)
    given = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = _keys(model, problem["loc"][:-1])
            return f"unknown key {key}{nearest(path[-1], known)}; allowed here: {', '.join(known)}"
        case "missing":
            return f"{key} is missing"
        case "union_tag_invalid":
            context = problem["ctx"]
            allowed = context["expected_tags"]
            return f"{key}.kind = {context['tag']!r}{nearest(context['tag'], allowed.split(chr(39)))}; allowed: {allowed}"
        case "union_tag_not_found":
            return f"{key}.kind is missing"
        case "value_error":
            return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{key} = {given!r}: {message}"


def _path(loc: tuple[int | str, ...], data: Any) -> list[str]:
    """Drop the tags of unions, which are no keys of the file."""
    path: list[str] = []
    for part in loc[:-1]:
        if isinstance(data, dict) and part not in data and data.get("kind", part) == part and path:
            continue
        path.append(str(part))
        if isinstance(data, dict):
            data = data.get(part, {})
    return [*path, *(str(part) for part in loc[-1:])]


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Fields of the record at `loc` below `model`."""
    records: list[type[BaseModel]] = [model]
    for part in loc:
        found = [r for record in records if part in record.model_fields for r in _records(record.model_fields[str(part)].annotation)]
        tagged = [r for r in records if "kind" in r.model_fields and part in get_args(r.model_fields["kind"].annotation)]
        records = found or tagged or records
    return list(dict.fromkeys(key for record in records for key in record.model_fields))


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for part in get_args(annotation) for record in _records(part)]
