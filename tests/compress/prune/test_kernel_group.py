"""Kernel-group pruning: which kernels go, and how many."""

import copy

import pytest
import torch
from pruning_samples import NETWORKS, Fixed, ToImage, conv, images, network, settled
from torch import nn

from bitline.compress.prune.kernel_group import KernelGroups
from bitline.compress.prune.repack import repack
from bitline.compress.prune.sparsity import sparsity
from bitline.compress.reconstruct.separable import separate
from bitline.errors import ConversionError
from bitline.models.blocks import GroupConv2d

COLUMNS = 8
"""weight columns of the crossbars of make_chip: 16 columns, 4-bit weights on 2-bit cells"""
NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def chain(*widths: int) -> nn.Sequential:
    torch.manual_seed(2)
    layers = [conv(a, b) for a, b in zip((3, *widths), widths, strict=False)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 64, 5))


def gammas(model: nn.Module) -> list[torch.Tensor]:
    return [norm.weight for norm in model.modules() if isinstance(norm, NORMS)]


def alive(weight: torch.Tensor) -> int:
    return int(weight.count_nonzero())


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_of_every_layer_fills_crossbars_or_is_all(name, ratio, make_chip):
    model = network(name)

    groups = KernelGroups(model, images(name), make_chip())
    groups.zero(ratio)
    small = dict(repack(model, images(name), make_chip()).model.named_modules())

    assert groups.sets
    for layer, before in model.named_modules():
        if isinstance(before, nn.Conv1d | nn.Conv2d | nn.Linear):
            per = getattr(before, "groups", 1)
            left = small[layer].weight.shape[0] // getattr(small[layer], "groups", 1)
            assert left % COLUMNS == 0 or left == before.weight.shape[0] // per


def test_the_least_factors_of_the_whole_network_go(make_chip):
    model = chain(16, 16)
    first, second = gammas(model)
    with torch.no_grad():
        first.copy_(torch.arange(1, 17) / 100)
        second.copy_(-torch.arange(1, 17) / 10)
    groups = KernelGroups(model, images("vgg8"), make_chip())

    count = groups.zero(0.25)

    assert first.nonzero().flatten().tolist() == list(range(8, 16))
    assert alive(second) == 16
    assert (count.candidates, count.zeros, count.total) == (8, 8, 32)
    assert count.left == {"0.0": 8, "1.0": 16}


@pytest.mark.parametrize(("candidates", "left"), [(3, 16), (4, 16), (5, 8), (11, 8), (13, 8), (16, 8)])
def test_what_is_left_is_rounded_to_the_nearest_multiple_and_at_least_one(candidates, left, make_chip):
    model = chain(16, 32)
    first, second = gammas(model)
    with torch.no_grad():
        first.fill_(0.1)
        second.fill_(1.0)

    KernelGroups(model, images("vgg8"), make_chip()).zero(candidates / 48)

    assert alive(first) == left
    assert alive(second) == 32


def test_offsets_are_zeroed_with_factors_and_weights_are_not(make_chip):
    model = settled(chain(16, 16), images("vgg8"))
    before = [layer.weight.clone() for layer in model.modules() if isinstance(layer, nn.Conv2d)]

    KernelGroups(model, images("vgg8"), make_chip()).zero(0.5)

    for norm in model.modules():
        if isinstance(norm, NORMS):
            assert int((norm.weight == 0).sum()) == 8
            assert torch.equal(norm.weight == 0, norm.bias == 0)
    after = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_layer_no_wider_than_a_crossbar_keeps_its_kernels(make_chip):
    model = chain(8, 16)
    groups = KernelGroups(model, images("vgg8"), make_chip())

    groups.zero(1.0)

    assert [alive(weight) for weight in gammas(model)] == [8, 8]
    assert [(left.name, left.why) for left in groups.unchanged] == [
        ("0.0", "no wider than the 8 weight columns of a crossbar"),
        ("3", "no layer reads what it gives"),
    ]


def test_momentum_brings_kernels_back_and_the_next_zeroing_chooses_anew(make_chip):
    model = chain(16, 16)
    first, _ = gammas(model)
    groups = KernelGroups(model, images("vgg8"), make_chip())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        (-10 * first.sum() - model[0][1].bias.sum()).backward()
        optimizer.step()
    with torch.no_grad():
        first[:8] = 1e-3
    groups.zero(0.25)
    assert first.nonzero().flatten().tolist() == list(range(8, 16))

    optimizer.step()
    came_back = first.detach().clone()
    with torch.no_grad():
        first[8:] = 1e-3
    groups.zero(0.25)

    assert (came_back[:8] > 0).all()
    assert first.nonzero().flatten().tolist() == list(range(8))


