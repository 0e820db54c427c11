"""Taylor importance: how much the loss would change, to first order, if a part of the network were zero.

P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, doi:10.1109/CVPR.2019.01152,
equation 8: parameter times gradient, added up over a part, squared, and the squares added up over mini-batches.
"""

from collections.abc import Generator, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.network.copy import evaluating


def taylor_terms(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], parameters: Sequence[Tensor]
) -> Generator[list[Tensor]]:
    """Yield what each parameter adds to the loss, batch by batch: its value times its gradient, float64, as shaped.

    Args:
        model: in floating point; answers in evaluation mode, and is left as it was, gradients included.
        batches: images and labels.
        parameters: of the model.
    """
    device = parameters[0].device
    with evaluating(model):
        for images, labels in batches:
            with torch.inference_mode(False), torch.enable_grad():
                images, labels = images.to(device).clone(), labels.to(device).clone()  # of inference mode, perhaps
                loss = F.cross_entropy(model(images).float(), labels)
                gradients = torch.autograd.grad(loss, parameters)
            yield [p.detach().double() * g.double() for p, g in zip(parameters, gradients, strict=True)]
