"""What a recipe is told; the same record is saved with its run and checked at a resume."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from bitline.chip.description import Chip
from bitline.chip.files import load as load_chip
from bitline.chip.mitigation import MOST_REWRITES
from bitline.errors import DataError, nearest
from bitline.train.config import Precision, StrictConfig, check_epoch
from bitline.train.config import Schedule as LearningRates

RecipeName = Literal["conventional", "quantization-aware", "psum-aware", "group", "separable", "mixed", "auto", "crimp"]
Structure = Literal["dense", "group", "separable", "mixed"]
Aware = Literal["none", "quantization", "psum"]
Varied = Literal["structure", "height", "adc_bits", "columns_per_adc", "encoding", "input_bits", "weight_bits"]
Granularity = Literal["layer", "slice", "slice_digit", "column"]
_STRUCTURES: dict[str, Structure] = {"group": "group", "separable": "separable", "mixed": "mixed"}
Objective = Literal["accuracy", "energy", "area", "latency"]
_AWARE: dict[str, Aware] = {"conventional": "none", "quantization-aware": "quantization"}
_OF: dict[str, tuple[RecipeName, ...]] = {
    **dict.fromkeys(("row_tiles", "mix", "split_linear"), ("group",)),
    "multiplier": ("separable",),
    "assignment": ("group", "mixed", "auto"),
    "refit": ("group", "separable", "mixed", "auto"),
    "layers": ("mixed",),
    **dict.fromkeys(("sparsity", "kernel_share", "kernel_groups", "crossbar_blocks", "rank"), ("crimp",)),
    **dict.fromkeys(("l1", "zero_start", "zero_interval", "zerorize", "settle_epochs"), ("crimp",)),
    **dict.fromkeys(("integer", "rounding", "compensate", "readback", "rewrites", "simulation"), ("crimp",)),
    **dict.fromkeys(("objectives", "vary", "trials", "front", "proxy_steps", "proxy_batch", "proxy_images"), ("auto",)),
}
"""which recipes use what"""


class RecipeConfig(StrictConfig):
    """One recipe on one trained network; None means the recipe's own value.

    Args:
        run: run directory of the trained network.
        teacher: run directory of the network to distill from; None: that of `run`.
        recipe: ``conventional`` (float training alone), ``quantization-aware`` (on the chip with a lossless ADC),
            ``psum-aware`` (on the chip, tiles in the forward path, ADC ranges trained), ``group`` or ``separable``
            (another structure, then as ``psum-aware``), ``mixed`` (the structure of each layer in `layers`), ``auto``
            (a search for structures and chips, whose front is then trained as ``mixed`` or, without a new structure,
            ``psum-aware``), ``crimp`` (integer-only,
            pruned by kernels and crossbars, adapted to the cells, in zerorize-recover training).
        chip: a preset or a TOML file.
        overrides: of the chip, ``adc.bits=4`` and the like.
        aware: what training on the chip sees: ``none``, ``quantization``, ``psum``.
        granularity: of the trained ADC ranges; None: the chip's.
        epochs: of float training, and of both phases of ``crimp`` together; None: 10 for a new structure, 20 for
            ``crimp``, 0 for psum-aware and quantization-aware.
        chip_epochs: of training on the chip; None: 2, and 0 for conventional.
        settle_epochs: of ``crimp``, after pruning and before those on the chip: plain training that keeps zeros.
        epoch_images: training images in an epoch, others in every one; None: all.
        lr: largest learning rate of float training and of zerorize-recover training.
        schedule: of these, see `bitline.train.module.factor`.
        momentum: of these; 0: none.
        weight_decay: of these, on weights of two and more dimensions.
        chip_lr: largest learning rate of weights on the chip, under Adam.
        range_lr: the same of the logarithm of ADC steps.
        batch_size: images in a batch.
        distill: share of the loss that follows the network of `run`.
        temperature: that softens scores.
        reprogram_every: steps between chips while training on the chip; 0: ideal cells.
        row_tiles: partial sums a group may need.
        assignment: of channels to groups: ``best``, ``diagonal`` or ``shuffle``.
        refit: start from weights fitted to what the dense layers answer.
        mix: a 1x1 convolution behind each group convolution.
        split_linear: split the inputs of hidden linear layers too.
        multiplier: maps for each output channel of ``separable``.
        layers: of ``mixed``: layer name -> one of `bitline.recipes.structure.CHOICES`.
        mapping: strategies, layer name or kind -> strategy.
        sparsity: share of the weights that ``crimp`` removes; those of `run` that are zero already count as removed.
        kernel_share: how much of that the kernels take: they leave ``(1 - sparsity) ** kernel_share`` of the weights.
        rank: what decides which kernels and crossbars go: ``loss``: how much the loss would gain without them, to first
            order, for every weight saved or every crossbar; ``factor``: their factors' magnitudes, as published.
        l1: weight of the L1 norm of the factors in the loss.
        zero_start: share of a phase's epochs before the first zero epoch.
        zero_interval: epochs from one zero epoch to the next.
        kernel_groups: prune kernels, in the first phase.
        crossbar_blocks: prune crossbars, in the second phase.
        zerorize: zero and recover; else a phase trains plainly and prunes once, in its last epoch.
        integer: scales that are powers of two and biases of integers, so that no floating point is left.
        rounding: of the scales of weights to powers of two, with `integer`: ``nearest`` uses more of the levels, so
            that errors of cells weigh less; ``up`` clips no weight, which is better where they err little.
        compensate: programming error divided by its mean, the digital sum corrected for the mean error of cells,
            weights with stuck cells at the nearest value that is left to them, and biases set anew for each chip.
        readback: the same by writing the cells of a weight in turn, so that they make up for programming errors too;
            needs `compensate`.
        rewrites: how often a cell may be written again where that pays, with `readback`; None: twice, or what the chip
            says, if more.
        simulation: of the chip in training: ``linear`` has every error of cells but no rounding in the ADC, which is
            small for one that is lossless; ``direct`` has both.
        objectives: of ``auto``.
        vary: what the trials of ``auto`` choose: the structure of each layer that needs partial sums, the height of
            crossbars, bits of an ADC and columns that share one, how cells hold a weight, bits of inputs and weights.
        trials: of ``auto``.
        front: trials of the front that ``auto`` trains.
        proxy_steps: steps of distillation before a trial is measured.
        proxy_batch: images in a batch of these.
        proxy_images: training images that a trial is measured on.
        structure_images: training images that new structures are fitted on.
        test_images: tested after each epoch on the chip.
        chips: programmed chips that are evaluated; training sees others.
        chips_before: how many of these the network is evaluated on before the recipe; None: all of them.
        images: test images that are evaluated; None: all.
        calibration_images: training images that set ranges.
        seed: of shuffle, augmentation and chips in training.
        precision: of float training, and of crimp where its simulation is linear; None: the machine's best.
        threads: of the CPU.
        checkpoint_every: steps between checkpoints.
        data_dir: as `bitline.data.load` takes it.
        out: run directory; None: ``runs/<recipe>-<name of run>``.
    """

    run: Path
    recipe: RecipeName
    teacher: Path | None = None
    chip: str = "rram-22nm"
    overrides: tuple[str, ...] = ()
    aware: Aware | None = None
    granularity: Granularity | None = None
    epochs: Annotated[int, Field(ge=0)] | None = None
    chip_epochs: Annotated[int, Field(ge=0)] | None = None
    settle_epochs: Annotated[int, Field(ge=0)] = 0
    epoch_images: Annotated[int, Field(ge=1)] | None = None
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.02
    schedule: LearningRates = "cosine"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    chip_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-5
    range_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-3
    batch_size: Annotated[int, Field(ge=1)] = 128
    distill: Annotated[float, Field(ge=0, le=1)] = 0.7
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    reprogram_every: Annotated[int, Field(ge=0)] = 1
    row_tiles: Annotated[int, Field(ge=1)] = 1
    assignment: Literal["best", "diagonal", "shuffle"] = "best"
    refit: bool = True
    mix: bool = False
    split_linear: bool = False
    multiplier: Annotated[int, Field(ge=1)] = 1
    layers: dict[str, str] = Field(default_factory=dict[str, str])
    mapping: dict[str, str] = Field(default_factory=dict[str, str])
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.5
    kernel_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    rank: Literal["loss", "factor"] = "loss"
    l1: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    zero_start: Annotated[float, Field(ge=0, lt=1)] = 0.5
    zero_interval: Annotated[int, Field(ge=1)] = 2
    kernel_groups: bool = True
    crossbar_blocks: bool = True
    zerorize: bool = True
    integer: bool = True
    rounding: Literal["nearest", "up"] = "nearest"
    compensate: bool = True
    readback: bool = True
    rewrites: Annotated[int, Field(ge=0, le=MOST_REWRITES)] | None = None
    simulation: Literal["linear", "direct"] = "linear"
    objectives: tuple[Objective, ...] = ("accuracy", "energy", "area")
    vary: Annotated[tuple[Varied, ...], Field(min_length=1)] = (
        "structure",
        "height",
        "adc_bits",
        "columns_per_adc",
        "encoding",
    )
    trials: Annotated[int, Field(ge=1)] = 40
    front: Annotated[int, Field(ge=1)] = 4
    proxy_steps: Annotated[int, Field(ge=0)] = 30
    proxy_batch: Annotated[int, Field(ge=1)] = 64
    proxy_images: Annotated[int, Field(ge=1)] = 256
    structure_images: Annotated[int, Field(ge=1)] = 512
    test_images: Annotated[int, Field(ge=1)] = 500
    chips: Annotated[int, Field(ge=1)] = 20
    chips_before: Annotated[int, Field(ge=1)] | None = None
    images: Annotated[int, Field(ge=1)] | None = None
    calibration_images: Annotated[int, Field(ge=1)] = 256
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Precision | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    data_dir: Path | None = None
    out: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_recipe(cls, values: Any) -> Any:
        names = get_args(RecipeName)
        recipe = values.get("recipe") if isinstance(values, dict) else None
        if recipe not in names:
            raise DataError(f"recipe is {recipe!r}; allowed: {', '.join(names)}{nearest(str(recipe), names)}")
        return values

    @field_validator("vary", mode="before")
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        known = get_args(Varied)
        for value in values:
            if value not in known:
                raise DataError(f"vary is {value!r}; allowed: {', '.join(known)}{nearest(str(value), known)}")
        return tuple(key for key in known if key in values)

    @model_validator(mode="after")
    def _nothing_for_nothing(self) -> Self:
        check_epoch(self.epoch_images, self.batch_size)
        if self.rounding != _default("rounding") and not self.integer:
            raise DataError(
                f"rounding is {self.rounding!r}, which needs integer; scales are no powers of two without it"
            )
        if self.rewrites is not None and not (self.readback and self.compensate):
            raise DataError(
                f"rewrites is {self.rewrites}, which needs readback and compensate: whether to write a cell again is "
                "decided by reading it back; a chip that is read back says itself how often (mitigation.rewrites)"
            )
        for key, recipes in _OF.items():
            value = getattr(self, key)
            if value != _default(key) and self.recipe not in recipes:
                raise DataError(
                    f"{key} is {value!r}, which recipe {self.recipe} does not use: it is of {', '.join(recipes)}"
                )
        if self.recipe == "crimp" and self.float_epochs < self.phases:
            raise DataError(f"epochs is {self.float_epochs}; crimp has {self.phases} phases of an epoch or more each")
        if self.recipe == "crimp" and self.float_epochs and not self.phases:
            raise DataError(
                f"epochs is {self.float_epochs}, but kernel_groups and crossbar_blocks are both off: crimp has no "
                "phase to spend them in, only settle_epochs and chip_epochs"
            )
        if self.recipe == "mixed" and not self.layers:
            raise DataError("recipe mixed needs layers, for example features.conv6.0=group:2")
        return self

    @property
    def run_dir(self) -> Path:
        """Where the result is written."""
        return self.out or Path("runs") / f"{self.recipe}-{self.run.resolve().name}"

    @property
    def structure(self) -> Structure:
        """What becomes of the layers."""
        return _STRUCTURES.get(self.recipe, "dense")

    @property
    def awareness(self) -> Aware:
        """What training on the chip sees."""
        return self.aware or _AWARE.get(self.recipe, "psum")

    @property
    def phases(self) -> int:
        """Phases of crimp that prune; without any, a network is adapted to the chip as it is."""
        return self.kernel_groups + self.crossbar_blocks

    @property
    def float_epochs(self) -> int:
        """Epochs of float training."""
        fresh = 20 if self.recipe == "crimp" and self.phases else 0
        if self.structure != "dense" or self.recipe == "conventional":
            fresh = 10
        return fresh if self.epochs is None else self.epochs

    @property
    def epochs_on_chip(self) -> int:
        """Epochs of training on the chip."""
        if self.awareness == "none":
            return 0
        return 2 if self.chip_epochs is None else self.chip_epochs

    @property
    def corrects_biases(self) -> bool:
        """Whether biases are set anew for each programmed chip."""
        return self.recipe == "crimp" and self.compensate

    def load_chip(self) -> Chip:
        """Return the chip that the network is to run on."""
        return load_chip(self.chip, self.overrides)


checked = RecipeConfig.checked


def used_by(config: RecipeConfig, recipe: RecipeName, **changes: Any) -> RecipeConfig:
    """Return the configuration of another recipe; what that one does not use goes back to its default."""
    unused = {key: _default(key) for key, recipes in _OF.items() if recipe not in recipes}
    return config.model_copy(update={**unused, **changes, "recipe": recipe})


def _default(key: str) -> Any:
    return RecipeConfig.model_fields[key].get_default(call_default_factory=True)
