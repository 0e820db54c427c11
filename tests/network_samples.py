"""Networks given as functions, and whether a conversion answers as they do."""

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.nn import to_crossbar
from bitline.nn.layer import CrossbarLayer


class Code(nn.Module):
    """A network whose forward is given as a function."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *x: Tensor) -> object:
        return self.run(self, *x)


def settled(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def plain(converted: nn.Module) -> nn.Module:
    for module in converted.modules():
        if isinstance(module, CrossbarLayer):
            module.mode = "float"
    return converted


def agrees(model: nn.Module, make_chip, *x: Tensor, example: bool = True):
    """Convert, and check that plain layers inside the converted network answer as the network does."""
    given = x if len(x) > 1 else x[0]
    converted, report = to_crossbar(model, chip(make_chip), example=given if example else None)
    plain(converted)
    with torch.no_grad():
        torch.testing.assert_close(converted(*x), model(*x), rtol=1e-4, atol=1e-4)
    return converted, report


def chip(make_chip) -> Chip:
    return make_chip(crossbar={"rows": 64, "cols": 64})


IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


ROWS = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
