"""Networks from files: a user's own ``FILE.py:NAME``, and the run directory that training leaves.

Weights are read from safetensors only; nothing is unpickled.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictFloat,
    StrictInt,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import nn

from bitline import manifest
from bitline.data.dataset import DataSet
from bitline.errors import DataError, nearest, shown
from bitline.files import CONFIG, METRICS, RECIPE, RECORD, RUN_MANIFEST, WEIGHTS, read_json, write_json
from bitline.models import MOST, build, names
from bitline.models.rewrite import Rewrite, apply
from bitline.models.weights import load_weights

log = logging.getLogger(__name__)

Text = Annotated[str, Field(max_length=4096)]
MOST_REWRITES = 4096
"""each takes a walk through the network; the deepest ones in use have some hundred layers"""


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
        code_sha256: of the file of ``FILE.py:NAME``, see `code_sha256`; None for a name, and in records of earlier
            versions.
        rewrites: how the structure differs from what `model` and `kwargs` build, in the order the changes were made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Text
    kwargs: dict[str, StrictInt | StrictFloat]
    data: Text
    title: Text
    classes: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST["num_classes"])]
    channels: Annotated[int, Field(strict=True, ge=1, le=MOST["in_channels"])]
    image_size: Annotated[int, Field(strict=True, ge=1)]
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    code_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    rewrites: Annotated[tuple[Rewrite, ...], Field(max_length=MOST_REWRITES)] = ()

    @model_validator(mode="after")
    def _fits_its_images(self) -> Self:
        allowed = () if is_file_spec(self.model) else (*MOST, "width")
        for key in self.kwargs:
            if key not in allowed:
                raise ValueError(f"kwargs: unknown key {key!r}; allowed: {', '.join(allowed) or 'none'}")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers for {self.channels} channels")
        if self.kwargs.get("num_classes", len(self.classes)) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes for num_classes = {self.kwargs['num_classes']}")
        return self

    @model_serializer(mode="wrap")
    def _with_what_is_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        if self.code_sha256 is None:
            content.pop("code_sha256", None)
        return content

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``model.json``.

        Raises:
            DataError: absent, damaged, or not such a record; one line that names the key and the value.
        """
        content = read_json(path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))[:100]
            value = f"{key} = {shown(first['input'])}: " if key else ""
            raise DataError(f"{path}: {value}{first['msg'].removeprefix('Value error, ')}") from error

    def fed(self, data: DataSet) -> DataSet:
        """Return images as the network takes them: normalized by its own mean and deviation, whatever theirs are.

        Classes that have other names are taken in their order, with a warning.

        Raises:
            DataError: images of other channels, another number of classes, or the same classes in another order.
        """
        if data.channels != self.channels:
            raise DataError(f"{data.title} has {data.channels} channels; the network takes {self.channels}")
        if data.num_classes != len(self.classes):
            raise DataError(f"{data.title} has {data.num_classes} classes; the network tells {len(self.classes)} apart")
        if data.classes != self.classes:
            first = next(i for i, pair in enumerate(zip(self.classes, data.classes, strict=True)) if pair[0] != pair[1])
            other = (
                f"class {first} of {data.title} is {data.classes[first]!r}; that of the network {self.classes[first]!r}"
            )
            if set(data.classes) == set(self.classes):
                raise DataError(f"{other}: the same classes in another order")
            _warn(f"{other}: they are taken for the same")
        return data.normalized_by(self.mean, self.std)


@functools.cache
def _inform(line: str) -> None:
    """Say a line once."""
    log.info(line)


@functools.cache
def _warn(line: str) -> None:
    """Warn once."""
    log.warning(line)


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


def code_sha256(spec: str) -> str | None:
    """Return the SHA-256 of the file of ``FILE.py:NAME``, whatever its ends of lines are; None for a name.

    Raises:
        DataError: no such file.
    """
    if not is_file_spec(spec):
        return None
    return hashlib.sha256(_split(spec)[0].read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def accept(folder: Path) -> dict[str, str]:
    """Take a run directory as it is now, and the Python file that it names: write down anew what they are.

    Returns:
        What was not as it was written, by file; empty where there was nothing to accept.

    Raises:
        DataError: no run directory, or one of a run that is not finished.
    """
    found = manifest.accept(folder)
    record = ModelRecord.read(folder / RECORD)
    if (code := code_sha256(record.model)) != record.code_sha256:
        what = "was not written down" if record.code_sha256 is None else "was changed"
        write_json(folder / RECORD, record.model_copy(update={"code_sha256": code}).model_dump(mode="json"))
        manifest.accept(folder)
        found |= {_file(record): what}
    return found


def _check_code(folder: Path, record: ModelRecord) -> None:
    """Refuse a Python file that is not the one that a network was trained from; say so where that is not known."""
    code = code_sha256(record.model)
    if code is not None and record.code_sha256 is None:
        _inform(f"{folder} is of an earlier version, which did not write down what is in {_file(record)}: whether it "
                "is the same file is not checked")  # fmt: skip
    elif code is not None and code != record.code_sha256:
        raise DataError(
            f"{_file(record)} is not as it was when {folder} was trained from it; put back what was there, or take it "
            f"as it is with: bitline accept {folder}"
        )


def _file(record: ModelRecord) -> str:
    return record.model.rpartition(":")[0]


def load_run(path: Path | str, *, trust_code: bool = False) -> Run:
    """Load the trained network of a run directory.

    Args:
        path: a directory that ``bitline train`` wrote.
        trust_code: run the Python file that the directory names, if its network came from ``FILE.py:NAME``.

    Returns:
        The network in evaluation mode, with its record, configuration and metrics.

    Raises:
        DataError: no such directory, an unfinished run, files that are not as they were written, a damaged file, or a
            network from a file without trust_code or from one that was changed.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"no such run directory: {folder}")
    missing = [name for name in (RECORD, WEIGHTS, CONFIG, METRICS) if not (folder / name).is_file()]
    if missing and not (folder / RUN_MANIFEST).is_file():
        raise DataError(
            f"{folder} is not a finished run (no {', '.join(missing)}); finish it with "
            f"{'bitline optimize' if (folder / RECIPE).is_file() else 'bitline train'} --resume"
        )
    manifest.check(folder)
    record = ModelRecord.read(folder / RECORD)
    if is_file_spec(record.model) and not trust_code:
        raise DataError(
            f"{folder} was trained from {record.model}; loading it runs that file: add --trust-code "
            "(trust_code=True in Python) if you trust what it says"
        )
    _check_code(folder, record)
    model = apply(make(record.model, **record.kwargs), record.rewrites)
    load_weights(model, folder / WEIGHTS)
    return Run(model.eval(), record, read_json(folder / CONFIG), read_json(folder / METRICS))
