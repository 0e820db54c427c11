"""Training with the chip in the forward path: crossbars answer, gradients pass straight through."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from bitline.chip.description import Chip
from bitline.chip.variants import lossless, with_cells
from bitline.compress import fold_norms
from bitline.data import DataSet
from bitline.errors import DataError
from bitline.evaluation import Settings
from bitline.evaluation.on_chip import calibration_batches, surrogate_images
from bitline.files import CHIP, RANGES, write_json
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place
from bitline.models.files import Run
from bitline.models.record import ModelRecord
from bitline.nn import calibrate, crossbar_layers, to_crossbar
from bitline.nn.range_training import keep_ranges, save_ranges, train_ranges
from bitline.recipes.records.on_chip import RangeTraining
from bitline.train import TrainConfig
from bitline.train.bound import BoundedGradient
from bitline.train.reprogram import Reprogram
from bitline.train.run import train_network
from bitline.train.surrogate import SurrogateEpochs


@dataclass(frozen=True)
class OnChipTraining:
    """What is trained on which chip.

    Args:
        network: plain, in evaluation mode; it is not changed.
        record: that rebuilds it.
        chip: that it shall run on afterwards.
        config: of the recipe.
        data: to train on.
        teacher: whose scores are targets too.
    """

    network: nn.Module
    record: ModelRecord
    chip: Chip
    config: RangeTraining
    data: DataSet
    teacher: Run | None = None

    @property
    def training_chip(self) -> Chip:
        """The chip in the forward path."""
        if self.config.aware == "quantization":
            return lossless(with_cells(self.chip))
        adc = self.chip.adc
        granularity = self.config.granularity or adc.granularity
        adc = adc.model_copy(update={"policy": "trained", "granularity": granularity, "range": None})
        return self.chip.model_copy(update={"adc": adc})

    def run(self, train: TrainConfig, *, resumed: bool) -> None:
        """Train and write a run directory: the network as plain layers without batch norms, and its ADC ranges."""
        example = next(self.data.batches("test", batch_size=2, limit=2))[0]
        folded = fold_norms(self.network, example)
        plain = folded.model.eval()
        record = self.record.model_copy(update={"rewrites": (*self.record.rewrites, *folded.rewrites)})
        mapping = self.config.mapping or None
        model, _ = to_crossbar(plain, self.training_chip, example=example, mapping=mapping, rewrite=False)
        settings = Settings(calibration_images=self.config.calibration_images)
        aware = self.config.aware == "psum"
        calibrate(model, calibration_batches(self.data, settings), in_turn=aware)
        if aware:
            train_ranges(model)
            for layer in crossbar_layers(model).values():
                layer.tiles_a_step = self.config.tiles_a_step

        def finish(trained: nn.Module) -> nn.Module:
            if aware:
                keep_ranges(trained)
                save_ranges(trained, train.run_dir / RANGES)
                write_json(train.run_dir / CHIP, self.training_chip.model_dump(mode="json"))
            return _plain_again(trained, plain)

        train_network(
            model,
            record,
            train,
            self.data,
            resumed=resumed,
            teacher=self.teacher,
            rates={"log2_lsb": self.config.range_lr},
            callbacks=[
                Reprogram(model, every=self.config.reprogram_every if aware else 0, seed=train.seed),
                *([self._surrogate(model, train)] if aware and self.config.simulation == "surrogate" else []),
                BoundedGradient(),
            ],
            test_images=self.config.test_images,
            finish=finish,
        )

    def _surrogate(self, model: nn.Module, train: TrainConfig) -> SurrogateEpochs:
        """What answers in the epochs that are not simulated exactly."""
        config = self.config
        images = surrogate_images(self.data, Settings(calibration_images=config.calibration_images))
        return SurrogateEpochs(
            model,
            images,
            epochs=train.epochs - config.epochs_exact,
            programmed=bool(config.reprogram_every),
            seed=train.seed,
        )


def check_tiles(config: RangeTraining, matmuls: Iterable[Matmul], chip: Chip) -> None:
    """Refuse a number of row tiles in a step that no layer has more of: all would be converted.

    Args:
        config: of the recipe.
        matmuls: layers of the network that is trained.
        chip: that it is trained on.

    Raises:
        DataError: names the number and the most that does something.
    """
    some = config.tiles_a_step
    if some is None or not config.epochs_on_chip:
        return
    layers = place(matmuls, chip, config.mapping or None).layers
    most = max((layer.row_tiles for layer in layers if layer.together == 1), default=0)
    if some >= most:
        allowed = f"allowed: 1 to {most - 1}, or leave it out" if most > 1 else "leave it out"
        raise DataError(f"tiles_a_step is {some}; no layer has more than {most} row tiles on {chip.name}: {allowed}")


def what_answers(config: RangeTraining) -> str:
    """Say which epochs on the chip a surrogate answers; nothing where all are simulated exactly."""
    surrogate = config.epochs_on_chip - config.epochs_exact
    if config.simulation == "exact" or config.aware != "psum":
        return ""
    untrained = "none exactly, so that ADC ranges stay as calibrated before"
    exact = f"the last {config.epochs_exact} exactly" if config.epochs_exact else untrained
    return f", the first {surrogate} by the surrogate, {exact}"


@torch.no_grad()
def _plain_again(trained: nn.Module, plain: nn.Module) -> nn.Module:
    """Copy what was trained on the chip into the network as it was before its conversion."""
    own, new = plain.state_dict(), trained.state_dict()
    for name, tensor in own.items():
        tensor.copy_(new[name])
    assert crossbar_layers(trained)
    return plain
