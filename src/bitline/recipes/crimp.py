"""CRIMP: integer-only, crossbar-aligned pruned, fault-tolerant networks from one training process.

S. Huai et al., "CRIMP: Compact & Reliable DNN Inference on In-Memory Processing via Crossbar-Aligned Compression and
Non-ideality Adaptation", ACM TECS 22(5s), 2023, doi:10.1145/3609115. Two phases of zerorize-recover training: kernels,
then crossbars. What the paper leaves open is ours and stated in docs/crimp.md: the split of the sparsity between the
phases, the start from a trained network, and how errors of cells are compensated.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from bitline.chip.cell import LogNormal
from bitline.chip.description import Chip, check
from bitline.chip.formats import Offset
from bitline.chip.variants import with_cells
from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.kernel_group import KernelGroups
from bitline.compress.result import UnchangedLayer
from bitline.data import DataSet
from bitline.errors import ChipError, ConversionError, DataError
from bitline.evaluation import Settings
from bitline.evaluation.on_chip import calibration_batches
from bitline.files import LEFT, write_json
from bitline.models.files import Run
from bitline.models.record import ModelRecord
from bitline.network.trace import MAPPED
from bitline.recipes.records.crimp import Crimp
from bitline.train import TrainConfig
from bitline.train.chip_view import ChipView
from bitline.train.run import train_network
from bitline.train.zerorize import Alternating, Schedule, ZerorizeRecover

Phase = Literal["kernels", "crossbars", "chip"]
RANK_IMAGES, RANK_BATCH = 1024, 32
"""training images, and how many at once, on which the loss without a kernel or a crossbar is estimated"""
STATISTICS_IMAGES = 2048
"""training images, at most, whose statistics batch norms have after a zero epoch"""
REWRITES = 2
"""of a cell where neither recipe nor chip says more; a third one takes away little (docs/adaptation.md)"""
BIAS_BITS = 16
"""of a bias where the chip does not say; it is added to an accumulator of 32 bits"""


def chip_of(chip: Chip, config: Crimp) -> Chip:
    """Return the chip as the recipe uses it: scales that are shifts, integer biases, errors of cells compensated.

    Raises:
        ChipError: what the chip asks for does not go with that.
        DataError: ``simulation = "linear"`` for an ADC that rounds more than to whole levels.
    """
    if config.simulation == "linear" and chip.adc.policy != "lossless":
        raise DataError(
            f"simulation is 'linear', which chip {chip.name} with adc.policy = {chip.adc.policy!r} is not; allowed: "
            "'direct', or adc.policy = 'lossless'"
        )
    weights, inputs, cell, mitigation = chip.weights, chip.inputs, chip.cell, chip.mitigation
    if config.integer:
        scale = {"scale": "power_of_two", "rounding": config.rounding}
        weights = weights.model_copy(update={**scale, "bias_bits": weights.bias_bits or BIAS_BITS})
        inputs = inputs.model_copy(update={"scale": "power_of_two"})
    if config.error_compensation:
        if isinstance(cell.programming, LogNormal):
            cell = cell.model_copy(update={"programming": cell.programming.model_copy(update={"centred": True})})
        if isinstance(weights.encoding, Offset) and weights.encoding.sum == "digital":
            encoding = weights.encoding.model_copy(update={"correction": "measured"})
            weights = weights.model_copy(update={"encoding": encoding})
        mitigation = mitigation.model_copy(update={"nearest": True})
        if config.readback:
            rewrites = max(REWRITES, mitigation.rewrites) if config.rewrites is None else config.rewrites
            mitigation = mitigation.model_copy(update={"readback": True, "rewrites": rewrites})
    changed = chip.model_copy(update={"weights": weights, "inputs": inputs, "cell": cell, "mitigation": mitigation})
    try:
        return check(changed.model_dump(mode="json"), f"chip {chip.name} for recipe crimp")
    except ChipError as error:
        asked = (chip.mitigation.readback, chip.mitigation.rewrites)
        if "readback" not in str(error) or asked == (mitigation.readback, mitigation.rewrites):
            raise
        raise ChipError(
            f"{error}; or let the recipe do without: rewrites = 0 (--rewrites 0), readback = false (--no-readback)"
        ) from error


def keep_zeros(network: nn.Module) -> None:
    """Let weights that are exactly zero, which pruning leaves, learn nothing."""
    for module in network.modules():
        if isinstance(module, MAPPED) and bool((module.weight == 0).any()):
            module.weight.register_hook(partial(_mask_gradient, module.weight.detach() != 0))


def _mask_gradient(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient * mask.to(gradient.device)


def write_left(folder: Path, left: Sequence[UnchangedLayer]) -> None:
    """Note in the folder of a stage what it could not prune, and why."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / LEFT, {"left": [asdict(each) for each in left]})


