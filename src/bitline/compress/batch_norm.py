"""A plain network whose batch norms are in the weights of the layers before them."""

import torch
from torch import Tensor, nn

from bitline.compress.result import Report, RewriteResult, UnchangedLayer
from bitline.errors import ConversionError
from bitline.models.rewrite import Rewrite
from bitline.network.batch_norm import fold
from bitline.network.copy import copied
from bitline.network.readers import BatchNorm, neighbours
from bitline.network.trace import MAPPED
from bitline.nn.layer import CrossbarLayer


@torch.no_grad()
def fold_norms(model: nn.Module, example: Tensor) -> RewriteResult:
    """Fold every batch norm that can be into the layer before it, as `to_crossbar` does.

    Args:
        model: trained; it is not changed.
        example: one batch, which shows what follows what.

    Returns:
        The same network of plain modules, its rewrites and a report, which lists the batch norms that stay.

    Raises:
        ConversionError: a network that is on a chip, or that does not take the example.
    """
    model = copied(model).eval()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MAPPED)}
    for name, layer in layers.items():
        if isinstance(layer, CrossbarLayer):
            raise ConversionError(f"layer {name} is on a chip already; rewrite the plain network, then to_crossbar")
    plain = {name: layer for name, layer in layers.items() if type(layer) in MAPPED}
    example = example.to(next(model.parameters(), example).device)
    folded = fold(model, neighbours(model, plain, example), example)
    rewrites = tuple(Rewrite(kind="fold", module=norm, into=layer) for norm, layer in folded.items())
    left = [n for n, m in model.named_modules() if isinstance(m, BatchNorm)]
    report = Report(
        unchanged=tuple(UnchangedLayer(n, "no single layer before it to fold it into") for n in left), folded=folded
    )
    return RewriteResult(model, rewrites, report)
