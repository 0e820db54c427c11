from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bitline import chip as chips
from bitline.train.chip_view import ChipView
from bitline.train.zerorize import Alternating, Schedule, ZerorizeRecover

CHIP = chips.load("example-128", ["adc.policy=lossless"])


@pytest.mark.parametrize(
    ("schedule", "zero"),
    [
        (Schedule.of(8), [5, 7]),
        (Schedule.of(9), [4, 6, 8]),
        (Schedule.of(50), [*range(21, 50, 2)]),
        (Schedule.of(8, start=0.25, interval=3), [4, 7]),
        (Schedule.of(4, interval=1), [2, 3]),
        (Schedule.of(1), [0]),
        (Schedule(6, 5), [5]),
    ],
)
def test_zero_epochs_come_at_an_interval_and_last(schedule, zero):
    assert [epoch for epoch in range(schedule.epochs) if schedule.zeroes(epoch)] == zero


class Recorded:
    """Factors that note how often they were set to zero."""

    def __init__(self, network: nn.Module) -> None:
        self.gammas = [m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        self.ratios: list[float] = []

    def penalty(self):
        return torch.stack([gamma.abs().sum() for gamma in self.gammas]).sum()

    def zero(self, ratio):
        self.ratios.append(ratio)


@pytest.fixture
def led():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    images = torch.rand(8, 1, 6, 6)
    alternating = Alternating(network, ChipView(network, CHIP, images))
    factors = Recorded(network)
    leader = ZerorizeRecover(
        alternating,
        factors,
        Schedule(4, 1, 1),
        ratio=lambda: 0.25,
        batches=[images],
        statistics=[images],
        reprogram_every=2,
        seed=0,
    )
    return SimpleNamespace(leader=leader, alternating=alternating, factors=factors, images=images)


def begin(led, epoch, step):
    led.leader.on_train_batch_start(SimpleNamespace(current_epoch=epoch, global_step=step), None, None, 0)


def test_recovery_epochs_answer_plainly_with_a_penalty_and_zero_epochs_through_the_chip_without(led):
    term = led.leader.penalty(0.5)

    begin(led, 0, 0)
    plain = led.alternating(led.images)
    torch.testing.assert_close(plain, led.alternating.network(led.images))
    torch.testing.assert_close(term(), 0.5 * led.factors.penalty())
    led.leader.on_validation_start(None, None)
    assert led.factors.ratios == []

    begin(led, 1, 10)
    assert not torch.equal(led.alternating(led.images), plain)
    assert term() is None
    led.leader.on_validation_start(None, None)
    assert led.factors.ratios == [0.25]


def test_a_zero_epoch_sees_another_chip_every_so_many_steps_and_is_tested_on_ideal_cells(led):
    layer = led.alternating.view.on_chip[0]
    seeds = []
    for step in range(10, 15):
        begin(led, 1, step)
        seeds.append(int(layer.chip_seed))
    led.leader.on_validation_start(None, None)

    assert seeds[0] == seeds[1] != seeds[2] == seeds[3] != seeds[4]
    assert int(layer.chip_seed) == -1


def test_a_resume_in_mid_epoch_keeps_the_ranges_that_the_epoch_began_with(led):
    begin(led, 1, 10)
    layer = led.alternating.view.on_chip[0]
    known = float(layer.ranges.input_scale)
    led.leader.batches = [2 * led.images]

    begin(led, 1, 11)
    assert float(layer.ranges.input_scale) == known
    begin(led, 3, 30)
    assert float(layer.ranges.input_scale) == pytest.approx(2 * known)
