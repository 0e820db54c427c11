"""What a chip answers for a network while it trains: batch norms and masks are folded at every pass.

The network keeps its own layers, batch norms and parametrizations (pruning masks); the view holds layers on crossbars
that take their weights from it. Gradients reach the network's parameters through the fold. B. Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2,
with the running statistics of the batch norms as constants.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.errors import ConversionError
from bitline.integer.stored import store
from bitline.network.batch_norm import folded, order_of
from bitline.network.copy import copied, without_parametrizations
from bitline.network.readers import BatchNorm
from bitline.nn.bias_correction import BatchBiasCorrection
from bitline.nn.calibrate import calibrate
from bitline.nn.convert import to_crossbar
from bitline.nn.layer import CrossbarLayer


class ChipView(nn.Module):
    """A network as a chip answers it now.

    Args:
        network: to be looked at; it stays as it is, and its parameters are the ones that learn.
        chip: that answers.
        example: one batch, which shows what follows what.
        mapping: as `bitline.nn.to_crossbar` takes it.
        linear: conversions neither round nor clip, see `bitline.mvm.effective`; for a lossless ADC.
        bias_correction: biases follow the errors of each programmed chip: what a batch norm reads has, over each
            batch, the mean that its statistics say, see `bitline.nn.correct_biases`.

    Raises:
        ConversionError: a batch norm that cannot be folded, whose statistics the view would not follow, or `linear` for
            an ADC that is not lossless.
    """

    def __init__(
        self,
        network: nn.Module,
        chip: Chip,
        example: Tensor,
        *,
        mapping: Mapping[str, str] | None = None,
        linear: bool = False,
        bias_correction: bool = False,
    ) -> None:
        super().__init__()
        if linear and chip.adc.policy != "lossless":
            raise ConversionError(
                f"chip {chip.name} has adc.policy = {chip.adc.policy!r}; only a lossless ADC can be taken as linear"
            )
        plain = without_parametrizations(copied(network)).eval()
        self.on_chip, self.report = to_crossbar(plain, chip, example=example, mapping=mapping, rewrite=False)
        self._stores = chip.weights.bias_bits is not None
        self._source = (network,)  # in a tuple, so that the network is no part of the view
        self._norms = {layer: norm for norm, layer in self.report.folded.items()}
        self._layers = {n: m for n, m in self.on_chip.named_modules() if isinstance(m, CrossbarLayer)}
        for layer in self._layers.values() if linear else ():
            if layer.whole_placement.together > 1:
                raise ConversionError(f"a {layer.strategy} layer shares bitlines between groups; simulate it directly")
            layer.mode = "linear"
        self._follow()
        normed = {self._layers[name]: name for name in self._norms} if bias_correction else {}
        BatchBiasCorrection({layer: partial(self._offset, name) for layer, name in normed.items()})
        self.on_chip.eval()
        if self._stores:
            self.calibrate([example])  # so that a checkpoint finds the grids of stored values in place
        else:
            self.write()

    @property
    def network(self) -> nn.Module:
        """The network that is looked at."""
        return self._source[0]

    def forward(self, x: Tensor) -> Tensor:
        """Answer a batch with the network's weights of this moment."""
        self.write()
        return self.on_chip(x)

    def write(self) -> None:
        """Fold batch norms into weights and hand them to the layers on crossbars, gradients included."""
        for name, layer in self._layers.items():
            source, norm = self.network.get_submodule(name), self._norms.get(name)
            weight, bias = source.weight, source.bias
            if norm is not None:
                module = self.network.get_submodule(norm)
                assert isinstance(module, BatchNorm)
                weight, bias = folded(module, source, order_of(self.network, name))
            object.__setattr__(layer, "weight", weight)
            object.__setattr__(layer, "bias", bias)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set input and ADC ranges to what the network makes of these batches now."""
        self.write()
        batches = list(batches)
        calibrate(self.on_chip, batches)
        first = batches[0].to(next(iter(self._layers.values())).weight.device)
        if self._stores:
            store(self.on_chip, first)

    def _offset(self, name: str) -> Tensor:
        """The mean of a layer's outputs behind its batch norm: the norm's own offset."""
        norm = self.network.get_submodule(self._norms[name])
        assert isinstance(norm, BatchNorm)
        offset = norm.bias if norm.affine else torch.zeros_like(norm.running_mean)  # pyright: ignore[reportArgumentType]
        return offset[order_of(self.network, name)]

    def _follow(self) -> None:
        """Let go of copied parameters: crossbars are written at every pass, everything else has the network's."""
        for name, module in self.on_chip.named_modules():
            if isinstance(module, BatchNorm):
                raise ConversionError(f"batch norm {name} follows no single layer; a chip in training needs it folded")
            if isinstance(module, CrossbarLayer):
                for key in ("weight", "bias"):
                    module._parameters.pop(key, None)  # pyright: ignore[reportPrivateUsage]
            elif own := dict(module.named_parameters(recurse=False)):
                source = self.network.get_submodule(name)
                for key in own:
                    module._parameters[key] = getattr(source, key)  # pyright: ignore[reportPrivateUsage]
