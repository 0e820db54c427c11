"""What every recipe is told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self, cast

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from bitline.chip.description import Chip
from bitline.chip.files import load as load_chip
from bitline.train.config import Device, Precision, Schedule, StrictConfig, Threads, check_epoch

Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Flag:
    """How the command line calls a field, where its own name does not say it.

    Args:
        name: of the option; None: the field's.
        value: what to write behind it.
    """

    name: str | None = None
    value: str | None = None


def texts(parse: Callable[[list[str]], object]) -> BeforeValidator:
    """Accept a list of texts, as a command line has them, beside the value itself."""

    def read(value: object) -> object:
        return parse([str(text) for text in cast("list[object]", value)]) if isinstance(value, list | tuple) else value

    return BeforeValidator(read)


def _strategies(given: list[str]) -> dict[str, str]:
    from bitline.cost.choose_mapping import parse  # with torch

    return parse(given)


class _Options(StrictConfig):
    """A group of fields."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    heading: ClassVar[str] = ""
    """of these fields on the command line"""


class Subject(_Options):
    """Which network, and the chip that it is to run on."""

    heading: ClassVar = "Network and chip"

    run: Path
    """run directory of the trained network"""
    chip: str = "rram-22nm"
    """a preset (see bitline chips) or a TOML file"""
    overrides: Annotated[tuple[str, ...], Flag("--set", "KEY=VALUE")] = ()
    """any key of the chip, for example adc.bits=4; repeatable"""
    mapping: Annotated[dict[str, str], texts(_strategies), Flag(value="LAYER=STRATEGY")] = Field(
        default_factory=dict[str, str]
    )
    """how a layer, or a kind of layers, lies on crossbars, for example depthwise=strip; repeatable"""


class FloatTraining(_Options):
    """Training in floating point, after a teacher."""

    heading: ClassVar = "Training"

    epochs: Whole = 0
    """of training in floating point"""
    epoch_images: Count | None = None
    """training images in an epoch, others in every one; default: all"""
    lr: Rate = 0.02
    """largest learning rate"""
    schedule: Schedule = "cosine"
    """of the learning rate"""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """of the optimizer; 0: none"""
    weight_decay: Weight = 5e-4
    """on weights of two and more dimensions"""
    batch_size: Count = 128
    """images in a batch"""
    teacher: Path | None = None
    """run directory of the network to distill from; default: RUN"""
    distill: Share = 0.7
    """share of the loss that follows the teacher"""
    temperature: Rate = 4.0
    """that softens the scores of teacher and student"""
    precision: Precision | None = None
    """of training; what the chip answers stays exact. Default: bf16 where the hardware has it"""

    @model_validator(mode="after")
    def _a_batch_in_an_epoch(self) -> Self:
        check_epoch(self.epoch_images, self.batch_size)
        return self


class Evaluation(_Options):
    """How thoroughly the network is measured."""

    heading: ClassVar = "Evaluation"

    chips: Count = 20
    """programmed chips to evaluate; training sees others"""
    chips_before: Count | None = None
    """how many of these the network is evaluated on before the recipe; default: all"""
    images: Count | None = None
    """test images to evaluate, from the first; default: all"""
    calibration_images: Count = 256
    """training images that set ranges"""


class Directory(_Options):
    """Where and how the recipe runs."""

    heading: ClassVar = "Run"

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """of shuffle, augmentation and chips in training"""
    device: Device = "auto"
    """that networks run on; auto: a GPU where there is one"""
    threads: Threads | None = None
    """of the CPU"""
    checkpoint_every: Count | None = None
    """steps between checkpoints, beside the one after each epoch"""
    data: str | None = None
    """where the run's images lie now, if elsewhere; of a --model, its data"""
    data_dir: Path | None = None
    """where cifar10 lies; default: BITLINE_DATA, else the cache folder"""
    out: Path | None = None
    """run directory; default: runs/RECIPE-NAME"""


class Recipe(Subject, FloatTraining, Evaluation, Directory):
    """What every recipe is told; a recipe adds its own, and a field `recipe` with its name."""

    @classmethod
    def name(cls) -> str:
        """What the recipe is called."""
        return str(cls.model_fields["recipe"].default)

    @property
    def run_dir(self) -> Path:
        """Where the result is written."""
        return self.out or Path("runs") / f"{self.name()}-{self.run.resolve().name}"

    @property
    def epochs_on_chip(self) -> int:
        """Epochs of training on the chip."""
        return 0

    @property
    def corrects_biases(self) -> bool:
        """Whether biases are set anew for each programmed chip."""
        return False

    def load_chip(self) -> Chip:
        """Return the chip that the network is to run on."""
        return load_chip(self.chip, self.overrides)
