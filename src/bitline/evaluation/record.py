"""What an evaluation says: the content of ``evaluation.json``, typed and checked.

Keys that end with a unit (``energy_J``) are in that unit; accuracies are in percent, energies and counts for one image.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from bitline.chip.description import Chip
from bitline.chip.records import Record
from bitline.evaluation import shown
from bitline.evaluation.environment import Environment
from bitline.evaluation.figures import Accuracy, Amount, Metric, Statistics
from bitline.evaluation.result import Result

FORMAT = 2
"""of the files that this version writes; files of format 1 have no number"""

Cause = Literal["quantization", "adc", "programming", "faults", "read_noise"]
"""a departure from the exact product"""

CAUSES: tuple[Cause, ...] = get_args(Cause)
"""in the order that they are added"""

Simulated = Literal["exact", "surrogate"]
"""what answers for a chip: all of its conversions, or one plain product with noise"""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]

_VISIBLE = 0.005  # points that two decimals show


class Data(Record):
    """The images, or other samples, that the accuracy is of."""

    name: str
    split: str
    """empty where the samples are of no split"""
    count: Count


class Loss(Record):
    """What one cause takes, on the same chips as the cause before it."""

    cause: Cause
    points: float
    """how much worse the figure became, mean over the chips; negative: a gain"""
    std: Amount
    """of the points over the chips"""
    accuracy_after: float


@dataclass(frozen=True)
class Step:
    """The accuracy before and after one cause.

    Args:
        cause: one of `CAUSES`; or ``other_chips``, which the loss was not split on, or ``not_attributed`` to any cause.
        before: figure of the metric, %.
        after: likewise.
        points: lost.
        std: of the points over the chips.
    """

    cause: Cause | Literal["other_chips", "not_attributed"]
    before: float
    after: float
    points: float
    std: float = 0.0


class AdcEstimate(Record):
    """The chip under one model of its ADC."""

    energy_J: Amount  # noqa: N815
    area_m2: Amount
    tops_per_watt: Amount
    adc_energy_J: Amount  # noqa: N815
    """of all conversions"""
    adc_area_m2: Amount
    """of all ADCs"""
    conversion_J: Amount  # noqa: N815
    """of one conversion"""


class Cost(Record):
    """What an image costs on the chip; see `bitline.cost.result.Cost`."""

    chip: str
    data: Literal["measured", "assumed", "fixed"]
    """where bit densities come from"""
    energy_J: Amount  # noqa: N815
    latency_s: Amount
    interval_s: Amount
    """between images in a pipeline of layers"""
    area_m2: Amount
    unused_area_m2: Amount
    """of crossbars that hold no layer"""
    leakage_W: Amount  # noqa: N815
    tops: Amount
    """10^12 operations a second, pipelined"""
    tops_per_watt: Amount
    macs: Count
    conversions: Count
    crossbars: Count
    crossbars_built: Count
    tiles: Count
    energy_parts: dict[str, float]
    """J, by component"""
    area_parts: dict[str, float]
    """m2, by component"""
    latency_parts: dict[str, float]
    """s, by component"""
    adc_model: str
    """that the figures hold for"""
    adc_range: dict[str, AdcEstimate]
    """the same chip under every ADC model that covers its bits"""
    notes: tuple[str, ...]
    """what was assumed, scaled or left out"""


class PartialSums(Record):
    """Histogram of a layer's analog sums and the range of its ADCs, level units."""

    bin_low: float
    """lower end of the first bin"""
    bin_width: Annotated[float, Field(gt=0)]
    counts: tuple[Count, ...]
    range_low: float
    range_high: float
    """of several ranges, the envelope"""
    lsb: Amount
    """of several, the median"""
    ranges: Count


class NoSums(Record):
    """A layer that makes no analog sums, since it stays digital."""


class Layer(Record):
    """One layer of the placement."""

    name: str
    kind: str
    rows: Count
    """inputs of one product"""
    cols: Count
    """outputs of one product"""
    groups: Count
    """products"""
    strategy: str
    """how the groups are laid out"""
    row_tiles: Count
    """partial sums of an output, for each input digit and slice"""
    crossbars: Count
    crossbars_removed: Count
    """that are not built, since all of their weights are zero"""
    steps: Count
    """reads of the fullest crossbar for one input digit"""
    utilization: Share
    """cells in use"""
    conversions: Count
    macs: Count
    energy_J: Amount  # noqa: N815
    energy_parts: dict[str, float]
    """J, by component"""
    latency_s: Amount
    area_m2: Amount
    adc_clip_fraction: Share
    """conversions outside the range"""
    partial_sum_sqnr_dB: float | None  # noqa: N815
    """power of the sums over that of their conversion error; none where every conversion is exact"""
    partial_sums: PartialSums | NoSums
    error_parts: dict[Cause, Amount]
    """power of the error that a cause adds to the output, over the power of the output, with exact inputs"""

    @property
    def sums(self) -> PartialSums | None:
        """The histogram, where the layer makes analog sums."""
        return self.partial_sums if isinstance(self.partial_sums, PartialSums) else None


