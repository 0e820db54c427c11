"""Departures of writes from their targets against the normal distribution."""

import math

import pytest
import torch

from bitline import seeds
from bitline.chip.cell import Cell
from bitline.physics.luck import COUNT, TAIL, luck, outcomes
from bitline.physics.program import effective_levels, level_variances, mean_levels

pytestmark = pytest.mark.usefixtures("way")


def test_outcomes_are_a_normal_distribution_to_beyond_six_standard_deviations():
    z, chance = outcomes()
    assert z.shape == chance.shape == (COUNT,)
    assert bool((z.diff() > 0).all())
    assert float(z[-1]) == -float(z[0]) > 6.2
    assert float(chance.sum()) == pytest.approx(1, abs=1e-15)
    assert float(z @ chance) == pytest.approx(0, abs=1e-15)
    assert float(z.square() @ chance) == pytest.approx(1, abs=1e-4)
    assert float(z.pow(4) @ chance) == pytest.approx(3, abs=1e-3)
    for edge in (1, 2, 2.5, 3, 3.5, 3.8, 4, 4.2, 4.5, 5, 5.5, 6):
        # An outcome of the tails holds 3.3 % of what lies beyond it.
        assert float(chance[z.abs() > edge].sum()) == pytest.approx(math.erfc(edge / math.sqrt(2)), rel=0.02)


def test_luck_draws_outcomes_as_often_as_they_are_likely():
    n = 20_000_000
    drawn = luck(torch.Size([n]), generator=seeds.generator(1)).long() + COUNT // 2
    counts, (z, chance) = torch.bincount(drawn, minlength=COUNT).double(), outcomes()
    for part in (slice(0, TAIL), slice(TAIL, 2 * TAIL), slice(-TAIL, None), slice(COUNT // 2, COUNT // 2 + TAIL)):
        wanted = n * chance[part]
        often = wanted > 5
        squares = ((counts[part] - wanted).square() / wanted)[often]
        assert float(squares.mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / int(often.sum())))
    for edge in (3.5, 4, 4.5):
        wanted = n * math.erfc(edge / math.sqrt(2))
        assert float(counts[z.abs() > edge].sum()) == pytest.approx(wanted, rel=0.02, abs=4 * math.sqrt(wanted))


def test_luck_depends_on_the_generator_alone_and_not_on_the_shape():
    flat = luck(torch.Size([600]), generator=seeds.generator(2))
    assert torch.equal(luck(torch.Size([2, 3, 100]), generator=seeds.generator(2)).flatten(), flat)
    assert not torch.equal(luck(torch.Size([600]), generator=seeds.generator(3)), flat)


def test_mean_and_variance_of_a_level_weigh_outcomes_by_their_chance():
    cell = Cell.model_validate(
        {
            "bits": 2,
            "g_min": 2e-6,
            "g_max": 92e-6,
            "read_voltage": 0.2,
            "programming": {"kind": "lognormal", "sigma": 0.3},
        }
    )
    levels = torch.full((2_000_000,), 3, dtype=torch.uint8)
    real = effective_levels(levels, None, cell, generator=seeds.generator(4)).double()
    spread = math.sqrt(float(level_variances(cell)[3]))
    assert float(real.mean()) == pytest.approx(float(mean_levels(cell)[3]), abs=4 * spread / math.sqrt(len(real)))
    assert float(real.std()) == pytest.approx(spread, rel=0.01)
    # exp(s^2 / 2) above the target, less g_min; in levels.
    step = 30e-6
    assert float(mean_levels(cell)[3]) == pytest.approx((92e-6 * math.exp(0.3**2 / 2) - 2e-6) / step, rel=1e-4)
