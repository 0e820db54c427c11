"""Statistics of cells against their formulas; N is large enough that 5 standard errors are a tight bound."""

import math

import pytest
import torch
from torch import Tensor

from bitline import seeds
from bitline.chip.cell import Cell
from bitline.physics.faults import stuck_levels
from bitline.physics.program import conductances, effective_levels, mean_levels
from bitline.physics.steps import RESOLUTION

pytestmark = pytest.mark.usefixtures("way")
N = 200_000
G_MIN, G_MAX = 2e-6, 92e-6


def cell(**changes: object) -> Cell:
    record = {"bits": 2, "g_min": G_MIN, "g_max": G_MAX, "read_voltage": 0.2, **changes}
    return Cell.model_validate(record)


def written(model: object, level: int, seed: int = 0) -> Tensor:
    levels = torch.full((N,), level, dtype=torch.uint8)
    g = conductances(levels, torch.randn(N, generator=torch.Generator().manual_seed(seed)), cell(programming=model))
    assert g.dtype == torch.float32
    return g.double()


def target(level: int) -> float:
    return G_MIN + level * (G_MAX - G_MIN) / 3


def agrees(x: Tensor, mean: float, std: float) -> None:
    """Mean and standard deviation within five standard errors."""
    assert float(x.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(N) + 1e-12)
    assert float(x.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * N), abs=1e-12)


@pytest.mark.parametrize("level", range(4))
def test_ideal_cells_sit_on_their_level(level):
    assert written("ideal", level).unique().tolist() == [pytest.approx(target(level), rel=1e-6)]
    for kind in ("lognormal", "gaussian_proportional", "gaussian_absolute"):
        assert written({"kind": kind, "sigma": 0}, level).unique().tolist() == [pytest.approx(target(level), rel=1e-6)]


@pytest.mark.parametrize("level", range(4))
def test_lognormal_cells_have_the_logarithm_of_a_normal_number(level):
    agrees(torch.log(written({"kind": "lognormal", "sigma": 0.3}, level) / target(level)), 0.0, 0.3)


@pytest.mark.parametrize("level", range(4))
def test_a_centred_write_has_its_target_as_mean_and_the_same_relative_spread(level):
    g = written({"kind": "lognormal", "sigma": 0.3, "centred": True}, level)
    agrees(g / target(level), 1.0, math.sqrt(math.expm1(0.3**2)))
    plain = written({"kind": "lognormal", "sigma": 0.3}, level)
    torch.testing.assert_close(g * math.exp(0.3**2 / 2), plain, rtol=1e-5, atol=0)


@pytest.mark.parametrize("leak", ["cancelled", "kept"])
def test_mean_levels_are_the_means_of_written_and_stuck_cells(leak):
    record = cell(
        programming={"kind": "lognormal", "sigma": 0.3}, leak=leak, faults={"stuck_off": 0.1, "stuck_on": 0.05}
    )
    for level, mean in enumerate(mean_levels(record).tolist()):
        levels = torch.full((N,), level, dtype=torch.uint8)
        stuck = stuck_levels(levels.shape, record, generator=seeds.generator(1))
        real = effective_levels(levels, stuck, record, generator=seeds.generator(2)).double()
        assert float(real.mean()) == pytest.approx(mean, abs=5 * float(real.std()) / math.sqrt(N))


@pytest.mark.parametrize("level", range(4))
def test_proportional_error_grows_with_the_conductance(level):
    agrees(written({"kind": "gaussian_proportional", "sigma": 0.1}, level), target(level), 0.1 * target(level))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_absolute_error_is_the_same_for_every_level(level):
    agrees(written({"kind": "gaussian_absolute", "sigma": "2 uS"}, level), target(level), 2e-6)


def test_no_conductance_falls_below_zero():
    for model in ({"kind": "gaussian_absolute", "sigma": "20 uS"}, {"kind": "gaussian_proportional", "sigma": 2.0}):
        g = written(model, 0)
        assert float(g.min()) == 0
        assert 0.2 < float((g == 0).double().mean()) < 0.5


@pytest.mark.parametrize("level", range(4))
def test_a_table_gives_each_level_its_own_mean_and_spread(level):
    mean, sigma = ["20 uS", "33 uS", "60 uS", "90 uS"], ["1 uS", "2 uS", "0.5 uS", "3 uS"]
    values = [2e-5, 3.3e-5, 6e-5, 9e-5], [1e-6, 2e-6, 5e-7, 3e-6]
    agrees(written({"kind": "per_level", "mean": mean, "sigma": sigma}, level), values[0][level], values[1][level])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_table_without_means_takes_the_ideal_conductances(level):
    agrees(written({"kind": "per_level", "sigma": [1e-6] * 4}, level), target(level), 1e-6)


def test_the_same_seed_writes_the_same_cells_and_another_seed_others():
    model = {"kind": "lognormal", "sigma": 0.1}
    assert torch.equal(written(model, 2, seed=5), written(model, 2, seed=5))
    assert not torch.equal(written(model, 2, seed=5), written(model, 2, seed=6))


