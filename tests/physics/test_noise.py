import math

import pytest
import torch

from bitline import seeds
from bitline.chip.cell import Cell
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mvm import adc
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics import noise
from bitline.physics.noise import ReadNoise
from bitline.physics.normal import FAR, MOST, SIGMA, normals, quantiles, tail

CELL = {"bits": 2, "g_min": "10 uS", "g_max": "100 uS", "read_voltage": 0.2}
STEP = 30e-6


@pytest.mark.parametrize("encoding", ["offset", "pair", {"kind": "pair", "subtract": "digital"}])
@pytest.mark.parametrize("leak", ["cancelled", "kept"])
@pytest.mark.parametrize("kind", ["absolute", "proportional"])
def test_the_variance_of_a_sum_is_the_sum_of_the_cells_variances(make_chip, kind, leak, encoding):
    sigma = 3e-6 if kind == "absolute" else 0.05
    chip = make_chip(
        cell={**CELL, "leak": leak, "read_noise": {"kind": kind, "sigma": sigma}},
        dac={"bits": 2},
        crossbar={"rows": 6, "cols": 64},
        weights={"encoding": encoding},
    )
    product = Product(dense(Matmul("it", "linear", 6, 2), chip))
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 4, (1, chip.sides, 2, 6, 2), generator=generator)
    stored = levels.to(torch.uint8) if leak == "cancelled" else levels.float() + 1 / 3
    vector = torch.tensor([0, 1, 6, 15, 9, 2])
    positions = 4000
    sums: list[torch.Tensor] = []
    noise = ReadNoise(chip.cell, 1)
    crossbar_mvm(
        vector.expand(1, positions, 1, 6),
        Crossbars(product, stored),
        adc.lossless(),
        noise=noise,
        observer=lambda a, _: sums.append(a),
    )
    seen = torch.stack(sums).squeeze(0)[0].double()  # digits, vectors, slices, sides, columns

    digit = torch.stack([vector & 3, vector >> 2]).double()
    g = 10e-6 + levels[0].double() * STEP
    variance = (torch.full_like(g, sigma) if kind == "absolute" else g * sigma).square() / STEP**2
    wanted = torch.einsum("dr,ksrc->dskc", digit.square(), variance)
    if product.subtracts:
        wanted = wanted.sum(2, keepdim=True)
    assert seen.shape[2:] == wanted.shape[1:]
    torch.testing.assert_close(seen.var(1), wanted, rtol=6 * math.sqrt(2 / positions), atol=0)
    standardized = (seen - seen.mean(1, keepdim=True)) / seen.std(1, keepdim=True)
    assert float(standardized.pow(4).mean()) == pytest.approx(3, abs=0.1)  # normal
    signal = torch.einsum("dr,ksrc->dskc", digit, stored[0].double())
    signal = signal[:, :, :1] - signal[:, :, 1:] if product.subtracts else signal
    error = (seen.mean(1) - signal).abs() / (wanted / positions).sqrt()
    assert float(error.max()) < 5


def test_a_row_that_is_not_driven_makes_no_noise(make_chip):
    chip = make_chip(cell={**CELL, "read_noise": {"kind": "absolute", "sigma": "9 uS"}})
    product = Product(dense(Matmul("it", "linear", 6, 2), chip))
    levels = torch.full((1, 1, 2, 6, 2), 3, dtype=torch.uint8)
    x = torch.zeros(1, 40, 1, 6, dtype=torch.int64)
    y = crossbar_mvm(x, Crossbars(product, levels), adc.lossless(), noise=ReadNoise(chip.cell, 0))
    assert not bool(y.any())


def test_a_draw_depends_on_image_tile_place_and_seed_and_on_nothing_else():
    cell = Cell.model_validate({**CELL, "read_noise": {"kind": "absolute", "sigma": "1 uS"}})

    def draw(seed: int, first: int, image: int, tile: int, position: int) -> torch.Tensor:
        vector = torch.tensor([image * 20 + position])
        return ReadNoise(cell, seed, first).draw(vector, 20, tile, (1, 3, 2, 1, 9))

    draws = [draw(0, 0, 0, 0, 0), draw(1, 0, 0, 0, 0), draw(0, 0, 1, 0, 0), draw(0, 0, 0, 1, 0), draw(0, 0, 0, 0, 16)]
    for i, one in enumerate(draws):
        for other in draws[:i]:
            assert not torch.equal(one, other)
    assert torch.equal(draw(0, 3, 2, 0, 0), draw(0, 5, 0, 0, 0))


