"""Options of a command from the fields of a record: name, type, default and help stand in the record alone."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bitline.recipes.records.base import Flag

KINDS = (bool, int, float, Path)
"""that the command line reads; all else is text that the record reads"""


def parameter(key: str, field: FieldInfo, heading: str, *, hidden: bool = False) -> inspect.Parameter:
    """Return the parameter that typer makes an argument, where the record needs the field, or an option of.

    Args:
        key: name of the field.
        field: with its type, default and help.
        heading: that the option stands under in the help.
        hidden: leave it out of the help.
    """
    flag = next((each for each in field.metadata if isinstance(each, Flag)), Flag())
    kind, words, repeated = _kind(field.annotation)
    help_text = _sentence(field.description or "")
    if field.is_required():
        info: Any = typer.Argument(help=help_text, metavar=f"[{key.upper()}]")
        annotation: Any = kind | None
        return inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[annotation, info], default=None
        )
    default = field.get_default(call_default_factory=True)
    name = flag.name or f"--{key.replace('_', '-')}"
    info = typer.Option(
        f"{name}/--no-{name.removeprefix('--')}" if kind is bool else name,
        help=help_text,
        metavar=flag.value or "|".join(words) or None,
        rich_help_panel=heading,
        hidden=hidden,
    )
    annotation = list[kind] if repeated else kind
    return inspect.Parameter(
        key,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[annotation | None, info],
        default=None if hidden or default in ((), {}) else list(default) if repeated else default,
    )


def on_command_line(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that the command line gives, rather than defaults."""
    return {
        key: value
        for key, value in values.items()
        if (source := ctx.get_parameter_source(key)) and source.name == "COMMANDLINE"
    }


def parts(record: type[BaseModel]) -> Iterator[tuple[type[BaseModel], list[str]]]:
    """Give the records that one is made of, its own first, and the fields that each brings in."""
    keys = {part: inspect.get_annotations(part) for part in record.__mro__}
    for place, part in enumerate(record.__mro__):
        below = record.__mro__[place + 1 :]
        yield part, [key for key in keys[part] if key in record.model_fields and not any(key in keys[b] for b in below)]


def _kind(annotation: Any) -> tuple[type[Any], tuple[str, ...], bool]:
    """Type that the command line reads, words to choose from, and whether there may be several."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, UnionType):
        (one,) = (each for each in arguments if each is not NoneType)
        return _kind(one)
    if origin is tuple:
        kind, words, _ = _kind(arguments[0])
        return kind, words, True
    if origin is dict:
        return str, (), True
    if origin is Literal:
        return str, arguments, False
    return annotation if annotation in KINDS else str, (), False


def _sentence(text: str) -> str:
    text = " ".join(text.replace("`", "").split())
    return f"{text[:1].upper()}{text[1:]}." if text else ""
