"""What a network's float accuracy says of how it is fed."""

import torch
from torch import nn

from bitline.data import DataSet
from bitline.evaluation.sanity import check_normalization


def data(shift: float) -> DataSet:
    """Two classes of grey images, dark and bright, or one brighter than the other."""
    labels = torch.arange(400) % 2
    images = (labels * 100 + 20).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return DataSet("m", "m", images, labels, images, labels, ("dark", "bright"), (shift,) * 3, (1.0,) * 3)


class Threshold(nn.Module):
    """Tells whether the mean of an image is above a number; wrong says the other class."""

    def __init__(self, at: float, *, wrong: bool = False) -> None:
        super().__init__()
        self.at, self.wrong = at, wrong

    def forward(self, x):
        score = x.mean((1, 2, 3)) - self.at
        scores = torch.stack([-score, score], 1)
        return scores.flip(1) if self.wrong else scores


def test_a_better_normalization_is_named(caplog):
    with caplog.at_level("WARNING"):
        check_normalization(Threshold(0.27), data(0.4), said=True)

    assert "and 100.0 % with --no-normalize" in caplog.text


def test_one_that_is_better_but_no_more_than_chance_is_not(caplog):
    """Classes in another order: all wrong as it is fed, half right when it cannot tell them apart."""
    with caplog.at_level("WARNING"):
        check_normalization(Threshold(0.27, wrong=True), data(0.0), said=True)

    assert "which is no more than chance: other weights, classes in another order" in caplog.text
    assert "with --mean" not in caplog.text
