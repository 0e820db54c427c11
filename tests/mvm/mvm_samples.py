"""Layers that the tests of `mvm` multiply by."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from bitline.chip import replace
from bitline.mapping.empty import clear_, empty_blocks
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels
from bitline.physics.steps import keep

ENCODINGS: dict[str, dict[str, Any]] = {
    "offset": {"kind": "offset"},
    "column": {"kind": "offset", "sum": "column"},
    "zero point": {"kind": "offset", "zero_point": 1},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "two's complement": {"kind": "twos_complement"},
}
POLICIES = ("lossless", "full", "fixed", "layer", "slice", "slice_digit", "column")


@dataclass
class Case:
    x: Tensor
    q: Tensor
    levels: Tensor
    product: Product
    scale: AdcScale

    @property
    def crossbars(self) -> Crossbars:
        """As layers keep their cells."""
        return Crossbars(self.product, keep(self.levels))

    @property
    def bytes(self) -> Tensor:
        """Inputs as native kernels read them."""
        return self.x.to(torch.int8 if self.product.form.signed else torch.uint8)

    @property
    def exact(self) -> Tensor:
        return torch.einsum("ipgr,grc->ipgc", self.x.double(), self.q.double())


@st.composite
def cases(
    draw, make_chip, *, cells="ideal", policies=POLICIES, read_noise=None, most_bits=8, input_bits=16, absent=True
):
    """A small layer on a small chip, with inputs at random; some of its crossbars may be empty, hence not built."""
    cell, digit = draw(st.integers(1, most_bits)), draw(st.integers(1, most_bits))
    encoding = draw(st.sampled_from(list(ENCODINGS)))
    weight_bits = draw(st.integers(2, min(16, 4 * cell)))
    digit = min(digit, input_bits)
    input_bits = draw(st.integers(digit, min(input_bits, 4 * digit)))
    signed = draw(st.booleans())
    policy = draw(st.sampled_from(policies))
    rows = draw(st.integers(1, 9))
    active = draw(st.integers(1, rows))
    pair = encoding == "pair"
    physics: dict[str, Any] = {"leak": draw(st.sampled_from(["cancelled", "kept"]))} if cells == "real" else {}
    if cells == "real":
        physics["programming"] = {"kind": "lognormal", "sigma": draw(st.sampled_from([0.01, 0.3]))}
    if read_noise:
        physics["read_noise"] = read_noise
    chip = make_chip(
        cell={"bits": cell, "faults": {"stuck_off": 0.2, "stuck_on": 0.1} if cells != "ideal" else {}, **physics},
        crossbar={"rows": rows, "cols": 64, "active_rows": active},
        dac={"bits": digit},
        inputs={"bits": input_bits},
        weights={"bits": weight_bits, "encoding": ENCODINGS[encoding]},
        adc={
            "bits": draw(st.integers(1, 10)),
            "policy": "fixed" if policy == "fixed" else "calibrated",
            **({"range": {"low": -4e-6 if pair else 1e-6, "high": 4e-6}} if policy == "fixed" else {}),
        },
    )
    # As few as one weight column a crossbar, so that there are several column tiles.
    cols = (draw(st.integers(1, 4)) + chip.reference_columns) * chip.cells_per_weight
    chip = replace(chip, f"crossbar.cols={cols}")
    matmul = Matmul(
        "it", "linear", draw(st.integers(1, 14)), draw(st.integers(1, 3)), draw(st.integers(1, 2)), signed=signed
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    product = Product(dense(matmul, chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (matmul.groups, matmul.rows, matmul.cols), generator=generator)
    if absent and draw(st.booleans()):
        product = without(product, q, draw(st.sampled_from([0.3, 0.8, 1.0])), generator)
    levels = encode(q, product.placement)
    if cells != "ideal":
        stuck = stuck_levels(levels.shape, chip.cell, generator=generator)
        levels = clear_(effective_levels(levels, stuck, chip.cell, generator=generator), product.placement)
    low, high = product.form.limits
    x = torch.randint(
        low,
        high + 1,
        (draw(st.integers(1, 2)), draw(st.integers(1, 2)), matmul.groups, matmul.rows),
        generator=generator,
    )
    x[0, 0] = draw(st.sampled_from([low, high])) if draw(st.booleans()) else x[0, 0]
    match policy:
        case "lossless":
            scale = adc.lossless()
        case "full":
            scale = adc.full(product)
        case "fixed":
            scale = adc.fixed(product)
        case _:
            shape = adc.shape(policy, product)
            ends = (torch.rand(2, *shape, generator=generator) * product.max_sum).sort(0).values
            scale = adc.from_range(ends[0], ends[1], product)
    return Case(x, q, levels, product, scale)


def layer(
    make_chip, rng, policy: str, encoding: str, *, signed: bool = True, absent: float = 0.0, **sections: Any
) -> Case:
    """Two groups of three uneven row tiles and several column tiles, with offsets of either sign."""
    fixed = {"range": {"low": -4e-6 if encoding == "pair" else 1e-6, "high": 4e-6}} if policy == "fixed" else {}
    chip = make_chip(
        crossbar={"rows": 8, "cols": 16},
        weights={"bits": 4, "encoding": ENCODINGS[encoding]},
        dac={"bits": 2},
        **{
            **sections,
            "adc": {"bits": 3, **sections.get("adc", {}), "policy": "fixed" if fixed else "calibrated", **fixed},
        },
    )
    product = Product(dense(Matmul("it", "linear", 19, 5, 2, signed=signed), chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (2, 19, 5), generator=rng)
    product = without(product, q, absent, rng)
    low, high = product.form.limits
    x = torch.randint(low, min(high, 127) + 1, (3, 2, 2, 19), generator=rng)
    return Case(x, q, encode(q, product.placement), product, scale_for(policy, product, rng))


def scale_for(policy: str, product: Product, rng: torch.Generator) -> AdcScale:
    """Ranges as a policy gives them; at random where it takes them from data."""
    match policy:
        case "lossless":
            return adc.lossless()
        case "full":
            return adc.full(product)
        case "fixed":
            return adc.fixed(product)
        case _:
            shape = adc.shape(policy, product)
            lsb = adc.snap(1 + 12 * torch.rand(shape, generator=rng))
            offset = torch.randint(-6, 20, shape, generator=rng).double()
            return AdcScale(lsb, offset, *adc.code_range(product.placement.chip.adc, product))


def scale_of(lsb: float, offset: float, low: int, high: int) -> AdcScale:
    """One range for all ADCs."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return AdcScale(one * lsb, one * offset, low, high)


