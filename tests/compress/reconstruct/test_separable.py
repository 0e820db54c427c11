import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reconstruct_samples import ROWS, batches, images, network, trained
from safetensors.torch import load_model, save_model
from torch import nn

from bitline.compress import Sampling, separate
from bitline.errors import ConversionError
from bitline.models.blocks import SeparableConv2d
from bitline.models.rewrite import apply
from bitline.nn import to_crossbar

DATA = batches(4)
DEEP = batches(8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained(network(), DATA)


def hidden(multiplier: int, **options) -> nn.Conv2d:
    """A dense convolution that is a separable one, pointwise first, multiplied out."""
    conv = nn.Conv2d(8, 12, 3, **options)
    with torch.no_grad():
        pointwise, depthwise = torch.randn(12, multiplier, 8), torch.randn(12, multiplier, 3, 3)
        conv.weight.copy_(torch.einsum("omi,omxy->oixy", pointwise, depthwise) / 5)
    return conv


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"stride": 2, "padding": (1, 0)},
        {"dilation": 2},
        {"padding": 1, "padding_mode": "circular"},
    ],
)
def test_a_convolution_that_is_separable_is_recovered_exactly(options, multiplier, refit):
    torch.manual_seed(1)
    model = nn.Sequential(hidden(multiplier, **options), nn.ReLU()).eval()

    found = separate(model, DEEP, rows=ROWS, multiplier=multiplier, refit=refit)

    assert isinstance(found.model[0], SeparableConv2d)
    assert found.report.layers[0].kept[f"rank {multiplier}"] == pytest.approx(1)
    assert found.report.layers[0].error_before == pytest.approx(0, abs=1e-9)
    x = images(4, 8, seed=77)
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-4, atol=1e-4)


def test_as_many_products_as_positions_or_channels_lose_nothing(model):
    found = separate(model, DATA, rows=ROWS, multiplier=8, refit=False, leave=["7"])
    exact = separate(nn.Sequential(nn.Conv2d(8, 12, 3)), DEEP, rows=ROWS, multiplier=8, refit=False)

    assert found.report.layers[0].error_before < 0.01
    assert exact.report.layers[0].error_before == pytest.approx(0, abs=1e-9)


def test_more_products_for_each_output_come_closer(model):
    errors = [
        separate(model, DATA, rows=ROWS, multiplier=multiplier, leave=["7"]).report.layers[0].error_after
        for multiplier in (1, 2, 4)
    ]

    assert errors == sorted(errors, reverse=True)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.booleans(), st.booleans(), st.integers(1, 4), st.sampled_from([1, 7, 300]))
def test_refitting_never_increases_the_error_on_any_layer_and_sample(seed, bias, norm, multiplier, positions):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(8, 8, 3, bias=bias), *([nn.BatchNorm2d(8)] if norm else []), nn.Tanh(), nn.Conv2d(8, 4, 3)]
    model = trained(nn.Sequential(*layers), DEEP)

    found = separate(model, DEEP, rows=20, multiplier=multiplier, sampling=Sampling(positions=positions))

    assert len(found.report.layers) == 2
    for layer in found.report.layers:
        assert layer.error_after <= layer.error_before * (1 + 1e-9) + 1e-12


def test_refitting_brings_the_whole_network_closer_on_new_data(model):
    data = [images(16, 4, seed=seed) for seed in range(16)]
    x = images(32, 4, seed=50)
    with torch.no_grad():
        off = {
            refit: float((separate(model, data, rows=ROWS, refit=refit).model(x) - model(x)).square().mean())
            for refit in (False, True)
        }

    assert off[True] < 0.8 * off[False]


def test_weights_reach_equally_far_on_both_sides_of_each_channel(model):
    block = separate(model, DATA, rows=ROWS, multiplier=2).model[3]

    torch.testing.assert_close(
        block.depthwise.weight.abs().flatten(2).amax(2).flatten(), block.pointwise.weight.abs().flatten(1).amax(1)
    )


