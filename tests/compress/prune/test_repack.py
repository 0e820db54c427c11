"""Kernels really taken off: answers stay, crossbars go."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_samples import NETWORKS, conv, images, network, settled
from safetensors.torch import save_model
from torch import nn

from bitline.compress.batch_norm import fold_norms
from bitline.compress.prune.crossbar_block import CrossbarBlocks
from bitline.compress.prune.kernel_group import KernelGroups
from bitline.compress.prune.repack import repack
from bitline.compress.prune.sparsity import crossbars, sparsity
from bitline.errors import ConversionError
from bitline.models.files import load_run
from bitline.models.record import ModelRecord
from bitline.models.rewrite import apply
from bitline.nn import to_crossbar


def assert_answers(small: nn.Module, model: nn.Module, x: torch.Tensor) -> None:
    wanted = model(x)
    torch.testing.assert_close(small(x), wanted, rtol=0, atol=2e-5 * wanted.abs().max().item() + 1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_repacked_network_answers_as_the_masked_one_on_other_images(name, make_chip):
    model, chip = network(name), make_chip()
    KernelGroups(model, images(name), chip).zero(0.6)
    x = torch.randn(images(name, 16).shape, generator=torch.Generator().manual_seed(11))

    small, rewrites, report = repack(model, images(name), chip)

    assert_answers(small, model, x)
    assert rewrites
    assert report.shrunk
    assert sparsity(model, small) > 0.15
    assert crossbars(small, chip, x) < crossbars(model, chip, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_its_rewrites_make_the_structure_again(name, make_chip):
    model = network(name)
    KernelGroups(model, images(name), make_chip()).zero(0.6)

    small, rewrites, _ = repack(model, images(name), make_chip())
    again = apply(network(name), rewrites).eval()
    again.load_state_dict(small.state_dict())

    assert torch.equal(again(images(name)), small(images(name)))
    assert {n: p.requires_grad for n, p in again.named_parameters()} == {
        n: p.requires_grad for n, p in small.named_parameters()
    }


def test_a_run_directory_holds_a_repacked_network(tmp_path, make_chip):
    model, x = network("vgg8"), images("vgg8")
    KernelGroups(model, x, make_chip()).zero(0.5)
    small, rewrites, _ = repack(model, x, make_chip())
    record = ModelRecord(
        model="vgg8",
        kwargs={"image_size": 8, "width": 0.125},
        data="digits",
        title="digits",
        classes=tuple("0123456789"),
        channels=3,
        image_size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        rewrites=rewrites,
    )
    (tmp_path / "model.json").write_text(record.model_dump_json())
    for name in ("config.json", "metrics.json"):
        (tmp_path / name).write_text(json.dumps({}))
    save_model(small, str(tmp_path / "model.safetensors"))

    assert torch.equal(load_run(tmp_path).model(x), small(x))


def test_the_network_given_is_left_as_it_was(make_chip):
    model = network("groups").train()
    KernelGroups(model, images("groups"), make_chip()).zero(0.6)
    model.fc.weight.requires_grad_(requires_grad=False)
    before = copy.deepcopy(model.state_dict())

    small, _, _ = repack(model, images("groups"), make_chip())

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not small.training
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == ["fc.weight"]


def test_a_network_without_constant_kernels_is_only_copied(make_chip):
    model = network("concat")

    small, rewrites, report = repack(model, images("concat"), make_chip())

    assert rewrites == ()
    assert (report.shrunk, report.unchanged) == ((), ())
    assert torch.equal(small(images("concat")), model(images("concat")))


def dead(model: nn.Sequential, offset: float) -> nn.Sequential:
    """Give the first six kernels of the first layer a factor of zero, and an offset."""
    with torch.no_grad():
        norm = model[0][1]
        norm.weight[:6], norm.bias[:6] = 0, offset
    return model


def plain(*last: nn.Module) -> nn.Sequential:
    torch.manual_seed(4)
    return settled(nn.Sequential(conv(3, 24), *last, nn.Flatten(), nn.LazyLinear(5)), images("vgg8"))


@pytest.mark.parametrize(
    ("last", "gains"),
    [
        ([nn.Conv2d(24, 16, 3, bias=True)], False),
        ([nn.Conv2d(24, 16, 3, bias=False)], True),
        ([nn.Conv2d(24, 16, 3, bias=False), nn.BatchNorm2d(16)], False),
        ([nn.Conv2d(24, 16, 3, padding=1, padding_mode="circular", bias=False)], True),
        ([nn.Conv2d(24, 24, 3, groups=24, bias=False), nn.Conv2d(24, 8, 1, bias=False)], True),
        ([nn.Conv2d(24, 16, 3, groups=2, bias=False)], True),
        ([nn.MaxPool2d(2)], False),
        ([nn.Sigmoid(), nn.Conv2d(24, 16, 1, bias=False)], True),
    ],
)
def test_a_constant_moves_into_what_reads_it(last, gains, make_chip):
    torch.manual_seed(4)
    model = dead(plain(*last), 0.7)
    if isinstance(last[0], nn.Conv2d) and last[0].groups == 2:
        with torch.no_grad():
            model[0][1].weight[12:18], model[0][1].bias[12:18] = 0, -0.2

    small, rewrites, report = repack(model, images("vgg8"), make_chip())

    assert small[0][0].out_channels == (12 if len(last) == 1 and getattr(last[0], "groups", 1) == 2 else 18)
    assert any(rewrite.bias for rewrite in rewrites) == gains
    assert not report.unchanged
    assert_answers(small, model, torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2)))


def test_a_constant_that_is_not_zero_stays_where_a_reader_pads_with_zeros(make_chip):
    model = dead(plain(nn.Conv2d(24, 16, 3, padding=1)), 0.7)

    small, rewrites, report = repack(model, images("vgg8"), make_chip())

    assert rewrites == ()
    assert [(left.name, left.why) for left in report.unchanged] == [
        ("0.0", "6 constant kernels stay: what they give is not zero, and a reader pads with zeros")
    ]
    assert torch.equal(small(images("vgg8")), model(images("vgg8")))


def test_a_negative_offset_behind_a_relu_is_zero_and_goes(make_chip):
    model = dead(plain(nn.Conv2d(24, 16, 3, padding=1)), -0.7)

    assert repack(model, images("vgg8"), make_chip()).model[0][0].out_channels == 18


def test_kernels_that_are_silent_on_the_example_alone_stay(make_chip):
    model = plain(nn.Conv2d(24, 16, 3, padding=1))
    with torch.no_grad():
        model[0][1].bias[:6] = -50

    small, rewrites, _ = repack(model, images("vgg8"), make_chip())

    assert not model[0](images("vgg8"))[:, :6].any()
    assert rewrites == ()
    assert small[0][0].out_channels == 24


def test_of_a_layer_of_constants_one_kernel_stays(make_chip):
    model = plain(nn.Conv2d(24, 16, 3, padding=1))
    with torch.no_grad():
        model[0][1].weight.zero_()
        model[0][1].bias.zero_()

    small, _, _ = repack(model, images("vgg8"), make_chip())

    assert small[0][0].out_channels == 1
    assert_answers(small, model, images("vgg8"))


def test_after_batch_norms_are_folded_kernels_of_zeros_go_all_the_same(make_chip):
    model = network("vgg8")
    KernelGroups(model, images("vgg8"), make_chip()).zero(0.5)
    early = repack(model, images("vgg8"), make_chip()).model

    late, rewrites, _ = repack(fold_norms(model, images("vgg8")).model, images("vgg8"), make_chip())

    assert [m.weight.shape for m in late.modules() if isinstance(m, nn.Conv2d | nn.Linear)] == [
        m.weight.shape for m in early.modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    assert rewrites
    assert_answers(late, model, images("vgg8"))


@settings(max_examples=15)
@given(ratio=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_repacking_after_crossbar_pruning_never_needs_more_crossbars(ratio, seed, make_chip):
    x, chip = images("vgg8", 2), make_chip()
    torch.manual_seed(seed)
    model = settled(nn.Sequential(conv(3, 16), conv(16, 24), nn.Flatten(), nn.Linear(24 * 64, 10)), x)
    blocks = CrossbarBlocks(model, x, chip)
    with torch.no_grad():
        for mask in blocks.masks.values():
            mask.factors.uniform_()
    blocks.zero(ratio)

    small, _, report = repack(model, x, chip)
    blocks.fold()

    assert crossbars(small, chip, x) <= crossbars(model, chip, x)
    assert all(shrunk.crossbars[1] <= shrunk.crossbars[0] for shrunk in report.shrunk)
    assert_answers(small, model, x)


def test_constant_kernels_stay_where_their_going_would_need_more_crossbars(make_chip):
    model = plain(nn.Conv2d(24, 8, 1, bias=False))
    with torch.no_grad():
        model[1].weight[:, 8:16] = 0
        model[0][1].weight[:4], model[0][1].bias[:4] = 0, 0

    _, _, report = repack(model, images("vgg8"), make_chip(crossbar={"rows": 8, "cols": 128}))

    assert [left.why for left in report.unchanged] == ["4 constant kernels stay: without them more crossbars"]


def test_a_repacked_network_goes_on_a_chip(make_chip):
    model, chip = network("resnet20"), make_chip()
    KernelGroups(model, images("resnet20"), chip).zero(0.5)
    small, _, report = repack(model, images("resnet20"), chip)

    placed = to_crossbar(small, chip, example=images("resnet20")).report.layers

    counts = {layer.matmul.name: layer.crossbars for layer in placed}
    assert all(counts[shrunk.name] == shrunk.crossbars[1] < shrunk.crossbars[0] for shrunk in report.shrunk)
    assert sum(counts.values()) == crossbars(small, chip, images("resnet20"))


def test_the_report_says_what_became_of_each_layer(make_chip):
    model = dead(plain(nn.Conv2d(24, 16, 3, padding=1)), 0.0)

    report = str(repack(model, images("vgg8"), make_chip()).report)

    assert report.splitlines() == [
        "0.0: shrunk, 27 x 24 -> 27 x 18, crossbars 12 -> 12",
        "1: shrunk, 216 x 16 -> 162 x 16, crossbars 54 -> 42",
    ]


def test_a_network_on_a_chip_is_refused(make_chip):
    model = to_crossbar(network("lenet5"), make_chip(), example=images("lenet5")).model

    with pytest.raises(ConversionError, match="on a chip already"):
        repack(model, images("lenet5"), make_chip())
    with pytest.raises(ConversionError, match="on a chip already"):
        KernelGroups(model, images("lenet5"), make_chip())
