"""Options that say which network and data a command is about: the same ones, with the same words, in every command."""

import functools
import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

import typer

from bitline.data.layouts import LAYOUTS
from bitline.errors import DataError, shown

PANEL = "Network and data"
NAMES = "vgg8, vgg16, resnet20, resnet56, lenet5"
SPECS = (
    "FILE.py:NAME (class, function or instance), torchvision:NAME, timm:NAME, FILE.pt2 of torch.export, FILE.onnx, or "
    f"{NAMES}"
)


_WHAT = "[bold]Data[/]: images and one label for each, as"
LAYOUT_LINES = "\n\n".join([f"\n{_WHAT}", *(re.sub("  +", ": ", line) for line in LAYOUTS.splitlines())])
"""what --data takes, for a help text"""


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=PANEL)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line says of a network and its data; None where it says nothing.

    A run directory answers all of it but `data`, `data_dir`, `image_size` and `trust_code` itself.
    """

    model: Annotated[str | None, _option(help=f"Instead of a run: {SPECS}.")] = None
    model_args: Annotated[
        list[str] | None, _option(help="Arguments of --model: KEY=VALUE, repeatable, or one JSON object.")
    ] = None
    weights: Annotated[
        Path | None,
        _option(help="Weights of --model, .safetensors; a .pt2 or .onnx brings its own. Nothing is unpickled."),
    ] = None
    width: Annotated[float | None, _option(help=f"Width of {NAMES}; default: 1.")] = None
    data: Annotated[
        str | None,
        _option(help="cifar10, digits, a folder, a .parquet or a hub name (see import --help); default: the run's."),
    ] = None
    data_dir: Annotated[Path | None, _option(help="Where cifar10 lies.")] = None
    image_size: Annotated[int | None, _option(help="Resize images to this many px; default: the run's.")] = None
    split: Annotated[
        float | None, _option(help="Share of the images to test on, of --data that has no test images of its own.")
    ] = None
    image_column: Annotated[str | None, _option(help="Column of the images, of --data in tables.")] = None
    label_column: Annotated[str | None, _option(help="Column of the labels, of --data in tables.")] = None
    mean: Annotated[
        str | None,
        _option(help="Of --model, per channel in [0, 1]: it takes (image - mean) / std. Default: the data's own."),
    ] = None
    std: Annotated[str | None, _option(help="As --mean.")] = None
    no_normalize: Annotated[
        bool, _option("--no-normalize", help="--model takes images in [0, 1] as they are: mean 0, std 1.")
    ] = False
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        _option(metavar="<str>", help="auto, cpu or cuda, where the network runs; auto: a GPU if there is one."),
    ] = "auto"
    trust_code: Annotated[
        bool, _option("--trust-code", help="Run the Python file that a run directory has; --model runs its own anyway.")
    ] = False

    @property
    def source(self) -> dict[str, Any]:
        """What `bitline.data.load` is told beside the name; only what is given."""
        told = {key: getattr(self, key) for key in ("split", "image_column", "label_column")}
        return {key: value for key, value in told.items() if value is not None}

    def normalization(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return mean and deviation by channel; None where nothing is said of them.

        Raises:
            DataError: one without the other, both this and --no-normalize, or no such numbers.
        """
        if self.no_normalize and (self.mean, self.std) != (None, None):
            raise DataError("--no-normalize is mean 0 and std 1: leave out --mean and --std, or it")
        if self.no_normalize:
            return (0.0,) * channels, (1.0,) * channels
        if (self.mean is None) != (self.std is None):
            raise DataError("--mean and --std go together; --no-normalize is for neither")
        if self.mean is None or self.std is None:
            return None
        mean, std = _numbers("--mean", self.mean, channels), _numbers("--std", self.std, channels)
        if not all(0 <= value <= 1 for value in mean):
            raise DataError(f"--mean is {self.mean}; allowed: 0 to 1, as of images in [0, 1]; divide by 255")
        if not all(value > 0 for value in std):
            raise DataError(f"--std is {self.std}; allowed: above 0")
        return mean, std


def takes(record: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a record in the place of its parameter ``given``.

    Args:
        record: a dataclass whose fields say what typer makes of them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        spread = options(record)
        every: list[inspect.Parameter] = []
        for name, each in inspect.signature(command, eval_str=True).parameters.items():
            every += spread.values() if name == "given" else [each.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            given = record(**{name: values.pop(name) for name in spread})
            command(**values, given=given)

        made: Any = wrapped
        made.__signature__ = inspect.Signature(every)
        made.__annotations__ = {each.name: each.annotation for each in every}
        del made.__wrapped__
        return wrapped

    return decorate


def options(record: type[Any], *, without: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the fields of a dataclass as parameters that typer makes options of, but for some."""
    hints, kind = get_type_hints(record, include_extras=True), inspect.Parameter.KEYWORD_ONLY
    return {
        each.name: inspect.Parameter(each.name, kind, annotation=hints[each.name], default=each.default)
        for each in fields(record)
        if each.name not in without
    }


def arguments(texts: Iterable[str] | None) -> dict[str, Any]:
    """Return the keyword arguments of --model-args.

    Raises:
        DataError: neither JSON nor KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        if text.lstrip().startswith("{"):
            found |= _object(text)
            continue
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise DataError(f"--model-args {shown(text)}: expected KEY=VALUE or a JSON object")
        found[key.strip()] = _value(value)
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"--model-args {shown(text)}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"--model-args {shown(text)}: expected a JSON object")
    return cast("dict[str, Any]", content)


def _value(text: str) -> Any:
    """Read a value as JSON, and what is none, or True, False and None, as Python writes them."""
    words = {"True": True, "False": False, "None": None}
    try:
        return words[text] if text in words else json.loads(text)
    except (ValueError, RecursionError):
        return text


def _numbers(option: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"{option} is {shown(text)}; expected numbers such as 0.49,0.48,0.45") from None
    if len(found) == 1:
        return found * channels
    if len(found) != channels:
        raise DataError(f"{option} has {len(found)} numbers for {channels} channels")
    return found