def without(product: Product, q: Tensor, share: float, rng: torch.Generator) -> Product:
    """The layer without a share of its crossbars, whose weights become zero."""
    if not share:
        return product
    for block in product.placement.blocks():
        if torch.rand((), generator=rng) < share:
            q[block.group, slice(*block.rows), slice(*block.cols)] = 0
    return Product(dense(product.placement.matmul, product.placement.chip, empty_blocks(q, product.placement)))


def real_case(make_chip, rng, rows: int = 300, noise: dict[str, Any] | None = None) -> Case:
    """Programmed cells, large enough that a plain float32 product depends on the batch."""
    chip = make_chip(
        cell={"programming": {"kind": "lognormal", "sigma": 0.2}, **({"read_noise": noise} if noise else {})},
        crossbar={"rows": 127, "cols": 66},
        inputs={"bits": 8},
        weights={"bits": 8},
        adc={"bits": 8},
    )
    product = Product(dense(Matmul("it", "conv2d", rows, 33), chip))
    q = torch.randint(-128, 128, (1, rows, 33), generator=rng)
    stuck = torch.full((1, 1, 4, rows, 33), -1, dtype=torch.int16)
    levels = effective_levels(encode(q, product.placement), stuck, chip.cell, generator=rng)
    x = torch.randint(0, 256, (5, 35, 1, rows), generator=rng)
    return Case(x, q, levels, product, adc.full(product))


def large(make_chip, rng, *, rows=300, cols=70, groups=2, vectors=130, sparse=False, absent=0.0, **chip) -> Case:
    """A layer of several blocks of vectors and columns and of uneven row tiles, without a share of its crossbars."""
    placed = make_chip(**{"cell": {"bits": 2}, "weights": {"bits": 8}, "crossbar": {"rows": 128, "cols": 512}, **chip})
    product = Product(dense(Matmul("it", "linear", rows, cols, groups), placed))
    low, high = weight_limits(placed.weights)
    q = torch.randint(low, high + 1, (groups, rows, cols), generator=rng)
    product = without(product, q, absent, rng)
    assert bool(product.placement.absent) == bool(absent)
    levels = encode(q, product.placement)
    levels = clear_(effective_levels(levels, None, placed.cell, generator=rng), product.placement)
    x = torch.randint(0, 2**placed.inputs.bits, (1, vectors, groups, rows), generator=rng)
    x = x * (torch.rand(rows, generator=rng) < 0.2) if sparse else x
    return Case(x, q, levels, product, adc.full(product))


def sums_of(case: Case) -> tuple[Tensor, Tensor]:
    """What the ADCs of every row tile see and say, (tiles, groups, digits, vectors, slices, sides, columns)."""
    seen: list[Tensor] = []
    codes: list[Tensor] = []
    crossbar_mvm(case.x, case.crossbars, case.scale, observer=lambda a, c: (seen.append(a), codes.append(c.clone())))
    return torch.stack(seen).double(), torch.stack(codes).double()


def reference_sums(case: Case) -> Tensor:
    """The same sums by the definition, in doubles."""
    product = case.product
    placement, form = product.placement, product.form
    width, body = placement.chip.dac.bits, product.form.bits - product.form.signed
    vectors = case.x.flatten(0, 1)
    planes = [(vectors % 2**body >> shift) % 2**width for shift in range(0, body, width)]
    planes += [(vectors < 0).long()] if form.signed else []
    sides = case.levels.double()
    sides = sides[:, :1] - sides[:, 1:] if product.subtracts else sides
    return torch.stack(
        [
            torch.einsum("dvgr,gksrc->gdvskc", torch.stack(planes)[..., a:b].double(), sides[..., a:b, :])
            for a, b in pairwise(placement.row_bounds)
        ]
    )


def positions_in_lsb(case: Case) -> Tensor:
    """Where every analog sum lies between two codes, 0.5 being a tie."""
    sums = list(reference_sums(case))
    lsb, offset = (t[:, :, None, :, None, :] for t in (case.scale.lsb, case.scale.offset))
    there, tiles = case.product.built, case.product.placement.row_tiles
    found: list[Tensor] = []
    for number, a in enumerate(sums):
        position = ((a.double() - offset) / lsb).movedim(5, 1)
        found.append((position if there is None else position[there[number % tiles]]).flatten())
    return torch.cat(found)
