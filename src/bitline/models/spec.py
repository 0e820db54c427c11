"""How a network is named: a name, a Python file, a program, or a model of torchvision or timm."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from bitline.errors import DataError, nearest
from bitline.models import build, names
from bitline.models.program import SUFFIXES, load_program
from bitline.models.source import load_model_file

LIBRARIES = ("torchvision", "timm")
KINDS = "FILE.py:NAME, torchvision:NAME, timm:NAME, a FILE.pt2 of torch.export.save, or a FILE.onnx"
"""that a network can be beside the names of `bitline.models.names`"""


class File(NamedTuple):
    """The file of a network.

    Args:
        path: of the file.
        name: of what it defines; empty for a program.
    """

    path: Path
    name: str


def is_file_spec(spec: str) -> bool:
    """Tell ``FILE.py:NAME``, whose file is run, from all else."""
    return not is_program(spec) and _library(spec) is None and (".py" in spec or os.sep in spec)


def is_program(spec: str) -> bool:
    """Tell a program of torch.export, or a network in ONNX."""
    return spec.endswith(SUFFIXES)


def file_of(spec: str) -> File | None:
    """Return the file of ``FILE.py:NAME`` or of a program; None for what has none.

    Raises:
        DataError: no such file, or a name that is missing.
    """
    if not (is_file_spec(spec) or is_program(spec)):
        return None
    file, _, name = (spec, "", "") if is_program(spec) else spec.rpartition(":")
    if not is_program(spec) and (not file.endswith(".py") or not name):
        raise DataError(f"model is {spec!r}; expected {KINDS}, or one of {', '.join(names())}")
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"no such file: {file} (model {spec!r})")
    return File(path, name)


def check_spec(spec: str) -> None:
    """Refuse a model that cannot be built, before anything slow is done.

    Raises:
        DataError: neither a known name nor one of `KINDS`, no such file, or a library that is not installed.
    """
    library = _library(spec)
    if library is not None:
        _known(library, spec.partition(":")[2])
    elif file_of(spec) is None and spec not in names():
        raise DataError(f"model is {spec!r}; allowed: {', '.join(names())}, {KINDS}{nearest(spec, names())}")


def arguments(
    spec: str,
    given: Mapping[str, Any] | None = None,
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments that a network is built with for some images.

    Args:
        spec: of the network.
        given: by the user; they go before all others.
        num_classes: outputs; a file and a program have their own.
        in_channels: image channels.
        image_size: height and width of an image, px.
        width: multiplies the hidden channels of a named network; None: not given.

    Raises:
        DataError: arguments or a width for what takes none.
    """
    given, library = dict(given or {}), _library(spec)
    named = library is None and not is_file_spec(spec) and not is_program(spec)
    if width is not None and not named:
        raise DataError(f"{spec} takes no --width {width:g}, which is for named models")
    if given and (named or is_program(spec)):
        what = "a named model, which has --width" if named else "a program, which is complete"
        raise DataError(f"--model-args {', '.join(given)}: {spec} is {what}")
    if library == "torchvision":
        return {"num_classes": num_classes, **given}
    if library == "timm":
        return {"num_classes": num_classes, "in_chans": in_channels, **given}
    if named:
        sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        return {**sizes, "width": 1.0 if width is None else width}
    return given


def make(spec: str, **kwargs: Any) -> nn.Module:
    """Build a network.

    Args:
        spec: for example ``"vgg8"``, ``"nets/mine.py:Net"``, ``"torchvision:resnet18"`` or
            ``"net.pt2"``. A Python file is run; a program is read as data, and so is ONNX.
        kwargs: of the network, see `arguments`.

    Returns:
        The network; that of a program has its weights, all others have random ones.

    Raises:
        DataError: an unknown name, a library that is not installed, or a file that does not hold what was asked for.
    """
    library = _library(spec)
    if library is not None:
        return _of_library(library, spec.partition(":")[2], kwargs)
    file = file_of(spec)
    if file is None:
        check_spec(spec)
        return build(spec, **kwargs)
    return load_model_file(file.path, file.name, kwargs) if file.name else load_program(file.path)


def label(spec: str) -> str:
    """Return what to call a network: of a file its name, wherever it lies."""
    return spec if _library(spec) is not None else Path(spec).name


def _library(spec: str) -> str | None:
    library = spec.partition(":")[0]
    return library if library in LIBRARIES and ":" in spec else None


def _known(library: str, name: str) -> Any:
    """Return a library of networks that is installed and has one of this name.

    Raises:
        DataError: it is not, or has not.
    """
    try:
        module: Any = importlib.import_module(library)
        listed: list[str] = list((module.models if library == "torchvision" else module).list_models())
    except ModuleNotFoundError as error:
        raise DataError(
            f"model is '{library}:{name}', which needs the package {library}: pip install {library} "
            f"(or pip install 'bitline[models]'); {error}"
        ) from error
    except Exception as error:  # another build than that of torch
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"model is '{library}:{name}', but {library} does not import: {type(error).__name__}: {reason}; torch and "
            "torchvision have to be of one version and build (CPU or CUDA)"
        ) from error
    if name.partition(".")[0] not in listed:
        raise DataError(f"{library} has no model {name!r}{nearest(name, listed)}; it has {len(listed)}")
    return module


_FOREIGN = ("pretrained", "weights", "checkpoint", "cache")
"""beginnings of arguments by which a library loads weights itself: from the network, or by unpickling a file"""


def _of_library(library: str, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
    loads = [key for key in kwargs if key.startswith(_FOREIGN)]
    if loads:
        raise DataError(f"{library}:{name} is not made with {', '.join(loads)}: weights come from --weights alone")
    module = _known(library, name)
    try:
        if library == "torchvision":
            return module.models.get_model(name, weights=None, **kwargs)
        return module.create_model(name, pretrained=False, **kwargs)
    except Exception as error:  # arguments that are not the model's
        reason = (str(error).splitlines() or [""])[0][:200]
        how = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise DataError(f"{library}:{name} cannot be made with {how}: {type(error).__name__}: {reason}") from error
