"""Networks from files: a user's own ``FILE.py:NAME``, and the run directory that training leaves.

Weights are read from safetensors only; nothing is unpickled.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from bitline import manifest
from bitline.errors import DataError, nearest
from bitline.files import CONFIG, METRICS, RECORD, RUN_MANIFEST, WEIGHTS, read_json
from bitline.models import build, names
from bitline.models.rewrite import Rewrite, apply


class ModelRecord(BaseModel):
    """What rebuilds a trained network and feeds it: the content of ``model.json``.

    Args:
        model: a name that `bitline.models.build` knows, or ``FILE.py:NAME``.
        kwargs: keyword arguments of `build`; empty for a file.
        data: the data set the network was trained on, as given to `bitline.data.load`.
        title: how to call that data beside a result.
        classes: one name per output.
        channels: of an input image.
        image_size: height and width of an input image, px.
        mean: per channel in [0, 1]; an input is (value / 255 - mean) / std.
        std: as mean.
        rewrites: how the structure differs from what `model` and `kwargs` build, in the order the changes were made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    kwargs: dict[str, Any]
    data: str
    title: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rewrites: tuple[Rewrite, ...] = ()


@dataclass(frozen=True)
class Run:
    """A trained network and what is known of it.

    Args:
        model: with its trained weights, in evaluation mode.
        record: what rebuilds the network and feeds it.
        config: the training configuration, the content of ``config.json``.
        metrics: accuracy and time, the content of ``metrics.json``.
    """

    model: nn.Module
    record: ModelRecord
    config: dict[str, Any]
    metrics: dict[str, Any]


def check_spec(spec: str) -> None:
    """Refuse a model that cannot be built, before anything slow is done.

    Raises:
        DataError: neither a known name nor ``FILE.py:NAME`` with a file that exists.
    """
    if is_file_spec(spec):
        _split(spec)
    elif spec not in names():
        raise DataError(f"model is {spec!r}; allowed: {', '.join(names())}, or FILE.py:NAME{nearest(spec, names())}")


def make(spec: str, **kwargs: Any) -> nn.Module:
    """Build a network from a name (`bitline.models.build`) or from ``FILE.py:NAME``.

    Args:
        spec: for example ``"vgg8"`` or ``"nets/mine.py:Net"``.
        kwargs: for `build`; a file's class or factory is called without arguments.

    Returns:
        The network.

    Raises:
        DataError: an unknown name, or a file that does not hold what was asked for.
    """
    return load_model_file(spec) if is_file_spec(spec) else build(spec, **kwargs)


def is_file_spec(spec: str) -> bool:
    """Tell ``FILE.py:NAME`` from a name."""
    return ".py" in spec or os.sep in spec


def load_model_file(spec: str) -> nn.Module:
    """Run a user's Python file and return the network it defines.

    Args:
        spec: ``FILE.py:NAME`` where NAME is an `nn.Module` class or a function, both called without arguments, or
            an `nn.Module` instance.

    Returns:
        The network.

    Raises:
        DataError: no such file, no such name in it, an error while it runs, or something that is not a network.
    """
    path, name = _split(spec)
    label = f"bitline_user_{path.stem}"
    python = importlib.util.spec_from_file_location(label, path)
    if python is None or python.loader is None:
        raise DataError(f"cannot import {path} as Python")
    module = importlib.util.module_from_spec(python)
    sys.modules[label] = module  # dataclasses and pickles in the file look themselves up there
    sys.path.insert(0, str(path.parent.resolve()))  # so that the file can import its neighbours
    try:
        python.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path} does not run: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise DataError(f"{path} has no {name!r}; it defines {', '.join(known) or 'nothing'}{nearest(name, known)}")
    network: Any = getattr(module, name)
    if not isinstance(network, nn.Module):
        if not callable(network):
            raise DataError(f"{spec} is a {type(network).__name__}; expected an nn.Module, its class, or a function")
        try:
            network = network()
        except Exception as error:
            raise DataError(f"{spec} cannot be called without arguments: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise DataError(f"{spec} gave a {type(network).__name__}; expected an nn.Module")
    return network


def _split(spec: str) -> tuple[Path, str]:
    """Return the file and the name of ``FILE.py:NAME``."""
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name:
        raise DataError(f"model is {spec!r}; expected FILE.py:NAME, or one of {', '.join(names())}")
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"no such file: {file} (model {spec!r})")
    return path, name


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Copy the tensors of a safetensors file into a network, all of them and no others.

    Args:
        model: changed in place.
        path: a ``.safetensors`` file whose names and shapes are those of ``model.state_dict()``.

    Raises:
        DataError: absent or damaged file, another format, or names and shapes that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    path = Path(path)
    if path.suffix != ".safetensors":
        raise DataError(
            f"{path}: weights are read from .safetensors only, because other formats can run code; "
            "convert with safetensors.torch.save_model(model, path)"
        )
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not fit {type(model).__name__}: {reason[:400]}") from error


def load_run(path: Path | str, *, trust_code: bool = False) -> Run:
    """Load the trained network of a run directory.

    Args:
        path: a directory that ``bitline train`` wrote.
        trust_code: run the Python file that the directory names, if its network came from ``FILE.py:NAME``.

    Returns:
        The network in evaluation mode, with its record, configuration and metrics.

    Raises:
        DataError: no such directory, an unfinished run, files that are not as they were written, a damaged file, or a
            network from a file without trust_code.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"no such run directory: {folder}")
    missing = [name for name in (RECORD, WEIGHTS, CONFIG, METRICS) if not (folder / name).is_file()]
    if missing and not (folder / RUN_MANIFEST).is_file():
        raise DataError(
            f"{folder} is not a finished run (no {', '.join(missing)}); finish it with bitline train --resume"
        )
    manifest.check(folder)
    try:
        record = ModelRecord.model_validate(read_json(folder / RECORD))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{folder / RECORD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if is_file_spec(record.model) and not trust_code:
        raise DataError(f"{folder} was trained from {record.model}; loading it runs that file, which needs trust_code")
    model = apply(make(record.model, **record.kwargs), record.rewrites)
    load_weights(model, folder / WEIGHTS)
    return Run(model.eval(), record, read_json(folder / CONFIG), read_json(folder / METRICS))