def test_more_variation_moves_the_same_cells_the_same_way():
    small, large = (torch.log(written({"kind": "lognormal", "sigma": s}, 3) / target(3)) for s in (0.1, 0.2))
    torch.testing.assert_close(large, 2 * small, rtol=1e-3, atol=1e-5)


def test_faults_come_in_the_fractions_asked_for():
    stuck = stuck_levels(
        torch.Size([N]),
        cell(faults={"stuck_off": 0.0904, "stuck_on": 0.0175}),
        generator=torch.Generator().manual_seed(0),
    )
    for level, share in ((0, 0.0904), (3, 0.0175), (-1, 1 - 0.0904 - 0.0175)):
        sampling = 5 * math.sqrt(share * (1 - share) / N)
        assert float((stuck == level).double().mean()) == pytest.approx(share, abs=sampling)
    assert set(stuck.unique().tolist()) == {-1, 0, 3}


def test_a_chip_with_more_faults_contains_those_with_fewer():
    def faults(off: float, on: float) -> Tensor:
        record = cell(faults={"stuck_off": off, "stuck_on": on})
        return stuck_levels(torch.Size([N]), record, generator=torch.Generator().manual_seed(1))

    few, more = faults(0.01, 0.02), faults(0.05, 0.3)
    assert torch.equal(more[few >= 0], few[few >= 0])
    assert int((more >= 0).sum()) > int((few >= 0).sum())
    assert bool((faults(1.0, 0.0) == 0).all())
    assert bool((faults(0.0, 1.0) == 3).all())
    assert faults(0.0, 0.0) is None


def effective(record: Cell, levels: Tensor, stuck: Tensor | None) -> Tensor:
    return effective_levels(levels, stuck, record, generator=torch.Generator().manual_seed(3))


def test_faults_replace_cells_and_leave_the_programming_error_of_the_others():
    record = cell(programming={"kind": "lognormal", "sigma": 0.1})
    levels = torch.randint(0, 4, (1000,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    working = torch.full((1000,), -1, dtype=torch.int16)
    stuck = working.clone()
    stuck[:100], stuck[100:150] = 0, 3
    before, after = effective(record, levels, working), effective(record, levels, stuck)
    assert torch.equal(before[150:], after[150:])
    assert after[:100].abs().max() <= RESOLUTION
    assert (after[100:150] - 3).abs().max() <= RESOLUTION


def test_ideal_cells_without_leak_are_whole_levels():
    levels = torch.tensor([0, 1, 2, 3], dtype=torch.uint8)
    got = effective(cell(), levels, torch.tensor([-1, 3, -1, 0], dtype=torch.int16))
    assert got.dtype == torch.uint8
    assert got.tolist() == [0, 3, 2, 0]


def test_a_leak_that_is_kept_adds_the_lowest_conductance_to_every_cell():
    levels = torch.tensor([0, 1, 2, 3], dtype=torch.uint8)
    kept = effective(cell(leak="kept"), levels, torch.full((4,), -1, dtype=torch.int16))
    torch.testing.assert_close(kept, levels + G_MIN / 3e-5, rtol=0, atol=RESOLUTION)
    assert kept.dtype == torch.float32


@pytest.mark.parametrize(
    "programming",
    [
        {"kind": "lognormal", "sigma": 0.2},
        {"kind": "gaussian_absolute", "sigma": "2 uS"},
        {"kind": "gaussian_proportional", "sigma": 0.1},
        {"kind": "per_level", "sigma": ["1 uS", "2 uS", "3 uS", "4 uS"], "mean": ["11 uS", "35 uS", "70 uS", "99 uS"]},
    ],
)
def test_effective_levels_are_distributed_as_conductances_in_steps(programming):
    record = cell(programming=programming)
    levels = torch.arange(4, dtype=torch.uint8).repeat(N // 4)
    g = conductances(levels, torch.randn(N, generator=torch.Generator().manual_seed(4)), record)
    got = effective(record, levels, None).double()
    for level in range(4):
        wanted = ((g[level::4] - G_MIN) / 3e-5).double()
        mine = got[level::4]
        shares = torch.linspace(0.01, 0.99, 15, dtype=torch.float64)
        spread = float(wanted.std())
        torch.testing.assert_close(
            torch.quantile(mine[: 10**6], shares),
            torch.quantile(wanted[: 10**6], shares),
            rtol=0,
            atol=RESOLUTION + 30 * spread / math.sqrt(len(mine)),
        )
        assert float(mine.std()) == pytest.approx(spread, rel=0.02, abs=RESOLUTION / 2)
        neighbours = (mine[1:] - mine.mean()) * (mine[:-1] - mine.mean())
        assert abs(float(neighbours.mean())) < 5 * spread**2 / math.sqrt(len(mine)) + RESOLUTION**2