@dataclass(frozen=True)
class Zerorize:
    """One phase of zerorize-recover training.

    Args:
        phase: what is pruned; ``"chip"``: nothing, and every epoch answers through the chip but for those in which the
            network settles.
        network: plain, with its batch norms; trained in place.
        record: that rebuilds it.
        chip: that zero epochs answer through.
        config: of the recipe.
        data: to train on.
        target: share of this network's weights to remove.
        capped: where there are not so many to remove, remove all there are.
        teacher: whose scores are targets too.
    """

    phase: Phase
    network: nn.Module
    record: ModelRecord
    chip: Chip
    config: Crimp
    data: DataSet
    target: float
    capped: bool = False
    teacher: Run | None = None

    def run(self, train: TrainConfig, *, resumed: bool) -> None:
        """Train and write a run directory, whose network has its pruned weights at zero.

        Checkpoints fall on steps at which another chip is programmed, so that a resume meets the same errors of cells.
        """
        if train.checkpoint_every and self.config.reprogram_every:
            every = self.config.reprogram_every
            train = train.model_copy(update={"checkpoint_every": math.ceil(train.checkpoint_every / every) * every})
        example = next(self.data.batches("train", batch_size=2, limit=2))[0]
        config, network = self.config, self.network
        keep_zeros(network)
        factors: KernelGroups | CrossbarBlocks | None = None
        if self.phase == "kernels":
            factors = KernelGroups(network, example, self.chip, coupled="mean")
        elif self.phase == "crossbars":
            factors = CrossbarBlocks(network, example, self.chip, mapping=config.mapping or None)
        chip = self.chip if config.aware == "psum" else with_cells(self.chip)
        view = ChipView(
            network,
            chip,
            example,
            mapping=config.mapping or None,
            linear=config.simulation == "linear",
            bias_correction=config.error_compensation,
        )
        alternating = Alternating(network, view)
        schedule = Schedule.of(train.epochs, start=config.zero_start, interval=config.zero_interval)
        if factors is None:
            schedule = Schedule(train.epochs, config.settle_epochs, 1)
        elif not config.zerorize:
            schedule = Schedule(train.epochs, train.epochs - 1)
        self._ratio(factors, capped=self.capped)  # refuses before anything is trained
        batches = calibration_batches(self.data, Settings(calibration_images=config.calibration_images))
        most = min(STATISTICS_IMAGES, len(self.data.train_images))
        statistics = calibration_batches(self.data, Settings(calibration_images=most))
        count = min(RANK_IMAGES, len(self.data.train_images))
        ranked = factors is not None and config.rank == "loss"
        labelled = list(self.data.batches("train", batch_size=RANK_BATCH, limit=count)) if ranked else []
        leader = ZerorizeRecover(
            alternating,
            factors,
            schedule,
            ratio=lambda: self._ratio(factors, capped=True),
            batches=batches,
            statistics=statistics,
            reprogram_every=config.reprogram_every,
            seed=train.seed,
            labelled=labelled,
        )

        def finish(trained: nn.Module) -> nn.Module:
            assert isinstance(trained, Alternating)
            if factors is not None:
                write_left(train.run_dir, factors.unchanged)
            if isinstance(factors, CrossbarBlocks):
                factors.fold()
            return trained.network

        train_network(
            alternating,
            self.record,
            train,
            self.data,
            resumed=resumed,
            teacher=self.teacher,
            rates={".factors": train.lr or config.lr},
            callbacks=[leader],
            penalty=leader.penalty(config.l1),
            test_images=config.test_images,
            finish=finish,
        )

    def _ratio(self, factors: KernelGroups | CrossbarBlocks | None, *, capped: bool) -> float:
        """Share of the kernels or crossbars to zero.

        Which crossbar a layer keeps decides how much can go, and changes with their ranks in training; then all that
        can go does.
        """
        if factors is None:
            return 0.0
        try:
            return factors.target(self.target)
        except ConversionError:
            if not capped:
                raise
            return 1.0