def test_the_penalty_is_the_sum_of_competing_factors_and_pulls_them_down(make_chip):
    model = chain(16, 16)
    groups = KernelGroups(model, images("vgg8"), make_chip())
    with torch.no_grad():
        gammas(model)[0].neg_()

    penalty = groups.penalty()
    penalty.backward()

    torch.testing.assert_close(penalty, sum(weight.abs().sum() for weight in gammas(model)))
    assert all(torch.equal(weight.grad, weight.detach().sign()) for weight in gammas(model))


def test_without_batch_norms_kernels_rank_by_their_norm_and_lose_weights_and_bias(make_chip):
    model = network("lenet5")
    hidden, reader = model.classifier[0], model.classifier[2]
    with torch.no_grad():
        hidden.weight[:100] *= 1e-3
    groups = KernelGroups(model, images("lenet5"), make_chip())
    torch.testing.assert_close(groups.factors()["classifier.0"], hidden.weight.flatten(1).norm(dim=1))

    groups.zero(100 / sum(each.kernels.channels for each in groups.sets))

    assert alive(hidden.bias) == alive(hidden.weight.abs().sum(1)) == 24
    assert alive(reader.bias) == reader.out_features
    groups.penalty().backward()
    assert hidden.weight.grad.isfinite().all()


def test_kernels_that_are_added_share_one_factor_and_go_together(make_chip):
    model = network("resnet20")
    groups = KernelGroups(model, images("resnet20"), make_chip())
    stage = next(each.kernels for each in groups.sets if each.kernels.name == "conv1.0")
    norms = [model.get_submodule(name) for name in stage.norms]
    wanted = torch.stack([norm.weight.abs() for norm in norms]).sum(0)

    factor = groups.factors()["conv1.0"]
    groups.zero(0.5)

    assert list(stage.norms) == ["conv1.1", *(f"stages.stage1.{block}.conv2.1" for block in range(3))]
    torch.testing.assert_close(factor, wanted)
    assert len({tuple(norm.weight.nonzero().flatten().tolist()) for norm in norms}) == 1


def test_a_mean_of_tied_factors_lets_large_sets_go_as_single_kernels(make_chip):
    model = network("resnet20")
    for norm in model.modules():
        if isinstance(norm, NORMS):
            nn.init.ones_(norm.weight)
    with torch.no_grad():
        for name in ("conv1.1", *(f"stages.stage1.{block}.conv2.1" for block in range(3))):
            model.get_submodule(name).weight[:8] = 0.5

    KernelGroups(copy.deepcopy(model), images("resnet20"), make_chip()).zero(0.05)
    total = copy.deepcopy(model)
    KernelGroups(total, images("resnet20"), make_chip()).zero(0.05)
    KernelGroups(model, images("resnet20"), make_chip(), coupled="mean").zero(0.05)

    assert alive(total.conv1[1].weight) == 16
    assert alive(model.conv1[1].weight) == 8


def test_inputs_side_by_side_are_rounded_each_by_itself(make_chip):
    model = network("concat")
    groups = KernelGroups(model, images("concat"), make_chip())

    groups.zero(0.6)
    small = repack(model, images("concat"), make_chip()).model

    both = (small.first[0].out_channels, small.second[0].out_channels)
    assert all(count % COLUMNS == 0 for count in both)
    assert small.both[0].out_channels == small.last[0].in_channels == sum(both) < 40


def test_a_depthwise_kernel_goes_with_the_kernel_it_reads(make_chip):
    model = network("groups")
    KernelGroups(model, images("groups"), make_chip()).zero(0.7)
    small = repack(model, images("groups"), make_chip()).model

    assert small.point1[0].out_channels < 24
    assert small.depth1[0].groups == small.depth1[0].in_channels == small.point1[0].out_channels
    assert small.depth2[0].groups * 2 == small.depth2[0].out_channels == 2 * small.point2[0].out_channels


