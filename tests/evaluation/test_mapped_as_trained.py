"""A network whose ranges were trained without layers that its code hides is put on a chip as it was then."""

import pytest
import torch
from torch import Tensor, nn

from bitline.evaluation.on_chip import mapped_as_trained
from bitline.nn import calibrate, crossbar_layers, to_crossbar
from bitline.nn.range_training import load_ranges, save_ranges

X = torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(0))


class Attending(nn.Module):
    """Attention of PyTorch, a weight of its own that code multiplies by, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)
        self.mix = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x, self.mix)
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("rewrite", [True, False])
def test_the_layers_are_those_that_the_ranges_are_of(make_chip, tmp_path, caplog, rewrite):
    chip, plain, file = make_chip(adc={"policy": "calibrated"}), Attending().eval(), tmp_path / "ranges.safetensors"
    trained, _ = to_crossbar(plain, chip, example=X, rewrite=rewrite)
    calibrate(trained, [X])
    save_ranges(trained, file)
    answer = trained(X)

    with caplog.at_level("WARNING", "bitline"):
        again, _ = mapped_as_trained(plain, chip, X, None, file)
    assert crossbar_layers(again).keys() == crossbar_layers(trained).keys()
    load_ranges(again, file)
    assert torch.equal(again(X), answer)
    assert len(caplog.messages) == (not rewrite)
    if not rewrite:
        assert "(model)" in caplog.messages[0]
        assert "attention" in caplog.messages[0]
    assert len(crossbar_layers(mapped_as_trained(plain, chip, X, None, None).model)) == 4
