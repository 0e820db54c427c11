"""What a training run is told; the same record is saved with it and checked at a resume."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bitline.errors import DataError, nearest

Schedule = Literal["linear", "cosine", "onecycle", "steps"]
Optimizer = Literal["sgd", "adam"]
MOST_THREADS = 512
"""of the CPU; each has a stack of its own, and thousands of them end a process without a word"""

Threads = Annotated[int, Field(strict=True, ge=1, le=MOST_THREADS)]
Precision = Literal["bf16-mixed", "32-true"]
Device = Literal["auto", "cpu", "cuda"]


class StrictConfig(BaseModel):
    """A record that names what is wrong with it: the key, the value and those allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    allowed = ", ".join(cls.model_fields)
                    raise DataError(f"unknown key {key!r}; allowed: {allowed}{nearest(str(key), cls.model_fields)}")
        return values

    @classmethod
    def checked(cls, /, **values: Any) -> Self:
        """Build the record and say what is wrong in one line.

        Raises:
            DataError: a key or value that is not allowed; names the key, the value and the rule.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg']}" for e in error.errors()]
            raise DataError("; ".join(problems)) from error


def check_epoch(images: int | None, batch_size: int) -> None:
    """Refuse epochs that are shorter than a batch."""
    if images is not None and images < batch_size:
        raise DataError(f"epoch_images is {images}; allowed: {batch_size}, which batch_size is, or more")


class TrainConfig(StrictConfig):
    """One training run; None means chosen by a rule, and the value chosen is written to ``config.json``.

    Args:
        model: what the network is built from, see `bitline.models.spec.make`.
        model_args: keyword arguments of a network that is none of bitline's own.
        data: as `bitline.data.load` takes it.
        data_dir: as `bitline.data.load` takes it.
        image_size: resize images to this many px.
        split: as `bitline.data.load` takes it, and the two after it.
        image_column: see `split`.
        label_column: see `split`.
        width: multiplies the hidden channels of a named model.
        epochs: passes over the training images.
        epoch_images: how many of them a pass has, others in every epoch; None: all.
        batch_size: images in a batch.
        lr: largest learning rate; None: 0.1 for networks with batch norm, 0.02 for others, 0.001 under ``adam``.
        schedule: of the learning rate, see `bitline.train.module.factor`.
        optimizer: ``sgd`` with Nesterov momentum, or ``adam`` with decoupled decay.
        momentum: of ``sgd``; 0: none.
        weight_decay: on weights of two and more dimensions; never on biases and batch norm.
        label_smoothing: share of the target spread over all classes.
        teacher: run directory of a trained network whose scores are targets too; None: labels alone.
        distill: share of the loss that follows the teacher.
        temperature: that softens the scores of teacher and student.
        flip: mirror half of the training images; None: only those with three channels.
        crop: largest random shift, px; None: a sixteenth of the image, 2 px at 32.
        cutout: side of the square cut out of each training image, px; 0: none.
        init: start from the trained weights of this run directory; None: from random ones.
        seed: of the weights, the shuffle and the augmentation.
        precision: None: ``bf16-mixed`` where the processor computes in bf16, else ``32-true``.
        device: the torch device; ``"auto"``: a GPU where there is one.
        threads: of the CPU; None: as PyTorch finds them.
        test_every: epochs from one look at the test images to the next; 0: only when the run ends.
        checkpoint_every: steps between checkpoints, beside the one at the end of each epoch.
        out: run directory; None: ``runs/<model>-<data>``.
    """

    model: str
    model_args: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    data: str = "cifar10"
    data_dir: Path | None = None
    image_size: Annotated[int, Field(ge=1)] | None = None
    split: Annotated[float, Field(gt=0, lt=1)] | None = None
    image_column: str | None = None
    label_column: str | None = None
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    epochs: Annotated[int, Field(ge=1)] = 18
    epoch_images: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 128
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    schedule: Schedule = "linear"
    optimizer: Optimizer = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    teacher: Path | None = None
    distill: Annotated[float, Field(ge=0, le=1)] = 0.7
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    flip: bool | None = None
    crop: Annotated[int, Field(ge=0)] | None = None
    cutout: Annotated[int, Field(ge=0)] = 0
    init: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Precision | None = None
    device: Device = "auto"
    threads: Threads | None = None
    test_every: Annotated[int, Field(ge=0)] = 1
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    out: Path | None = None

    @model_validator(mode="after")
    def _a_batch_in_an_epoch(self) -> Self:
        check_epoch(self.epoch_images, self.batch_size)
        return self

    @property
    def source(self) -> dict[str, Any]:
        """What `bitline.data.load` is told beside name, place and size; only what is given."""
        told = {key: getattr(self, key) for key in ("split", "image_column", "label_column")}
        return {key: value for key, value in told.items() if value is not None}

    @property
    def run_dir(self) -> Path:
        """Where the run is written."""
        if self.out is not None:
            return self.out
        return Path("runs") / run_name(self.model, self.data)


checked = TrainConfig.checked


def run_name(model: str, data: str) -> str:
    """Return what to call the run of a model and its data."""
    return f"{_plain(model.rpartition(':')[2])}-{_plain(data)}"


def _plain(text: str) -> str:
    """Return the last part of a path or hub name as a folder name."""
    name = Path(text).stem or "run"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