def test_two_reads_of_one_vector_differ(make_chip):
    chip = make_chip(cell={**CELL, "read_noise": {"kind": "absolute", "sigma": "9 uS"}})
    product = Product(dense(Matmul("it", "linear", 6, 2), chip))
    levels = torch.full((1, 1, 2, 6, 2), 3, dtype=torch.uint8)
    x = torch.full((3, 2, 1, 6), 15)
    y = crossbar_mvm(x, Crossbars(product, levels), adc.lossless(), noise=ReadNoise(chip.cell, 0))
    assert len(y.flatten(2).flatten(0, 1).unique(dim=0)) == 6


def test_quantiles_are_those_of_a_normal_distribution_to_a_hundredth():
    z = quantiles().double() / SIGMA
    u = (torch.arange(2**15) + 0.5) / 2**16 + 0.5
    inner = torch.arange(2**15) < FAR
    torch.testing.assert_close(z[: 2**15][inner], torch.special.ndtri(u.double())[inner], rtol=0, atol=0.02)
    assert not bool(z[: 2**15][~inner].any())
    assert torch.equal(quantiles()[2**15 :], -quantiles()[: 2**15])


def test_the_tail_goes_on_beyond_seven_standard_deviations():
    share = torch.tensor([2.0 ** (k // 32 - 32) * (1 + k % 32 / 32) for k in range(1024)] + [1.0]).double()
    beyond = torch.special.ndtr(-tail().double() / SIGMA)
    torch.testing.assert_close(beyond, share * 2**-11, rtol=2e-3, atol=0)
    assert int(tail().max()) == MOST > 7 * SIGMA
    assert bool((tail().diff() < 0).all())


def test_as_many_numbers_lie_in_the_tails_as_of_a_normal_distribution():
    vectors = torch.arange(2**15)
    keys = seeds.read_keys(7, vectors // 64, vectors % 64, 3)
    counted = torch.zeros(5, dtype=torch.int64)
    edges, moments = (3.0, 3.5, 3.8, 4.0, 4.2), torch.zeros(2, dtype=torch.float64)
    for first in range(0, 1000, 100):
        z = normals(torch.arange(first, first + 100).view(1, 100, 1), [k[:] for k in keys]).double() / SIGMA
        counted += torch.stack([(z.abs() > edge).sum() for edge in edges])
        moments += torch.stack([z.square().mean(), z.pow(4).mean()]) / 10
    n = 2 * 2**15 * 1000
    for count, edge in zip(counted.tolist(), edges, strict=True):
        wanted = n * math.erfc(edge / math.sqrt(2))
        assert count == pytest.approx(wanted, rel=0.03, abs=4 * math.sqrt(wanted))
    assert float(moments[0]) == pytest.approx(1, abs=1e-3)
    assert float(moments[1]) == pytest.approx(3, abs=0.02)


def test_noise_of_a_sum_is_rounded_to_the_resolution_of_levels():
    # A standard deviation of 1.5 levels is 1536 steps; 4096 stands for one.
    sigma = noise.steps(torch.tensor(2.25, dtype=torch.float64))
    assert int(sigma) == 1536
    z = torch.tensor([0, 4096, -4096, 1, 10, 11, -11])
    exact = [math.floor(int(v) / 4096 * 1.5 * 128 + 0.5) / 128 for v in z]
    assert noise.levels(z, sigma).tolist() == exact
    assert exact[:3] == [0, 1.5, -1.5]


def test_numbers_of_neighbouring_conversions_and_vectors_are_uncorrelated():
    vectors = torch.arange(4096)
    keys = seeds.read_keys(2**62 + 5, vectors // 64, vectors % 64, 3)
    z = normals(torch.arange(64).view(1, 64, 1), [k[:] for k in keys]).double() / SIGMA
    z = z.flatten(0, 2)  # conversions, vectors
    assert float(z.mean()) == pytest.approx(0, abs=5 / math.sqrt(z.numel()))
    for rows in (z, z.T, z.square() - 1):
        correlation = rows @ rows.T / rows.shape[1] / rows.square().mean()
        rest = correlation - torch.diag(correlation.diag())
        assert float(rest.abs().max()) < 7.5 / math.sqrt(rows.shape[1])


def test_variances_of_cells_without_noise_are_zero():
    cell = Cell.model_validate(CELL)
    assert not bool(ReadNoise(cell, 0).cell_variance(torch.ones(3, dtype=torch.uint8)).any())
