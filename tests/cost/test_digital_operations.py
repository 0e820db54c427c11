"""What no layer on the chip computes is counted, priced and shown as a part of its own."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.cost import price
from bitline.mapping.place import place
from bitline.nn import placement, to_crossbar


class Mixed(nn.Module):
    """Half on crossbars: a convolution and a linear layer; a transposed convolution and a product are not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.up, self.b = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.a(x)).flatten(2)
        return self.b((y @ y.mT).mean(1))


def published_at(make_chip: Callable[..., Chip]) -> Chip:
    """A chip at the node and supply of the published arithmetic."""
    return make_chip(node="45 nm", vdd="0.9 V")


UP, PRODUCT = 36 * 4 * 4 * 4, 4 * 144 * 4
"""multiplications of an image of 8 x 8: 6 x 6 pixels by a kernel of 2 x 2; 4 x 144 by 144 x 4"""


@pytest.mark.parametrize("images", [1, 3])
def test_each_operation_costs_a_multiplication_and_an_addition_a_mac(make_chip, images: int):
    chip = published_at(make_chip)
    converted, _ = to_crossbar(Mixed().eval(), chip, example=torch.rand(images, 3, 8, 8), rewrite=False)
    cost, without = price(placement(converted)), price(place([p.matmul for p in placement(converted).layers], chip))
    assert {each.name: each.macs for each in cost.digital} == {"up: ConvTranspose2d": UP, "(model): matmul": PRODUCT}
    assert cost.macs == without.macs + UP + PRODUCT
    # Horowitz at 45 nm and 0.9 V: 0.2 pJ for 8 x 8 bits, 0.1 pJ for an addition of 32 bits
    one = 0.2e-12 * 4 * 4 / 64 + 0.1e-12
    energy, time = one * (UP + PRODUCT), (math.ceil(UP / 64) + math.ceil(PRODUCT / 64)) / chip.timing.clock
    assert math.isclose(cost.energy_parts["digital_operations"], energy, rel_tol=1e-9)
    assert math.isclose(cost.latency_parts["digital_operations"], time, rel_tol=1e-9)
    assert math.isclose(cost.energy_J, without.energy_J + energy + cost.leakage_W * time, rel_tol=1e-9)
    assert math.isclose(cost.latency_s, without.latency_s + time, rel_tol=1e-9)
    assert math.isclose(cost.area_m2, without.area_m2 + cost.area_parts["digital_operations"], rel_tol=1e-9)
    for parts, total in ((cost.energy_parts, cost.energy_J), (cost.latency_parts, cost.latency_s)):
        assert math.isclose(math.fsum(parts.values()), total, rel_tol=1e-9)
    assert math.isclose(math.fsum(cost.area_parts.values()), cost.area_m2, rel_tol=1e-9)
    share = (UP + PRODUCT) / cost.macs
    assert cost.notes[0].startswith("bit densities")
    assert f"{UP + PRODUCT:,} of {cost.macs:,} MACs ({share:.1%}) are of digital operations" in " ".join(cost.notes)


def test_a_price_without_an_example_says_what_it_does_not_know(make_chip):
    chip = published_at(make_chip)
    converted, _ = to_crossbar(Mixed().eval(), chip, example=torch.rand(1, 3, 8, 8))
    cost = price(place([p.matmul for p in placement(converted).layers], chip))
    assert any(note.startswith("what makes products off these layers is not known") for note in cost.notes)


def test_a_network_that_is_all_on_crossbars_has_no_such_part(make_chip):
    converted, _ = to_crossbar(nn.Sequential(nn.Linear(4, 4)), published_at(make_chip), example=torch.rand(1, 4))
    cost = price(placement(converted))
    assert cost.digital == ()
    assert "digital_operations" not in cost.energy_parts
    assert not any("digital" in note and "MACs" in note for note in cost.notes)
