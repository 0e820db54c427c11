"""Ranges from data: one call, streaming, the same every time."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bitline import load_chip
from bitline.chip.adc import Adc
from bitline.errors import ConversionError, MappingError
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.part import part
from bitline.mapping.place import dense
from bitline.mvm import adc
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.fit_ranges import Columns, fit, search_of
from bitline.mvm.product import Product
from bitline.mvm.sum_histogram import SumHistogram, Sums, VectorSample
from bitline.mvm.torch_fast import analog_sums, crossbar_mvm, integer_product
from bitline.network.images import Images
from bitline.nn import IDEAL, calibrate, crossbar_layers, program, set_chip, to_crossbar
from bitline.nn.ranges import quiet


def network(make_chip, **adc: object) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3))
    chip = make_chip(crossbar={"rows": 32, "cols": 32}, adc={"policy": "calibrated", "bits": 4, **adc})
    batches = [torch.randn(3, 2, 6, 6) for _ in range(3)]
    return to_crossbar(net, chip).model, batches


def ranges(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("granularity", ["layer", "slice", "slice_digit", "column"])
def test_calibrating_twice_gives_the_same_ranges(make_chip, granularity):
    model, batches = network(make_chip, granularity=granularity)
    calibrate(model, batches)
    first = ranges(model)
    assert all(bool(value.isfinite().all()) for value in first.values())
    calibrate(model, batches)
    assert same(ranges(model), first)


def test_calibration_leaves_weights_modes_and_programmed_chips_alone(make_chip):
    model, batches = network(make_chip)
    model.train()
    model[1].eval()
    program(model, 5)
    weights = [p.clone() for p in model.parameters()]
    calibrate(model, batches)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert [m.training for m in model] == [True, False, True, True, True]
    assert {int(layer.chip_seed) for layer in crossbar_layers(model).values()} == {5}
    assert {layer.mode for layer in crossbar_layers(model).values()} == {"chip"}
    assert all(p.grad is None for p in model.parameters())


def test_a_failing_batch_leaves_the_modes_as_they_were(make_chip):
    model, batches = network(make_chip)
    model.train()
    with pytest.raises(MappingError, match="has 3 channels; expected 2"):
        calibrate(model, [batches[0], torch.randn(1, 3, 6, 6)])
    assert model.training
    assert {layer.mode for layer in crossbar_layers(model).values()} == {"chip"}


def test_batches_with_labels_give_the_same_ranges(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    wanted = ranges(model)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.cat(batches), torch.zeros(9)), batch_size=3
    )
    calibrate(model, loader)
    assert same(ranges(model), wanted)


def test_an_empty_batch_among_others_changes_nothing(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    wanted = ranges(model)
    calibrate(model, [batches[0], batches[0][:0], *batches[1:]])
    assert same(ranges(model), wanted)


def test_input_ranges_do_not_depend_on_how_images_are_batched(make_chip):
    model, batches = network(make_chip)
    images = torch.cat(batches).sort(0).values  # the largest come last, so that the histogram must grow
    scales: list[list[float]] = []
    for size in (1, 4, 9):
        calibrate(model, list(images.split(size)))
        scales.append([float(layer.ranges.input_scale) for layer in crossbar_layers(model).values()])
    for other in scales[1:]:
        assert other == pytest.approx(scales[0], rel=0.02)


@pytest.mark.parametrize("batches", [iter([torch.rand(1, 2, 6, 6)]), (x for x in [torch.rand(1, 2, 6, 6)])])
def test_what_can_be_walked_once_only_is_refused(make_chip, batches):
    model, _ = network(make_chip)
    with pytest.raises(ConversionError) as error:
        calibrate(model, batches)
    assert str(error.value) == "calibrate walks the batches twice; give a list or a data loader, not an iterator"


def test_a_bare_tensor_is_refused(make_chip):
    model, batches = network(make_chip)
    with pytest.raises(ConversionError) as error:
        calibrate(model, batches[0])
    assert str(error.value) == "calibrate takes an iterable of batches; put a single tensor in a list: [images]"


def test_no_data_but_zeros_are_refused_by_the_name_of_the_layer(make_chip):
    model, _ = network(make_chip)
    with pytest.raises(ConversionError, match=r"^layer 0 saw no data but zeros; its input range is unknown$"):
        calibrate(model, [torch.zeros(2, 2, 6, 6)])


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 2, 6, 6)]])
def test_no_data_are_refused_as_no_data(make_chip, batches):
    model, _ = network(make_chip)
    with pytest.raises(ConversionError, match=r"^calibrate has no data: `batches` gives none$"):
        calibrate(model, batches)


def test_a_network_that_is_not_converted_is_refused():
    with pytest.raises(ConversionError, match=r"^Linear has no layer on crossbars; call to_crossbar"):
        calibrate(nn.Linear(2, 2), [torch.rand(1, 2)])


def test_signed_inputs_are_noticed_layer_by_layer(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    assert [bool(layer.ranges.input_signed) for layer in crossbar_layers(model).values()] == [True, False]
    calibrate(model, [batch.abs() for batch in batches])
    assert [bool(layer.ranges.input_signed) for layer in crossbar_layers(model).values()] == [False, False]


@pytest.mark.parametrize("granularity", ["layer", "slice", "slice_digit", "column"])
@pytest.mark.parametrize("change", [{"bits": 7}, {"calibration": "percentile"}, {"percentile": 99.0}])
def test_another_adc_is_fitted_without_data_as_if_calibrated_afresh(make_chip, granularity, change):
    model, batches = network(make_chip)
    calibrate(model, batches)
    chip = make_chip(
        crossbar={"rows": 32, "cols": 32}, adc={"policy": "calibrated", "bits": 4, "granularity": granularity, **change}
    )
    set_chip(model, chip)
    refitted = ranges(model)
    calibrate(model, batches)
    assert same(ranges(model), refitted)


@pytest.mark.parametrize(
    "change",
    [{"crossbar": {"rows": 16, "cols": 32}}, {"weights": {"bits": 6}}, {"dac": {"bits": 2}}, {"cell": {"bits": 1}}],
)
def test_a_chip_of_other_sums_needs_calibration_again(make_chip, change):
    model, batches = network(make_chip)
    calibrate(model, batches)
    set_chip(model, make_chip(**{"crossbar": {"rows": 32, "cols": 32}, "adc": {"policy": "calibrated"}, **change}))
    with pytest.raises(ConversionError, match="ADC range unknown; call calibrate"):
        model(batches[0])


def test_other_inputs_need_calibration_again(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    set_chip(model, make_chip(crossbar={"rows": 32, "cols": 32}, inputs={"bits": 6}))
    with pytest.raises(ConversionError, match="input range unknown; call calibrate"):
        model(batches[0])


def test_a_copy_keeps_the_counted_sums(make_chip):
    model, batches = network(make_chip)
    calibrate(model, batches)
    twin = copy.deepcopy(model)
    chip = make_chip(crossbar={"rows": 32, "cols": 32}, adc={"policy": "calibrated", "bits": 6})
    set_chip(model, chip)
    set_chip(twin, chip)
    assert same(ranges(model), ranges(twin))


def product(make_chip, **sections: object) -> tuple[Product, Crossbars, Tensor]:
    chip = make_chip(crossbar={"rows": 16, "cols": 16}, **sections)
    placed = Product(dense(Matmul("it", "linear", 24, 5, signed=False), chip))
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(-7, 8, (1, 24, 5), generator=generator)
    x = torch.randint(0, 16, (1, 400, 1, 24), generator=generator)
    return placed, Crossbars(placed, encode(q, placed.placement)), x


def counted(placed: Product, crossbars: Crossbars, x: Tensor) -> tuple[SumHistogram, list[Sums]]:
    histogram = SumHistogram(placed, vectors=x)
    found = list(histogram.sums(x, crossbars))
    histogram.count(found)
    return histogram, found


def all_columns(crossbars: Crossbars) -> Columns:
    placement = crossbars.product.placement
    equal = torch.ones(placement.matmul.groups, placement.matmul.cols)
    return Columns(part(placement), crossbars, crossbars, equal, lambda: crossbars)


@pytest.mark.parametrize("encoding", ["offset", "pair", {"kind": "pair", "subtract": "digital"}, "twos_complement"])
def test_a_histogram_of_sums_counts_every_conversion(make_chip, encoding):
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    histogram, found = counted(placed, crossbars, x)
    sums = list(analog_sums(x, crossbars))
    total = sum(a.numel() for a in sums)
    assert total == 400 * placed.placement.conversions_per_vector
    assert float(histogram.by_digit.sum()) == total
    everything = torch.stack(sums).double()
    mean = (histogram.by_digit * histogram.values).sum() / total
    assert float(mean) == pytest.approx(float(everything.mean()))
    # Digit 1, slice 0: its own row of the histogram.
    mine = everything[:, 0, 1, :, 0].flatten()
    counts = histogram.by_digit[1, 0]
    assert torch.equal((mine - histogram.least).long().bincount(minlength=len(counts)).double(), counts)
    plain, weighted = histogram.by_column(found)
    assert float(plain.sum()) == total
    third = everything[..., 2]
    assert torch.equal((third - histogram.least).long().flatten().bincount(minlength=len(counts)).double(), plain[0, 2])
    squares = (third.shape[-1] * 400 * len(sums) * histogram.importance).sum()
    assert float(weighted[0, 2].sum()) == pytest.approx(float(squares))


@settings(max_examples=30)
@given(
    st.integers(1, 8), st.sampled_from(["layer", "slice", "slice_digit", "column"]), st.sampled_from(["offset", "pair"])
)
def test_a_range_of_least_error_is_at_least_as_good_as_the_full_span_of_the_data(
    make_chip, bits, granularity, encoding
):
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    histogram, found = counted(placed, crossbars, x)

    def error(converter: Adc) -> float:
        scale = fit(histogram, found, converter, all_columns(crossbars))
        return float((crossbar_mvm(x, crossbars, scale) - integer_product(x, crossbars)).square().sum())

    converter = Adc(bits=bits, granularity=granularity, columns_per_adc=1)
    best = error(converter)
    span = error(converter.model_copy(update={"calibration": "percentile", "percentile": 100.0}))
    assert best <= span * (1.0 + 1e-5)
    if bits == 8:
        assert best == 0


@pytest.mark.parametrize("granularity", ["layer", "slice", "slice_digit", "column"])
@pytest.mark.parametrize(
    "weights",
    [
        {"encoding": "offset"},
        {"encoding": {"kind": "offset", "sum": "column"}},
        {"encoding": "pair"},
        {"encoding": {"kind": "pair", "subtract": "digital"}},
        {"encoding": "twos_complement"},
    ],
)
def test_errors_looked_up_are_those_of_the_product(make_chip, granularity, weights):
    placed, crossbars, x = product(make_chip, weights=weights)
    histogram, found = counted(placed, crossbars, x)
    generator = torch.Generator().manual_seed(1)
    scales: list[adc.AdcScale] = []
    for bits in (2, 4):
        converter = Adc(bits=bits, granularity=granularity, columns_per_adc=1)
        size = adc.shape(granularity, placed)
        high = placed.max_sum * (0.3 + 0.7 * torch.rand(size, generator=generator))
        scales.append(adc.from_range(0.1 * high, high, placed, converter))
    looked_up = histogram.errors(found, 400, scales)
    highest = float(histogram.weights.abs().max())
    for number, scale in enumerate(scales):
        real = (crossbar_mvm(x, crossbars, scale) - integer_product(x, crossbars))[0].transpose(0, 1) / highest
        assert float(real.abs().max()) > 1
        assert torch.allclose(looked_up[..., number], real, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("encoding", ["offset", "pair"])
@pytest.mark.parametrize("granularity", ["layer", "slice_digit", "column"])
def test_ranges_of_least_error_are_the_best_of_all_that_are_tried(make_chip, encoding, granularity):
    """Against the error of each range tried, one sum after the other."""
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    x = x[:, :40]
    histogram, _ = counted(placed, crossbars, x)
    everything = torch.stack(list(analog_sums(x, crossbars))).double()[:, :, :, :, :, 0]  # of one side
    converter = Adc(bits=3, granularity=granularity, columns_per_adc=1)
    search = search_of(histogram, converter, all_columns(crossbars))
    chosen = search.least_error()

    def loss(scale: adc.AdcScale) -> Tensor:
        """Of every range, shaped as these."""
        lsb, offset = (t[:, :, None, :, :] for t in (scale.lsb, scale.offset))
        code = ((everything - offset) / lsb).round().clamp(scale.low, scale.high)
        error = code * lsb + offset - everything  # (tiles, groups, digits, vectors, slices, columns)
        tiles, importance = len(error), histogram.importance
        if granularity == "column":
            share = (importance / importance.sum())[:, None, :, None]
            power, mean = ((t.mean((0, 3), keepdim=True)[0] * share).sum((1, 2, 3)) for t in (error.square(), error))
            return (power + (tiles - 1) * mean.square())[:, None, None]
        power, mean = (t.mean((0, 1, 3, 5)) for t in (error.square(), error))
        loss = (importance * (power + (tiles - 1) * mean.square()))[None, :, :, None]
        return loss.sum().view(1, 1, 1, 1) if granularity == "layer" else loss

    best = loss(chosen)
    for low in (0.0, 1.0) if encoding == "offset" else (0.0,):
        for high in torch.linspace(0.1, 1.0, 30) * everything.max():
            size = adc.shape(granularity, placed)
            tried = adc.from_range(torch.full(size, low), torch.full(size, float(high)), placed, converter)
            assert bool((best <= 1.1 * loss(tried) + 1e-9).all())


def test_outliers_have_no_say_in_the_range_of_a_layer_where_told_so(make_chip):
    placed, crossbars, _ = product(make_chip, inputs={"bits": 8})
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 8, (1, 100, *crossbars.levels.shape[:1], placed.placement.matmul.rows), generator=generator)
    x[:, -1] = 255  # of 100 vectors, one with every wordline on
    histogram, found = counted(placed, crossbars, x)
    converter = Adc(bits=3, granularity="layer", columns_per_adc=1)

    def error(outliers: float) -> float:
        histogram.outliers = outliers
        scale = fit(histogram, found, converter, all_columns(crossbars))
        others = x[:, :-1]
        return float((crossbar_mvm(others, crossbars, scale) - integer_product(others, crossbars)).square().sum())

    assert error(0.01) < 0.5 * error(0.0)


@pytest.mark.parametrize("encoding", ["offset", "pair"])
def test_a_percentile_leaves_that_share_outside(make_chip, encoding):
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    histogram, found = counted(placed, crossbars, x)
    sums = torch.stack(list(analog_sums(x, crossbars))).double()
    scale = fit(
        histogram,
        found,
        Adc(bits=8, granularity="layer", calibration="percentile", percentile=95.0, columns_per_adc=1),
        all_columns(crossbars),
    )
    top = float(scale.offset + scale.high * scale.lsb)
    assert float((sums > top).double().mean()) <= 0.05
    assert scale.lsb.shape == (1, 1, 1, 1)


def test_where_digits_share_a_range_each_counts_by_what_it_weighs(make_chip):
    placed, crossbars, x = product(make_chip, inputs={"bits": 8}, dac={"bits": 2})
    x = torch.where(torch.arange(24) % 4 == 0, x * 16, x % 4)  # sums of high digits are far from those of low ones
    histogram, _ = counted(placed, crossbars, x)
    sums = torch.stack(list(analog_sums(x, crossbars))).double()
    weight = torch.tensor(placed.digit_weights)[:, None, None, None, None].double()
    weight = weight * torch.tensor(placed.slice_weights)[None, None, :, None, None]

    def error(scale) -> float:
        code = ((sums - scale.offset.item()) / scale.lsb.item()).round().clamp(scale.low, scale.high)
        return float(((code * scale.lsb.item() + scale.offset.item() - sums) * weight).square().sum())

    converter = Adc(bits=3, granularity="layer", columns_per_adc=1)
    chosen = search_of(histogram, converter, all_columns(crossbars)).least_error()
    candidates = [
        adc.from_range(
            torch.tensor(low).view(1, 1, 1, 1),
            torch.tensor(float(high)).view(1, 1, 1, 1),
            placed,
            Adc(bits=3, columns_per_adc=1),
        )
        for low in (0.0, 1.0)
        for high in range(8, placed.max_sum + 1)
    ]
    assert error(chosen) <= 1.1 * min(map(error, candidates))


def test_a_sample_of_vectors_comes_from_all_of_them_evenly():
    sample, drawn, start = VectorSample(1000, 50), list[int](), 0
    for size in (1, 0, 199, 7, 793):
        drawn += [start + at for at in sample.of_next(size).tolist()]
        start += size
    assert [at // 20 for at in drawn] == list(range(50))
    assert len({at % 20 for at in drawn}) > 10
    whole = VectorSample(1000, 50)
    assert whole.of_next(1000).tolist() == drawn
    assert VectorSample(7, 50).of_next(7).tolist() == list(range(7))
    assert VectorSample(0, 50).of_next(3).tolist() == []


def test_the_sample_of_a_convolution_holds_the_vectors_that_its_crossbars_read(make_chip):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2))
    images = torch.rand(5, 4, 9, 9)
    model = to_crossbar(net, make_chip(), example=images[:1]).model
    calibrate(model, list(images.split(2)))
    layer = model[0]
    kept = layer.ranges.sums.vectors
    assert kept.shape == (1, 125, 2, 18)  # 5 images of 25 positions are fewer than a sample holds
    q = layer.integers(torch.cat(list(Images([images]).runs(images.device))))
    assert torch.equal(kept[0], layer.input_vectors(q).flatten(0, 1))


@pytest.mark.parametrize("strategy", ["dense", "naive", "packed", "strip"])
@pytest.mark.parametrize("encoding", ["offset", {"kind": "offset", "sum": "column"}])
def test_a_part_of_a_layer_makes_the_sums_that_the_whole_makes_there(make_chip, strategy, encoding):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(12, 12 * 9, 1, groups=12))
    chip = make_chip(crossbar={"rows": 16, "cols": 32}, weights={"encoding": encoding})
    x = torch.rand(3, 12, 2, 2)
    model = to_crossbar(net, chip, example=x, mapping={"*": strategy}).model
    calibrate(model, [x])
    layer = crossbar_layers(model)["0"]
    weights, whole = layer.cells.weights(layer), layer.whole_placement
    some = part(whole, 20)
    cells = weights.part(some, chip.weights).crossbars(quiet(chip), IDEAL, signed=False)
    everything = weights.crossbars(quiet(chip), IDEAL, signed=False)
    assert (cells.levels.numel() < everything.levels.numel()) == (strategy in ("dense", "strip"))
    assert torch.equal(cells.levels, everything.levels[some.groups][..., some.stored])
    rows = layer.ranges.sums.vectors
    mine, all_of_them = analog_sums(rows[:, :, some.groups], cells), analog_sums(rows, everything)
    for a, b in zip(mine, all_of_them, strict=True):
        assert torch.equal(a, b[some.groups][..., some.stored])


def test_scales_of_powers_of_two_are_that(make_chip):
    net = nn.Sequential(nn.Linear(6, 4))
    chip = make_chip(inputs={"bits": 4, "scale": "power_of_two"}, weights={"bits": 4, "scale": "power_of_two"})
    model = to_crossbar(net, chip).model
    calibrate(model, [torch.randn(50, 6)])
    assert math.frexp(float(model[0].ranges.input_scale))[0] == 0.5
    assert bool((torch.frexp(model[0].cells.weights(model[0]).scale(model[0].chip.weights)).mantissa == 0.5).all())


def test_a_leak_that_is_kept_is_within_the_calibrated_range(make_chip):
    torch.manual_seed(0)
    plain, images = nn.Sequential(nn.Linear(64, 16)), torch.rand(64, 64)
    cell = {"g_min": "10 uS", "g_max": "100 uS"}
    errors = {}
    for leak in ("cancelled", "kept"):
        chip = make_chip(
            cell={**cell, "leak": leak},
            adc={"bits": 6, "policy": "calibrated"},
            crossbar={"rows": 64, "cols": 64},
            weights={"bits": 4, "encoding": "pair"},
        )
        converted = to_crossbar(plain, chip).model
        calibrate(converted, [images])
        with torch.no_grad():
            errors[leak] = float((converted(images) - plain(images)).square().mean())
    assert errors["kept"] <= 2 * errors["cancelled"]


def test_ranges_fitted_in_turn_are_those_of_sums_that_inputs_from_the_chip_make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 4))
    chip = load_chip("rram-22nm", ["adc.bits=3", "crossbar.rows=32", "crossbar.active_rows=32"])
    batches = [torch.rand(64, 96), torch.rand(64, 96)]
    together, _ = to_crossbar(net, chip)
    in_turn, _ = to_crossbar(net, chip)
    program(in_turn, 7)

    calibrate(together, batches)
    calibrate(in_turn, batches, in_turn=True)

    first, second, third = (in_turn[index] for index in (0, 2, 4))
    assert torch.equal(first.ranges.adc_lsb, together[0].ranges.adc_lsb)
    assert not torch.equal(second.ranges.adc_lsb, together[2].ranges.adc_lsb)
    assert int(first.chip_seed) == int(third.chip_seed) == 7
    program(in_turn, IDEAL)
    with torch.no_grad():
        reached = torch.cat([in_turn[:4](x) for x in Images(batches).runs(batches[0].device)])
    assert torch.equal(third.ranges.sums.vectors[0, :, 0], third.integers(reached))


def test_ranges_fitted_in_turn_lose_less_where_adcs_are_coarse():
    chip = load_chip("rram-22nm", ["adc.bits=3", "crossbar.rows=32", "crossbar.active_rows=32"])
    errors = [0.0, 0.0]
    for seed in range(4):
        torch.manual_seed(seed)
        net = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(128, 128), nn.ReLU()))).eval()
        x = torch.rand(256, 128)
        for in_turn in (False, True):
            model, _ = to_crossbar(net, chip)
            calibrate(model, [x], in_turn=in_turn)
            with torch.no_grad():
                errors[in_turn] += float((model(x) - net(x)).square().mean())

    assert errors[1] < 0.97 * errors[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64])
def test_batches_of_other_numbers_than_the_weights_are_refused(make_chip, dtype):
    model, _ = to_crossbar(nn.Sequential(nn.Linear(4, 3)), make_chip(), example=torch.ones(2, 4))
    with pytest.raises(ConversionError, match=f"images of {dtype}; expected torch.float32, as the weights"):
        calibrate(model, [torch.ones(2, 4, dtype=dtype)])


def test_an_image_without_its_batch_axis_is_refused_by_its_shape(make_chip):
    x = torch.rand(2, 3, 8, 8)
    model = to_crossbar(nn.Sequential(nn.Conv2d(3, 4, 3)), make_chip(), example=x).model
    with pytest.raises(MappingError, match=r"input of shape \(3, 8, 8\); expected \(batch, channels, height, width\)"):
        calibrate(model, [x[0]])


def test_a_layer_behind_neurons_that_never_fire_is_named_and_answers_its_bias(make_chip, caplog):
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.second(torch.relu(self.first(x) - 100))

    x = torch.rand(5, 4)
    model, _ = to_crossbar(Dead(), make_chip(adc={"policy": "calibrated"}), example=x)

    with caplog.at_level("WARNING"):
        calibrate(model, [x])

    assert "layer second saw no data but zeros" in caplog.text
    assert torch.equal(model(x), model.second.bias.expand(5, 3))
    assert float(model.second.ranges.input_scale) == pytest.approx(1 / model.second.input_format.limits[1])
