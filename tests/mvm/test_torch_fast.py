"""What only the tensor path promises: its sums, what it shows an observer, and that no way it takes changes a bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mvm_samples import Case, cases, real_case, reference_sums, sums_of
from torch import Tensor

from bitline.mapping.encode import decode, encode
from bitline.mvm import torch_fast
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.torch_fast import crossbar_mvm
from bitline.physics.steps import RESOLUTION


@given(st.data(), st.integers(1, 5000))
def test_the_size_of_a_chunk_changes_no_bit(make_chip, data, chunk):
    case = data.draw(cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    whole = crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_fast, "CHUNK", chunk)
        assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=False), whole)


@given(st.data())
def test_a_processor_without_an_exact_int8_product_gives_the_same_answer(make_chip, data):
    case = data.draw(cases(make_chip, cells=data.draw(st.sampled_from(["ideal", "real"]))))
    for shortcut in (True, False):
        wanted = crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=shortcut)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch_fast, "_int8_is_exact", lambda: False)
            assert torch.equal(crossbar_mvm(case.x, case.crossbars, case.scale, shortcut=shortcut), wanted)


@given(st.data())
def test_real_levels_make_exact_sums_and_the_codes_of_a_division_in_doubles(make_chip, data):
    case = data.draw(cases(make_chip, cells="real"))
    sums, codes = sums_of(case)
    assert torch.equal(sums, reference_sums(case))
    lsb, offset = (t[:, :, None, :, None, :] for t in (case.scale.lsb, case.scale.offset))
    position = (sums - offset) / lsb
    wanted = position.round()
    if case.scale.low is not None:
        wanted = wanted.clamp(case.scale.low, case.scale.high)
    assert torch.equal(codes, wanted)


@given(st.data())
def test_the_conversions_performed_are_those_counted(make_chip, data):
    case = data.draw(cases(make_chip))
    there, tile, performed = case.product.built, 0, 0

    def count(a: Tensor, code: Tensor) -> None:
        nonlocal tile, performed
        assert a.shape == code.shape
        gone = torch.zeros(a.shape, dtype=torch.bool)
        if there is not None:
            gone = (~there[tile])[:, None, None, None, None].expand(a.shape)
        assert not a[gone].any()
        assert not code[gone].any()
        performed += int((~gone).sum())
        tile = (tile + 1) % case.product.placement.row_tiles

    crossbar_mvm(case.x, case.crossbars, case.scale, observer=count)
    assert performed == case.x.shape[0] * case.x.shape[1] * case.product.placement.conversions_per_vector


def test_sums_of_real_levels_do_not_depend_on_how_many_vectors_are_multiplied_at_once(make_chip, rng):
    case = real_case(make_chip, rng)
    whole, _ = sums_of(case)
    for count in (1, 2, 3, 5, 7):
        part, _ = sums_of(Case(case.x[:1, :count], case.q, case.levels, case.product, case.scale))
        assert torch.equal(part, whole[:, :, :, :count])


def test_effective_levels_are_whole_multiples_of_their_resolution(make_chip, rng):
    levels = real_case(make_chip, rng).levels
    assert torch.equal((levels / RESOLUTION).round() * RESOLUTION, levels)
    assert not torch.equal(levels.round(), levels)


def test_levels_decode_to_the_weights_that_the_shortcut_multiplies_by(make_chip, rng):
    case = real_case(make_chip, rng, rows=5)
    crossbars = Crossbars(case.product, encode(case.q, case.product.placement))
    assert torch.equal(crossbars.weights.double(), decode(crossbars.levels, case.product.placement))
    assert crossbars.weights.dtype == torch.int8