@pytest.mark.parametrize("strategy", ["digital", "strip"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_mapping_finds_the_depthwise_layers_by_their_kind(model, make_chip, multiplier, strategy):
    found = separate(model, DATA, rows=ROWS, multiplier=multiplier)

    layers = to_crossbar(
        found.model, make_chip(crossbar={"rows": ROWS}), example=DATA[0], mapping={"depthwise": strategy}
    ).report.layers

    assert {layer.matmul.name for layer in layers if layer.strategy == strategy} == {"3.depthwise", "7.depthwise"}


def test_the_layer_of_many_rows_reads_what_the_dense_layer_read(model):
    read: dict[str, torch.Tensor] = {}
    found = separate(model, DATA, rows=ROWS)
    for name in ("3.pointwise", "3.depthwise"):
        found.model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: read.update({name: args[0]})
        )
    found.model(DATA[0])

    assert read["3.pointwise"].min() >= 0
    assert read["3.depthwise"].min() < 0


@pytest.mark.parametrize("with_example", [True, False])
def test_every_batch_norm_behind_a_separable_convolution_folds_into_its_depthwise_layer(model, make_chip, with_example):
    found = separate(model, DATA, rows=ROWS)

    report = to_crossbar(
        found.model, make_chip(crossbar={"rows": ROWS}), example=DATA[0] if with_example else None
    ).report

    assert (report.folded["4"], report.folded["8"]) == ("3.depthwise", "7.depthwise")
    assert report.digital == ()
    tiles = {layer.matmul.name: layer.row_tiles for layer in report.layers}
    assert [tiles[f"{layer.name}.pointwise"] for layer in found.report.layers] == [1, 1]


def test_layers_whose_rows_fit_are_rewritten_only_where_asked(model):
    assert [r.module for r in separate(model, DATA, rows=ROWS).rewrites] == ["3", "7"]
    everything = separate(model, DATA, rows=ROWS, all_layers=True)
    assert [r.module for r in everything.rewrites] == ["0", "3", "7"]
    assert {item.name for item in everything.report.unchanged} == {"14"}
    assert [r.module for r in separate(model, DATA, rows=ROWS, all_layers=True, leave=["3"]).rewrites] == ["0", "7"]


def test_the_rewrites_rebuild_the_structure_that_the_weights_belong_to(model, tmp_path):
    found = separate(model, DATA, rows=ROWS, multiplier=2)
    save_model(found.model, str(tmp_path / "model.safetensors"))

    rebuilt = apply(network(), found.rewrites).eval()
    load_model(rebuilt, str(tmp_path / "model.safetensors"), strict=True)

    assert torch.equal(rebuilt(DATA[0]), found.model(DATA[0]))


@pytest.mark.parametrize(("rows", "multiplier", "before", "after"), [(12, 2, 6, 2), (12, 1, 6, 1), (9, 1, 8, 1)])
def test_a_layer_that_still_needs_partial_sums_says_so(rows, multiplier, before, after):
    found = separate(nn.Sequential(nn.Conv2d(8, 4, 3)), DEEP, rows=rows, multiplier=multiplier)

    assert (found.report.layers[0].tiles_before, found.report.layers[0].tiles_after) == (before, after)
    assert str(found.report).startswith(
        f"0: separable, 72 rows, row tiles {before} -> {after}, kept rank {multiplier} "
    )


def test_inputs_that_are_zero_and_outputs_that_do_not_count_do_no_harm():
    model = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)).eval()
    with torch.no_grad():
        model[0].weight[3] = 0
        model[1].weight[5] = 0
    data = [x.clone() for x in DEEP]
    for x in data:
        x[:, :4] = 0

    found = separate(model, data, rows=ROWS)

    assert all(bool(value.isfinite().all()) for value in found.model.state_dict().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 8}, "layer 0: one channel of its 3 x 3 kernel takes 9 rows; allowed: 8 rows"),
        ({"multiplier": 0}, "multiplier is 0; allowed: 1 or more"),
        ({"multiplier": 9}, "multiplier is 9; layer 3 allows 1 to 8"),
        ({"leave": ["x"]}, "leave names 'x', which is no layer"),
    ],
)
def test_nonsense_is_refused(model, options, message):
    with pytest.raises(ConversionError, match=message):
        separate(model, DATA, **{"rows": ROWS, **options})
