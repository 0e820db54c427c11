"""How thoroughly a network is evaluated."""

from dataclasses import dataclass

from bitline import seeds
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation.record import Simulated

CALIBRATION_IMAGES = 256
"""by default; all where there are fewer"""


@dataclass(frozen=True)
class Settings:
    """How thoroughly to evaluate.

    Args:
        chips: programmed chips.
        seed: of the first chip; the others follow.
        images: test images, from the first; all where absent.
        batch_size: images at once; no influence on any result but that of the `batch_minmax` policy.
        calibration_images: training images that set the input and ADC ranges; by default all where there are fewer.
        in_turn: fit the ADC ranges of one layer after the other, see `bitline.nn.calibrate`.
        bias_correction: set the biases of each programmed chip on these images, see `bitline.nn.bias_correction`.
        diagnose_images: test images for the layer-by-layer statistics.
        cause_chips: chips on which the loss is split by cause; at most `chips`.
        simulation: ``"surrogate"``: accuracies are those of one plain product with noise, see `bitline.surrogate`,
            whose statistics are measured on the first calibration images.
        workers: processes that ask chips at once; the figures are the same, see `bitline.evaluation.workers`.
        progress: show bars.
    """

    chips: int = 20
    seed: int = 0
    images: int | None = None
    batch_size: int = 64
    calibration_images: int = CALIBRATION_IMAGES
    in_turn: bool = False
    bias_correction: bool = False
    diagnose_images: int = 16
    cause_chips: int = 5
    simulation: Simulated = "exact"
    workers: int = 1
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("chips", 0),
            ("batch_size", 1),
            ("calibration_images", 1),
            ("diagnose_images", 1),
            ("cause_chips", 1),
            ("workers", 1),
        ):
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; allowed: {least} or more")
        seeds.check(self.seed, count=self.chips)

    def check(self, data: DataSet) -> None:
        """Refuse more images than there are.

        Raises:
            DataError: there are not; or none are asked for.
        """
        for name, split, there in (
            ("images", "test", len(data.test_images)),
            ("calibration_images", "training", len(data.train_images)),
        ):
            count = getattr(self, name)
            if (name, count) == ("calibration_images", CALIBRATION_IMAGES):
                continue
            if count is not None and not 1 <= count <= there:
                raise DataError(f"{name} is {count}; allowed: 1 to {there}, the {split} images of {data.title}")

    @property
    def seeds(self) -> list[int]:
        """Seeds of the programmed chips."""
        return list(range(self.seed, self.seed + self.chips))
