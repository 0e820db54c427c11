"""benchmarks/coverage.py counts and quantizes by itself; its numbers are those that one computes by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import coverage_affine
    import coverage_counts
    import coverage_one

    return SimpleNamespace(affine=coverage_affine, counts=coverage_counts, one=coverage_one)


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(6, 2, 2, stride=2)
        self.out = nn.Linear(2 * 8 * 8, 5)
        self.lstm = nn.LSTM(5, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(self.up(self.conv(x)).flatten(1))
        z, _ = self.lstm(y.unsqueeze(1))
        return F.scaled_dot_product_attention(z, z, z)


def test_multiplications_are_counted_inside_and_outside_of_layers(coverage: Any) -> None:
    net = _Mixed().eval()
    x = torch.randn(1, 4, 4, 4)
    conv, up, out = 16 * 6 * 2 * 9, 16 * 6 * 2 * 4, 128 * 5
    lstm, attention = 12 * (5 + 3), 3 + 3
    counted = coverage.counts.count(net, lambda: net(x), [net.conv, net.out])
    assert (counted.inside, counted.outside) == (conv + out, up + lstm + attention)
    assert counted.weighted == up + lstm


def test_multi_head_attention_is_counted_by_its_products(coverage: Any) -> None:
    net = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.randn(1, 5, 8)
    counted = coverage.counts.count(net, lambda: net(x, x, x))
    assert (counted.inside, counted.outside) == (0, 5 * 8 * (24 + 8) + 2 * 2 * 5 * 5 * 4)
    assert counted.weighted == 5 * 8 * (24 + 8)


def test_an_input_is_rounded_to_256_numbers_one_of_which_is_zero(coverage: Any) -> None:
    x = torch.tensor([-1.0, 0.0, 0.004, 1.0, 1.55, 9.0])
    found = coverage.affine.affine(x, -1.0, 1.55)  # steps of 0.01
    assert torch.allclose(found, torch.tensor([-1.0, 0.0, 0.0, 1.0, 1.55, 1.55]), atol=1e-6)


def test_weights_are_rounded_by_a_scale_of_their_channel(coverage: Any) -> None:
    found = coverage.affine.symmetric(torch.tensor([[1.27, 0.014], [0.0127, 0.00014]]), 0)
    assert torch.allclose(found, torch.tensor([[1.27, 0.01], [0.0127, 0.0001]]))


def test_every_product_by_weights_is_quantized(coverage: Any) -> None:
    net = nn.Linear(2, 1, bias=False).eval()
    net.weight.data = torch.tensor([[1.27, 0.014]])
    x = torch.tensor([[2.55, 0.004], [0.0, 1.0]])
    found = coverage.affine.quantized(net, lambda: net(x), lambda: net(x), 0.0)
    assert torch.allclose(found, torch.tensor([[1.27 * 2.55], [0.01]]), atol=1e-6)


def test_the_error_is_relative_to_the_deviation_of_the_answer(coverage: Any) -> None:
    right = torch.tensor([10.0, 12.0])
    assert coverage.one.error([right + 0.1], [right]) == pytest.approx(0.1, rel=1e-4)
    with pytest.raises(ValueError, match="0 answers for 1"):
        coverage.one.error([], [right])


def test_no_branch_of_a_randomized_network_is_silent(coverage: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    nn.init.zeros_(net[1].weight)
    x = 5 + torch.randn(8, 3, 4, 4)
    coverage.one.randomize(net, x)
    y = net(x)
    assert not any(module.training for module in net.modules())
    assert torch.allclose(y.mean((0, 2, 3)), net[1].bias, atol=1e-5)
    assert torch.allclose(y.std((0, 2, 3), correction=1), net[1].weight, rtol=1e-3)
    assert net[1].weight.min() >= 0.5


def test_measuring_tells_shares_and_errors_of_a_network(coverage: Any) -> None:
    import coverage_networks

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2), nn.Flatten(), nn.Linear(196, 3))
    made = coverage_networks.Made(net.eval(), lambda n, seed: coverage_networks.images(n, seed, 3, 8, 8))
    found: dict[str, Any] = {}
    coverage.one.make = lambda _: made
    coverage.one.measure(coverage_networks.Network("small", "here", "small"), found.__setitem__)
    conv, up, out = 36 * 4 * 27, 36 * 4 * 4 * 4, 196 * 3
    assert found["macs"] == conv + up + out
    assert found["macs_on_crossbars"] + found["macs_digital"] >= found["macs"]
    assert found["mac_share"] == pytest.approx(1 - found["macs_digital"] / found["macs"])
    assert found["weighted_share"] >= (conv + out) / (conv + up + out)
    assert found["disagree"] == []
    assert found["error_16"] < 1e-3 < found["error"] < 0.05
    assert found["affine_error"] < 0.05
    assert found["float_error"] < 1e-6 < found["error_zero_point"] < 0.05