class DigitalOperation(Record):
    """A weighted operation that no crossbar does."""

    name: str
    op: str
    why: str
    macs: Count = 0
    """multiplications of one image, priced in the part ``digital_operations``"""


class Simulation(Record):
    """What answered for the chips, and where that does not hold."""

    kind: Simulated = "exact"
    images: Count = 0
    """training images that the surrogate was measured on"""
    noisy: dict[str, Amount] = Field(default_factory=dict[str, float])
    """layers whose noise is more than their product, on any of the chips: product over noise, in power"""
    overflows: Share = 0.0
    """share of those images that overflow in some layer, on the worst of the chips"""
    changed: Share = 0.0
    """share of those images that conversions move to another class, on the worst of the chips"""
    unlike: float = 0.0
    """how many more the surrogate moves, standard errors, on the chip where it is least like it"""
    exact_layers: tuple[str, ...] = ()
    """layers simulated exactly all the same, since groups share their bitlines"""
    holds: bool = True
    """whether the accuracies may be trusted"""


class Times(Record):
    """How long the evaluation took."""

    calibration_s: Amount
    accuracy_s: Amount
    evaluation_s: Amount
    """all of it"""


class Evaluation(Result):
    """One network on programmed chips: accuracy with spread, loss by cause, cost, layer by layer."""

    format: Literal[2]
    """of the file"""
    bitline: str
    """version that evaluated"""
    commit: str | None
    """of the source; none outside a repository"""
    chip: Chip
    model: str
    ranges: str | None
    """file that input and ADC ranges came from; none: from calibration"""
    data: Data
    seeds: tuple[int, ...]
    """of the programmed chips"""
    bias_correction: bool
    """whether biases were set anew for each programmed chip"""
    metric: Metric = Metric()
    """what the figures under ``accuracy`` are; of right answers where it is left out"""
    calibration: str | None = None
    """what the ranges were set on, in words; none: they came from a file, or it is an earlier version's"""
    accuracy: Accuracy
    causes: tuple[Loss, ...]
    """in the order that they were added"""
    cause_seeds: tuple[int, ...]
    """of the chips on which the loss was split"""
    simulation: Simulation = Simulation()
    """of the accuracies; errors of layers are simulated exactly"""
    cost: Cost
    layers: tuple[Layer, ...]
    """in the order that they run"""
    digital: tuple[DigitalOperation, ...]
    folded: dict[str, str]
    """batch norm -> layer that it went into"""
    statistics: Statistics | None = None
    """none where no chip was programmed, and in files of earlier versions"""
    environment: Environment | None = None
    """none in files of earlier versions"""
    timing: Times

    def _left_out(self) -> set[str]:
        absent = {name for name in ("statistics", "environment", "calibration") if getattr(self, name) is None}
        return absent | ({"metric"} if self.metric.is_accuracy else set())

    def __str__(self) -> str:
        return shown.evaluation(self)

    @model_validator(mode="after")
    def _one_seed_a_chip(self) -> Self:
        if len(self.seeds) != len(self.accuracy.chips):
            raise ValueError(f"{len(self.seeds)} seeds for {len(self.accuracy.chips)} chips")
        statistics = self.accuracy.statistics_of(self.metric.better)
        if self.statistics is not None and statistics != self.statistics:
            raise ValueError(f"statistics are {self.statistics!r}; those of the chips are {statistics!r}")
        for key in ("float", "ideal_integer", "mean", "worst") if self.metric.unit == "%" else ():
            value = getattr(self.accuracy, key)
            if value is not None and not 0 <= value <= 100:
                limit = "less than or equal to 100" if value > 0 else "greater than or equal to 0"
                raise ValueError(f"accuracy.{key} = {value}: input should be {limit}")
        return self

    @property
    def title(self) -> str:
        """What was evaluated."""
        return f"{self.model} on {self.chip.name}"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The causes from the float network to the chips; what they leave unexplained comes last, where it shows."""
        before, steps = self.accuracy.float, list[Step]()
        for loss in self.causes:
            steps.append(Step(loss.cause, before, loss.accuracy_after, loss.points, loss.std))
            before = loss.accuracy_after
        mean = self.accuracy.mean
        if steps and mean is not None and abs(before - mean) >= _VISIBLE:
            whole = len(self.cause_seeds) == len(self.accuracy.chips)
            lost = self.metric.lost(before, mean)
            steps.append(Step("not_attributed" if whole else "other_chips", before, mean, lost))
        return tuple(steps)

    @property
    def active_causes(self) -> tuple[Cause, ...]:
        """Causes that add error to any layer, in the order that they act."""
        return tuple(cause for cause in CAUSES if any(layer.error_parts.get(cause) for layer in self.layers))


class Variant(Record):
    """One network on one chip of a sweep."""

    label: str
    overrides: tuple[str, ...]
    """what was changed of the chip, ``adc.bits=6`` and the like"""
    chips: tuple[float, ...]
    """accuracy of each programmed chip, or what else the metric is"""
    mean: float
    std: Amount
    """points"""
    worst: float
    energy_J: Amount  # noqa: N815
    latency_s: Amount
    area_m2: Amount
    tops_per_watt: Amount
    crossbars: Count
    conversions: Count