@pytest.mark.parametrize("wanted", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("name", ["vgg8", "resnet20", "concat", "groups", "lenet5"])
def test_the_ratio_for_a_sparsity_reaches_it_and_a_smaller_one_does_not(name, wanted, make_chip):
    model, x = network(name), images(name)
    groups = KernelGroups(model, x, make_chip())
    kernels = sum(each.kernels.channels * each.kernels.kernels_each for each in groups.sets)
    ratio = groups.target(wanted)
    fewer = copy.deepcopy(model)
    KernelGroups(fewer, x, make_chip()).zero(max(0.0, ratio - 1 / kernels))

    groups.zero(ratio)

    assert sparsity(model, repack(model, x, make_chip()).model) >= wanted
    assert sparsity(model, repack(fewer, x, make_chip()).model) < wanted


def test_a_sparsity_out_of_reach_is_refused(make_chip):
    groups = KernelGroups(chain(16, 16), images("vgg8"), make_chip())

    with pytest.raises(ConversionError, match=r"sparsity is 0.9; allowed: up to 0\.57"):
        groups.target(0.9)
    assert groups.target(0.0) == 0.0


def test_a_new_pruner_on_a_loaded_network_goes_on_as_the_old_one(make_chip):
    model = chain(16, 16)
    KernelGroups(model, images("vgg8"), make_chip()).zero(0.5)
    resumed = chain(16, 16)
    resumed.load_state_dict(model.state_dict())

    a = KernelGroups(model, images("vgg8"), make_chip()).zero(0.7)
    b = KernelGroups(resumed, images("vgg8"), make_chip()).zero(0.7)

    assert a == b
    assert all(torch.equal(x, y) for x, y in zip(gammas(model), gammas(resumed), strict=True))


def test_making_a_pruner_leaves_the_network_as_it_was(make_chip):
    model = network("concat").train()
    model.fc.weight.requires_grad_(requires_grad=False)
    before = copy.deepcopy(model.state_dict())

    KernelGroups(model, images("concat"), make_chip())

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.fc.weight.requires_grad


@pytest.mark.parametrize("cls", [ToImage, Fixed])
def test_kernels_without_which_the_network_would_not_run_do_not_compete(cls, make_chip):
    torch.manual_seed(3)
    x = images("vgg8")
    model = settled(cls(), x)

    groups = KernelGroups(model, x, make_chip())
    stuck = {left.name: left.why for left in groups.unchanged}

    assert stuck["conv1.0" if cls is ToImage else "conv2.0"].startswith("without some of its kernels")
    assert [each.kernels.name for each in groups.sets] == ["conv2.0" if cls is ToImage else "conv1.0"]


def test_channels_that_a_block_reorders_do_not_compete(make_chip):
    torch.manual_seed(3)
    block = GroupConv2d(nn.Conv2d(16, 16, 3, padding=1), 2)
    block.inputs.copy_(torch.randperm(16))
    layers = (conv(3, 16), block, nn.ReLU(), conv(16, 16), nn.Flatten(), nn.Linear(1024, 5))
    model = nn.Sequential(*layers)

    groups = KernelGroups(model, images("vgg8"), make_chip())

    assert [each.kernels.name for each in groups.sets] == ["3.0"]
    assert "1.conv takes its channels in another order" in {left.why for left in groups.unchanged}


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_separable_convolution_is_followed_or_left(multiplier, make_chip):
    x = images("vgg8", 16)
    dense = settled(chain(16, 16), x)
    model = separate(dense, [x], rows=16, multiplier=multiplier).model

    groups = KernelGroups(model, x, make_chip())
    groups.zero(0.5)
    small = repack(model, x, make_chip()).model

    if multiplier == 2:
        assert groups.sets == ()
        assert any("several channels" in left.why for left in groups.unchanged)
    else:
        assert groups.sets
        assert sparsity(model, small) > 0.1
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-4 * model(x).abs().max().item())


@pytest.mark.parametrize("ratio", [-0.1, 1.5])
def test_a_ratio_that_is_no_share_is_refused(ratio, make_chip):
    with pytest.raises(ConversionError, match="allowed: 0 to 1"):
        KernelGroups(chain(16), images("vgg8"), make_chip()).zero(ratio)


def test_an_unknown_word_is_refused(make_chip):
    with pytest.raises(ConversionError, match="did you mean 'mean'"):
        KernelGroups(chain(16), images("vgg8"), make_chip(), coupled="meen")
