"""Crossbar pruning: a factor for every crossbar, in training and after."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pruning_samples import conv, images, network, settled
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.kernel_group import KernelGroups
from bitline.compress.prune.sparsity import crossbars, sparsity, weights_left
from bitline.errors import ConversionError
from bitline.mapping.lower import lower, weight_matrix
from bitline.mapping.strategies import placed
from bitline.nn import to_crossbar


def drawn(blocks: CrossbarBlocks, seed: int = 0) -> CrossbarBlocks:
    """Give all factors values of their own, as training would."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for mask in blocks.masks.values():
            mask.factors.copy_(torch.rand(mask.factors.shape, generator=rng) + 0.5)
    return blocks


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 20, 3),
        nn.Conv2d(12, 12, 3, groups=2),
        nn.Conv2d(10, 10, 3, groups=10),
        nn.Conv1d(5, 9, 4),
        nn.Linear(40, 30),
        nn.Linear(3, 2),
    ],
)
@pytest.mark.parametrize("active", [8, 4, 3])
def test_every_weight_is_multiplied_by_the_factor_of_its_crossbar(layer, active, make_chip):
    shape = {nn.Conv2d: (2, layer.weight.shape[1] * getattr(layer, "groups", 1), 8, 8)}.get(type(layer), (2, 5, 9))
    x = torch.randn(2, 40 if layer.weight.shape[1] == 40 else 3) if isinstance(layer, nn.Linear) else torch.randn(shape)
    model, chip = (
        nn.Sequential(copy.deepcopy(layer)),
        make_chip(crossbar={"rows": 8, "cols": 16, "active_rows": active}),
    )

    blocks = drawn(CrossbarBlocks(model, x, chip))
    factors = blocks.masks["0"].factors
    placement = placed(lower(layer, "0"), chip)
    matrix = weight_matrix(layer).detach().clone()
    down = -(-placement.row_tiles // placement.tiles_per_crossbar)
    for block in placement.blocks():
        at = block.crossbar - block.group * down * placement.col_tiles
        matrix[block.group, slice(*block.rows), slice(*block.cols)] *= factors[
            block.group, at // placement.col_tiles, at % placement.col_tiles
        ]

    assert factors.numel() == placement.crossbars
    torch.testing.assert_close(weight_matrix(model[0]), matrix, rtol=0, atol=0)


def test_a_plain_forward_pass_includes_the_factors_and_ones_change_nothing(make_chip):
    model, x = network("resnet20"), images("resnet20")
    before = model(x)

    blocks = CrossbarBlocks(model, x, make_chip())
    same = model(x)
    drawn(blocks)

    assert torch.equal(before, same)
    assert not torch.allclose(before, model(x))


def test_factors_and_weights_both_learn(make_chip):
    model, x = network("concat"), images("concat")
    blocks = CrossbarBlocks(model, x, make_chip())

    (model(x).square().sum() + blocks.penalty()).backward()

    assert all(mask.factors.grad.abs().sum() > 0 for mask in blocks.masks.values())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {id(mask.factors) for mask in blocks.masks.values()} <= {id(p) for p in model.parameters()}


def test_the_penalty_is_the_sum_of_magnitudes(make_chip):
    blocks = drawn(CrossbarBlocks(network("lenet5"), images("lenet5"), make_chip()))
    with torch.no_grad():
        blocks.masks["classifier.0"].factors.neg_()

    wanted = sum(mask.factors.abs().sum() for mask in blocks.masks.values())

    torch.testing.assert_close(blocks.penalty(), wanted)


@given(ratio=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_least_factors_of_the_network_are_zero_and_one_of_each_layer_stays(ratio, seed, make_chip):
    blocks = drawn(CrossbarBlocks(small_network(), images("vgg8"), make_chip()), seed)
    before = {name: mask.factors.detach().clone() for name, mask in blocks.masks.items()}
    flat = torch.cat([factors.flatten() for factors in before.values()]).sort().values
    wanted = int(ratio * len(flat) + 1e-9)

    count = blocks.zero(ratio)

    assert count.candidates == wanted
    for name, mask in blocks.masks.items():
        keeps = (before[name] > flat[wanted - 1]) if wanted else torch.ones_like(before[name], dtype=torch.bool)
        keeps = keeps | (before[name] == before[name].max())
        assert torch.equal(mask.factors != 0, keeps)
        assert count.left[name] == int(keeps.sum())


def small_network() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(conv(3, 16), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10)).eval()


def test_equal_factors_are_told_apart_by_their_weights(make_chip):
    model = small_network()
    with torch.no_grad():
        model[3].weight[:, 16:40] *= 0.01
    blocks = CrossbarBlocks(model, images("vgg8"), make_chip())

    blocks.zero(6 / sum(mask.factors.numel() for mask in blocks.masks.values()))

    wanted = torch.ones(1, 8, 2)
    wanted[:, 2:5] = 0
    assert torch.equal(blocks.masks["3"].factors, wanted)


def test_ranked_by_norm_a_large_factor_of_small_weights_goes_first(make_chip):
    model = small_network()
    with torch.no_grad():
        model[3].weight[:, 16:24] *= 1e-3
    blocks = CrossbarBlocks(model, images("vgg8"), make_chip(), rank="norm")
    with torch.no_grad():
        blocks.masks["3"].factors[:, 2] = 10

    blocks.zero(2 / sum(mask.factors.numel() for mask in blocks.masks.values()))

    assert blocks.masks["3"].factors[0, :, 0].tolist() == [1, 1, 0, 1, 1, 1, 1, 1]


def test_momentum_brings_crossbars_back_and_the_next_zeroing_chooses_anew(make_chip):
    model, x = small_network(), images("vgg8")
    blocks = drawn(CrossbarBlocks(model, x, make_chip()))
    factors = blocks.masks["3"].factors
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        (-sum(mask.factors.sum() for mask in blocks.masks.values())).backward()
        optimizer.step()
    blocks.zero(0.5)
    first = factors == 0

    optimizer.step()
    assert (factors[first] > 0).all()
    with torch.no_grad():
        factors[first] += 10
    blocks.zero(0.5)

    assert first.any()
    assert not (factors == 0)[first].any()


def test_folding_leaves_the_answers_and_the_parameters_and_whole_crossbars_of_zeros(make_chip):
    model, x = network("groups"), images("groups")
    weights = {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    blocks = drawn(CrossbarBlocks(model, x, make_chip()))
    count = blocks.zero(0.4)
    answer, left = model(x), weights_left(model)

    blocks.fold()

    assert torch.equal(model(x), answer)
    assert not any(is_parametrized(module) for module in model.modules())
    assert all(model.get_submodule(name).weight is weight for name, weight in weights.items())
    assert weights_left(model) == left
    assert crossbars(model, make_chip(), x) == count.total - count.zeros


def test_folding_a_copy_leaves_the_network_that_it_is_a_copy_of(make_chip):
    model, x = network("lenet5"), images("lenet5")
    blocks = drawn(CrossbarBlocks(model, x, make_chip()))
    other = copy.deepcopy(model)
    answer = model(x)

    CrossbarBlocks(other, x, make_chip()).fold()

    assert torch.equal(model(x), answer)
    assert torch.equal(other(x), answer)
    blocks.fold()
    assert torch.equal(model(x), answer)


def test_counting_and_following_a_network_in_training_leave_its_factors(make_chip):
    model, x = network("vgg8"), images("vgg8")
    blocks = drawn(CrossbarBlocks(model, x, make_chip()))
    count = blocks.zero(0.3)

    built = crossbars(model, make_chip(), x)
    KernelGroups(model, x, make_chip()).zero(0.5)

    assert built == count.total - count.zeros
    assert all(is_parametrized(model.get_submodule(name)) for name in blocks.masks)
    model(x).sum().backward()
    assert blocks.masks["features.conv2.0"].factors.grad is not None


def test_a_chip_builds_the_crossbars_that_are_left(make_chip):
    model, x, chip = network("vgg8"), images("vgg8"), make_chip()
    blocks = drawn(CrossbarBlocks(model, x, chip))
    count = blocks.zero(0.6)
    blocks.fold()

    layers = to_crossbar(model, chip, example=x).model.modules()

    built = sum(layer.placement.crossbars for layer in layers if hasattr(layer, "placement"))
    assert built == crossbars(model, chip, x) == count.total - count.zeros


def test_factors_survive_a_checkpoint_and_a_pruner_made_anew(make_chip):
    model, x = network("concat"), images("concat")
    drawn(CrossbarBlocks(model, x, make_chip())).zero(0.5)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)

    resumed = network("concat")
    blocks = CrossbarBlocks(resumed, x, make_chip())
    resumed.load_state_dict(torch.load(file, weights_only=True))

    assert torch.equal(resumed(x), model(x))
    again = CrossbarBlocks(model, x, make_chip())
    assert all(torch.equal(mask.factors, again.masks[name].factors) for name, mask in blocks.masks.items())
    assert blocks.zero(0.7) == again.zero(0.7)


@pytest.mark.parametrize("wanted", [0.0, 0.2, 0.6])
def test_the_ratio_for_a_sparsity_reaches_it_and_a_smaller_one_does_not(wanted, make_chip):
    model, x = network("vgg8"), images("vgg8")
    before = copy.deepcopy(model)
    blocks = drawn(CrossbarBlocks(model, x, make_chip()))
    total = sum(mask.factors.numel() for mask in blocks.masks.values())
    ratio = blocks.target(wanted)

    if wanted:
        blocks.zero(ratio - 1 / total)
        assert sparsity(before, model) < wanted
    blocks.zero(ratio)

    assert sparsity(before, model) >= wanted


def test_a_sparsity_out_of_reach_is_refused(make_chip):
    with pytest.raises(ConversionError, match="as one crossbar of every layer stays"):
        CrossbarBlocks(small_network(), images("vgg8"), make_chip()).target(0.99)


def test_layers_left_or_not_dense_have_no_factors(make_chip):
    model, x = network("groups"), images("groups")
    chip = make_chip(crossbar={"rows": 32, "cols": 64})

    blocks = CrossbarBlocks(model, x, chip, mapping={"depthwise": "packed"}, leave=["fc"])

    assert list(blocks.masks) == ["point1.0", "group.0", "point2.0"]
    assert {left.name: left.why for left in blocks.unchanged} == {
        "fc": "left as asked",
        "depth1.0": "mapped as packed, which keeps every crossbar",
        "depth2.0": "mapped as packed, which keeps every crossbar",
    }


def test_batch_norm_statistics_and_modes_stay(make_chip):
    model, x = settled(small_network(), images("vgg8")).train(), images("vgg8")
    before = copy.deepcopy(dict(model.named_buffers()))

    CrossbarBlocks(model, x, make_chip())

    assert model[0][1].training
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_what_cannot_be_pruned_is_refused(make_chip):
    x = images("vgg8")
    with pytest.raises(ConversionError, match="did you mean 'norm'"):
        CrossbarBlocks(small_network(), x, make_chip(), rank="nurm")
    with pytest.raises(ConversionError, match="leave names '4'"):
        CrossbarBlocks(small_network(), x, make_chip(), leave=["4"])
    with pytest.raises(ConversionError, match="allowed: 0 to 1"):
        CrossbarBlocks(small_network(), x, make_chip()).zero(1.1)
    with pytest.raises(ConversionError, match="no layer whose crossbars"):
        CrossbarBlocks(nn.Sequential(nn.BatchNorm2d(3)), x, make_chip())
    other = small_network()
    register_parametrization(other[3], "weight", Double())
    with pytest.raises(ConversionError, match="layer 3: its weights are parametrized by others"):
        CrossbarBlocks(other, x, make_chip())
    masked = small_network()
    CrossbarBlocks(masked, x, make_chip())
    with pytest.raises(ConversionError, match=r"has crossbars of 16 x 8"):
        CrossbarBlocks(masked, x, make_chip(crossbar={"rows": 16, "cols": 16}))
