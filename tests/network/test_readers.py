"""Batch norms are folded where every way through a network reads a layer's result through them."""

import pytest
import torch
from torch import Tensor, nn

from bitline.nn import calibrate, to_crossbar


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor, *, normalize: bool = True) -> Tensor:
        y = self.conv(x)
        return self.norm(y) if normalize else y


class Detector(nn.Module):
    """Reads values of what its body answers, once the body is done."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Body(), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.body(x))
        return y[:, :, : 1 + int((y > 1e9).sum())]


class Chooser(Detector):
    """Reads values before, and has its body go another way for them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x, normalize=bool(x.mean() > 0.4)))


class Strict(Detector):
    """Takes no batch alone in training, as detectors do, and says so in words of its own."""

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training, "targets should not be none"
        return self.head(self.body(x))


@pytest.mark.parametrize(("cls", "folded"), [(Detector, True), (Chooser, False), (Strict, True)])
def test_what_a_network_decides_after_a_module_has_ended_does_not_keep_its_norms(cls, folded, make_chip):
    torch.manual_seed(0)
    model, x = cls().eval(), torch.rand(2, 2, 6, 6)
    model.body.norm.running_mean.uniform_(-1, 1)
    converted, report = to_crossbar(model, make_chip(), example=x)
    assert report.folded == ({"body.norm": "body.conv"} if folded else {})
    whys = [d.why for d in report.digital if d.name == "body.norm"]
    assert whys == ([] if folded else ["the network reads values, and may go another way for others"])
    calibrate(converted, [x])
    other = x / 2  # has the chooser take the other way
    y, right = converted(other), model(other)
    assert (y - right).abs().max() < 0.1 * right.abs().max()
