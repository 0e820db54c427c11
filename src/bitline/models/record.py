"""What rebuilds a network and feeds it: the record ``model.json`` of a run directory."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from bitline import data as datasets
from bitline.data import DataSet
from bitline.errors import DataError, shown
from bitline.files import CODE, RECORD, read_json, write_json
from bitline.models import MOST, names
from bitline.models.program import SUFFIXES
from bitline.models.rewrite import Rewrite
from bitline.models.source import code_of, copy_code, sha256
from bitline.models.spec import file_of, is_file_spec, is_program, label

log = logging.getLogger(__name__)

Text = Annotated[str, Field(max_length=4096)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Source = Literal["split", "image_column", "label_column"]
MOST_FILES = 1000
"""of code"""
MOST_REWRITES = 4096
"""each takes a walk through the network; the deepest ones in use have some hundred layers"""


class ModelRecord(BaseModel):
    """What rebuilds a trained network and feeds it: the content of ``model.json``.

    Args:
        model: what the network is built from, see `bitline.models.spec.make`; a file lies in the folder ``code`` of the
            run directory, in runs of earlier versions elsewhere.
        kwargs: its keyword arguments.
        data: the data set the network was trained on, as given to `bitline.data.load`.
        source: what else `bitline.data.load` was given; only what was.
        title: how to call that data beside a result.
        classes: one name per output.
        channels: of an input image.
        image_size: height and width of an input image, px.
        mean: per channel in [0, 1]; an input is (value / 255 - mean) / std.
        std: as mean.
        code: SHA-256 of the file of the network and of those beside it that it imports, see
            `bitline.models.source.code_of`; empty where there is none.
        code_sha256: of the file alone, in records of earlier versions; None in those before.
        rewrites: how the structure differs from what `model` and `kwargs` build, in the order the changes were made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: Text
    kwargs: dict[Text, JsonValue]
    data: Text
    source: dict[Source, float | Text] = Field(default_factory=dict[Source, float | str])
    title: Text
    classes: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST["num_classes"])]
    channels: Annotated[int, Field(strict=True, ge=1, le=MOST["in_channels"])]
    image_size: Annotated[int, Field(strict=True, ge=1)]
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    code: Annotated[dict[Text, Sha256], Field(max_length=MOST_FILES)] = Field(default_factory=dict[str, str])
    code_sha256: Sha256 | None = None
    rewrites: Annotated[tuple[Rewrite, ...], Field(max_length=MOST_REWRITES)] = ()

    _root: Path | None = PrivateAttr(None)
    """where the files of `code` lie, without ``code``"""

    @model_validator(mode="after")
    def _fits_its_images(self) -> Self:
        if self.model in names():
            self._check_sizes()
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{name} has {len(getattr(self, name))} numbers for {self.channels} channels")
        for name in self.code:
            path = PurePosixPath(name)
            if path.parts[:1] != (CODE,) or ".." in path.parts or "\\" in name or path.suffix not in (".py", *SUFFIXES):
                raise ValueError(f"code: {shown(name)}; allowed: Python files and programs below {CODE}/")
        if self.code and self._file not in self.code:
            raise ValueError(f"model {shown(self.model)} is not among its files of code, {', '.join(self.code)[:200]}")
        return self

    def _check_sizes(self) -> None:
        """Refuse arguments that `bitline.models.build` does not have."""
        allowed = (*MOST, "width")
        for key, value in self.kwargs.items():
            if key not in allowed:
                raise ValueError(f"kwargs: unknown key {key!r}; allowed: {', '.join(allowed)}")
            if type(value) not in (int, float):
                raise ValueError(f"kwargs.{key} = {shown(value)}; allowed: a number")
        if self.kwargs.get("num_classes", len(self.classes)) != len(self.classes):
            raise ValueError(f"{len(self.classes)} classes for num_classes = {self.kwargs['num_classes']}")

    @model_serializer(mode="wrap")
    def _with_what_is_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        for key in ("code", "code_sha256", "source"):
            if not content.get(key):
                content.pop(key, None)
        return content

    @classmethod
    def of(
        cls, spec: str, kwargs: Mapping[str, Any], data: DataSet, *, source: Mapping[str, Any] | None = None
    ) -> Self:
        """Make the record of a network that is built from `spec`, and takes the images of `data` as these are.

        Raises:
            DataError: no such file, or no Python.
        """
        file, code, root = file_of(spec), {}, None
        if file is not None:
            root = file.path.parent.resolve()
            code = code_of(file.path) if file.name else {f"{CODE}/{file.path.name}": sha256(file.path)}
            spec = f"{CODE}/{file.path.name}" + (f":{file.name}" if file.name else "")
        path = Path(data.name).expanduser()
        record = cls.checked(
            "the record of the network",
            {
                "model": spec,
                "kwargs": dict(kwargs),
                "data": str(path.resolve()) if path.exists() else data.name,
                "source": dict(source or {}),
                "title": data.title,
                "classes": data.classes,
                "channels": data.channels,
                "image_size": data.image_size,
                "mean": data.mean,
                "std": data.std,
                "code": code,
            },
        )
        record._root = root
        return record

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``model.json``.

        Raises:
            DataError: absent, damaged, or not such a record; one line that names the key and the value.
        """
        record = cls.checked(str(path), read_json(path))
        record._root = path.parent / CODE if record.code else None
        return record

    @classmethod
    def checked(cls, where: str, content: Mapping[str, Any]) -> Self:
        """Build the record and say what is wrong in one line that begins with `where`.

        Raises:
            DataError: names the key and the value.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))[:100]
            value = f"{key} = {shown(first['input'])}: " if key else ""
            raise DataError(f"{where}: {value}{first['msg'].removeprefix('Value error, ')}") from error

    def write(self, folder: Path) -> None:
        """Write ``model.json`` and copy the code there.

        Raises:
            DataError: the code is no longer what it was.
            ExportError: it cannot be written.
        """
        self.copy_code(folder)
        write_json(folder / RECORD, self.model_dump(mode="json"))

    def copy_code(self, folder: Path) -> None:
        """Copy the code to a run directory.

        Raises:
            DataError: it is no longer what it was.
            ExportError: it cannot be written.
        """
        if self._root is not None:
            copy_code(self.code, self._root, folder)

    @property
    def spec(self) -> str:
        """What `bitline.models.spec.make` builds the network from on this machine."""
        if self._root is None:
            return self.model
        name = self.model.partition(":")[2]
        return f"{self._root / self._file.removeprefix(f'{CODE}/')}" + (f":{name}" if name else "")

    @property
    def label(self) -> str:
        """What to call the network."""
        return label(self.model)

    @property
    def runs_code(self) -> bool:
        """Whether building the network runs a file."""
        return is_file_spec(self.model)

    @property
    def _file(self) -> str:
        return self.model if is_program(self.model) else self.model.rpartition(":")[0]

    def portable(self) -> Self:
        """Return a record of this version: one of an earlier version names a file that lies elsewhere.

        Raises:
            DataError: no such file.
        """
        if self.code or (file := file_of(self.model)) is None:
            return self
        update = {"model": f"{CODE}/{file.path.name}:{file.name}", "code": code_of(file.path), "code_sha256": None}
        record = self.model_copy(update=update)
        record._root = file.path.parent.resolve()
        return record

    def load(
        self,
        *,
        data: str | None = None,
        data_dir: Path | str | None = None,
        image_size: int | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> DataSet:
        """Load the images of the network, or others, as it takes them.

        Args:
            data: instead of its own.
            data_dir: as `bitline.data.load` takes it.
            image_size: instead of its own, px.
            source: what else `bitline.data.load` is told. What it leaves open is as with its own data: these may only
                lie elsewhere now. Other data that cannot be read so, since they have test images of their own or no
                such column, are read without.

        Raises:
            DataError: they cannot be found or used, or are not such as the network takes.
        """
        told = dict(source or {})
        own = {key: value for key, value in self.source.items() if key not in told}
        read = functools.partial(
            datasets.load, data or self.data, data_dir=data_dir, image_size=image_size or self.image_size, **told
        )
        try:
            loaded = read(**own)
        except DataError as error:
            if data is None and Path(self.data).is_absolute() and not Path(self.data).exists():
                raise DataError(f"{error}; the network was made for it: --data says where it lies now") from error
            if data is None or not own or not Path(data).expanduser().exists():
                raise
            try:
                loaded = read()  # of another kind than its own
            except DataError:
                raise error from None
            own = {}
        if data is not None and own:
            _inform(f"{data} is read as {self.data} was: " + ", ".join(f"{key} {own[key]}" for key in own))
        if data is not None and {**own, **told}.get("split") and Path(data).suffix != Path(self.data).suffix:
            _inform(
                f"{data} is no source like {self.data}, so that its split sets other images apart: where these are the "
                "same images, the network is tested on some that it was trained on"
            )
        return self.fed(loaded)

    def fed(self, data: DataSet) -> DataSet:
        """Return images as the network takes them: normalized by its own mean and deviation, whatever theirs are.

        Classes are those of the network by their names, in whatever order they come. Data that only number them are
        taken in that order, with a warning.

        Raises:
            DataError: images of other channels, another number of classes, or classes of other names.
        """
        if data.channels != self.channels:
            raise DataError(f"{data.title} has {data.channels} channels; the network takes {self.channels}")
        if data.num_classes != len(self.classes):
            raise DataError(f"{data.title} has {data.num_classes} classes; the network tells {len(self.classes)} apart")
        if data.classes != self.classes:
            data = self._by_name(data)
        return data.normalized_by(self.mean, self.std)

    def _by_name(self, data: DataSet) -> DataSet:
        """Return images with their classes numbered as the network has them.

        Raises:
            DataError: classes of other names.
        """
        theirs, own = data.classes, self.classes
        if set(theirs) == set(own) and len(set(own)) == len(own):
            _inform(f"the classes of {data.title} are numbered as the network has them, by their names")
            numbers = torch.tensor([own.index(name) for name in theirs])
            return replace(
                data, classes=own, train_labels=numbers[data.train_labels], test_labels=numbers[data.test_labels]
            )
        counted = tuple(str(number) for number in range(len(own)))
        if counted in (theirs, own):
            which = data.title if theirs == counted else "the network"
            _warn(f"the classes of {which} are numbers, and those of the other have names: taken in their order")
            return data
        only = [sorted(set(one) - set(other)) for one, other in ((theirs, own), (own, theirs))]
        words = [", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") for names in only]
        raise DataError(
            f"the classes of {data.title} are not those of the network: {words[0] or 'none'} there alone, "
            f"{words[1] or 'none'} in the network alone; name the classes (folders) as in its training"
        )


@functools.cache
def _warn(line: str) -> None:
    """Warn once."""
    log.warning(line)


@functools.cache
def _inform(line: str) -> None:
    """Say a line once."""
    log.info(line)
