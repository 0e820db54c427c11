"""Turn what pydantic found wrong with a record into lines a person can act on."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from bitline.chip.plausible import IMPLAUSIBLE, kinds_of, records_of
from bitline.errors import nearest, shown

MOST_LINES = 20


def explain(error: ValueError, data: Mapping[str, Any], model: type[BaseModel], where: str) -> str:
    """Say each problem in a line: key, value, rule and, for an unknown key or word, the nearest known one."""
    if not isinstance(error, ValidationError):
        return f"{where}: {error}"
    problems = error.errors()
    lines = [f"{where}: {_line(problem, data, model)}" for problem in problems[:MOST_LINES]]
    return "\n".join([*lines, *([f"{where}: and {len(problems) - MOST_LINES} more"] if problems[MOST_LINES:] else [])])


def _line(problem: Any, data: Mapping[str, Any], model: type[BaseModel]) -> str:
    path = [part if len(part) <= 80 else f"{part[:80]}..." for part in _path(problem["loc"], data)]
    key = ".".join(path)
    given = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = _keys(_records_at(model, problem["loc"][:-1]))
            return f"unknown key {key}{nearest(path[-1], known)}; allowed here: {', '.join(known)}"
        case "missing":
            return f"{key} is missing"
        case "union_tag_invalid":
            return f"{key}.kind = {shown(problem['ctx']['tag'])}{_choice(problem['ctx']['tag'], model, problem['loc'])}"
        case "union_tag_not_found":
            return f"{key}.kind is missing{_choice('', model, problem['loc'])}"
        case "literal_error":
            words = problem["ctx"]["expected"].split("'")[1::2]
            return f"{key} = {shown(given)}{nearest(str(given), words)}; allowed: {', '.join(map(repr, words))}"
        case "value_error":
            return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
        case kind if kind == IMPLAUSIBLE:
            return f"{key} = {problem['msg']}"
        case _:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{key} = {shown(given)}: {message}"


def _choice(tag: str, model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    kinds = [kind for record in _records_at(model, loc) for kind in kinds_of(record)]
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
    found: list[type[BaseModel]] = [model]
    for part in map(str, loc):
        fields = [record.model_fields[part].annotation for record in found if part in record.model_fields]
        deeper = [below for annotation in fields for below in records_of(annotation)]
        found = deeper or [record for record in found if part in kinds_of(record)] or found
    return found


def _keys(records: list[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record.model_fields))
