"""Blocks in the place of layers, and the record of it in a run directory."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_model
from torch import nn

from bitline.errors import DataError
from bitline.models import build
from bitline.models.blocks import GroupConv2d, GroupLinear, SeparableConv2d
from bitline.models.files import load_run
from bitline.models.record import ModelRecord
from bitline.models.rewrite import Rewrite, apply

SIZE = {"num_classes": 10, "in_channels": 1, "image_size": 16, "width": 0.0625}
IMAGE = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
REWRITES = (
    Rewrite(kind="group", module="features.conv4.0", groups=4, mix=2),
    Rewrite(kind="separable", module="features.conv5.0", multiplier=2, pointwise_first=True),
    Rewrite(kind="separable", module="features.conv6.0"),
    Rewrite(kind="group_linear", module="classifier.fc1.0", groups=8),
    Rewrite(kind="fold", module="features.conv4.1", into="features.conv4.0.mix"),
)
GEOMETRY = {
    "plain": {},
    "stride": {"stride": (2, 1)},
    "dilation": {"dilation": 2, "padding": 2},
    "same": {"padding": "same"},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "bias": {"bias": True},
}


def permute(block: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for buffer in block.buffers():
        buffer.copy_(torch.randperm(len(buffer), generator=generator))


def write_run(folder: Path, model: nn.Module, rewrites: tuple[Rewrite, ...]) -> None:
    record = ModelRecord(
        model="vgg8",
        kwargs=SIZE,
        data="digits",
        title="digits",
        classes=tuple("0123456789"),
        channels=1,
        image_size=16,
        mean=(0.5,),
        std=(0.5,),
        rewrites=rewrites,
    )
    (folder / "model.json").write_text(record.model_dump_json())
    for name in ("config.json", "metrics.json"):
        (folder / name).write_text("{}")
    save_model(model, str(folder / "model.safetensors"))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", GEOMETRY)
def test_one_group_in_any_order_is_the_dense_convolution(kind, memory_format):
    dense = nn.Conv2d(6, 4, 3, **{"bias": False, **GEOMETRY[kind]})
    block = GroupConv2d(dense, 1)
    permute(block)
    with torch.no_grad():
        block.conv.weight[block.outputs] = dense.weight[:, block.inputs]
        if dense.bias is not None:
            block.conv.bias[block.outputs] = dense.bias
    x = torch.randn(2, 6, 9, 9).contiguous(memory_format=memory_format)

    y = block.to(memory_format=memory_format)(x)

    torch.testing.assert_close(y, dense(x))
    assert y.is_contiguous(memory_format=memory_format)


def test_a_group_sees_only_its_own_inputs():
    block = GroupConv2d(nn.Conv2d(6, 4, 1, bias=False), 2)
    permute(block)
    reads = torch.autograd.functional.jacobian(lambda x: block(x)[0, :, 0, 0], torch.ones(1, 6, 1, 1)).reshape(4, 6)

    for output in range(4):
        group = int(block.outputs[output]) // 2
        assert set(reads[output].nonzero().flatten().tolist()) == set(block.inputs[3 * group : 3 * group + 3].tolist())


def test_each_part_of_the_mix_reads_every_group():
    block = GroupConv2d(nn.Conv2d(8, 8, 1, bias=False), 4, mix=2)
    with torch.no_grad():
        block.conv.weight.fill_(1)
        block.mix.weight.fill_(1)

    reads = torch.autograd.functional.jacobian(lambda x: block(x)[0, :, 0, 0], torch.ones(1, 8, 1, 1)).reshape(8, 8)

    assert (reads != 0).all()


def test_one_group_in_any_order_is_the_dense_linear_layer():
    dense = nn.Linear(6, 4)
    block = GroupLinear(dense, 1)
    permute(block)
    with torch.no_grad():
        block.conv.weight[block.outputs] = dense.weight[:, block.inputs].unsqueeze(-1)
        block.conv.bias[block.outputs] = dense.bias
    x = torch.randn(3, 6)

    torch.testing.assert_close(block(x), dense(x))


@pytest.mark.parametrize("pointwise_first", [True, False])
@pytest.mark.parametrize("kind", GEOMETRY)
def test_a_separable_convolution_has_the_output_shape_and_bias_of_the_dense_one(kind, pointwise_first):
    dense = nn.Conv2d(6, 4, 3, **{"bias": False, **GEOMETRY[kind]})
    block = SeparableConv2d(dense, multiplier=2, pointwise_first=pointwise_first)
    first, last = (block.get_submodule(name) for name, _ in block.named_children())
    x = torch.randn(2, 6, 9, 9)

    assert block(x).shape == dense(x).shape
    assert last is block.get_submodule(block.last)
    assert first.bias is None
    assert (last.bias is None) == (dense.bias is None)


@pytest.mark.parametrize("kind", GEOMETRY)
def test_a_separable_convolution_is_the_dense_one_of_its_kernels_multiplied_out(kind):
    dense = nn.Conv2d(6, 4, 3, **{"bias": False, **GEOMETRY[kind]})
    block = SeparableConv2d(dense, multiplier=2)
    pointwise, depthwise = block.pointwise.weight.view(4, 2, 6), block.depthwise.weight
    with torch.no_grad():
        dense.weight.copy_(torch.einsum("omi,omxy->oixy", pointwise, depthwise))
        if dense.bias is not None:
            block.depthwise.bias.copy_(dense.bias)
    x = torch.randn(2, 6, 9, 9)

    torch.testing.assert_close(block(x), dense(x))


def test_a_separable_convolution_recorded_before_there_was_an_order_is_depthwise_first():
    record = Rewrite.model_validate_json('{"kind": "separable", "module": "0", "multiplier": 2}')

    block = apply(nn.Sequential(nn.Conv2d(6, 4, 3)), [record])[0]

    assert [name for name, _ in block.named_children()] == ["depthwise", "pointwise"]
    assert block.depthwise.groups == 6


def test_a_run_with_rewrites_loads_as_the_network_that_was_saved(tmp_path):
    model = apply(build("vgg8", **SIZE), REWRITES).eval()
    for block in model.modules():
        if isinstance(block, GroupConv2d | GroupLinear):
            permute(block)
    with torch.no_grad():
        model.get_submodule("features.conv4.0.mix").bias.uniform_()
    write_run(tmp_path, model, REWRITES)

    run = load_run(tmp_path)

    assert run.record.rewrites == REWRITES
    assert torch.equal(run.model(IMAGE), model(IMAGE))
    assert not any(module.training for module in run.model.modules())


def test_a_run_from_before_there_were_rewrites_loads(tmp_path):
    model = build("vgg8", **SIZE).eval()
    write_run(tmp_path, model, ())
    record = json.loads((tmp_path / "model.json").read_text())
    del record["rewrites"]
    (tmp_path / "model.json").write_text(json.dumps(record))

    run = load_run(tmp_path)

    assert run.record.rewrites == ()
    assert torch.equal(run.model(IMAGE), model(IMAGE))


def test_weights_of_the_dense_network_are_refused_where_rewrites_are_recorded(tmp_path):
    write_run(tmp_path, build("vgg8", **SIZE), REWRITES)

    with pytest.raises(DataError, match="does not fit VGG8"):
        load_run(tmp_path)


def test_a_layer_that_stands_in_two_places_is_replaced_in_both():
    conv = nn.Conv2d(4, 4, 1)
    model = apply(nn.Sequential(conv, nn.ReLU(), conv), [Rewrite(kind="group", module="0", groups=2)])

    assert isinstance(model[0], GroupConv2d)
    assert model[0] is model[2]


def test_a_network_that_is_one_layer_becomes_the_block():
    assert isinstance(apply(nn.Conv2d(4, 4, 1), [Rewrite(kind="separable", module="")]), SeparableConv2d)


def test_a_rewrite_keeps_type_mode_and_place_of_the_weights():
    model = apply(nn.Sequential(nn.Conv2d(4, 4, 1)).double().eval(), [Rewrite(kind="group", module="0", groups=2)])

    assert model[0].conv.weight.dtype == torch.float64
    assert not model[0].training


SHRUNK = (
    Rewrite(kind="shrink", module="features.conv1.0", inputs=1, outputs=5),
    Rewrite(kind="shrink", module="features.conv1.1", outputs=5),
    Rewrite(kind="shrink", module="features.conv2.0", inputs=5, outputs=8, bias=True),
    Rewrite(kind="shrink", module="classifier.fc1.0", inputs=128, outputs=40),
    Rewrite(kind="shrink", module="classifier.fc1.1", outputs=40),
    Rewrite(kind="shrink", module="classifier.fc2", inputs=40, outputs=10),
)


def test_a_run_with_fewer_channels_loads_as_the_network_that_was_saved(tmp_path):
    model = apply(build("vgg8", **SIZE), SHRUNK).eval()
    with torch.no_grad():
        model.features.conv2[0].bias.uniform_()
        model.features.conv1[1].running_mean.uniform_()
    write_run(tmp_path, model, SHRUNK)

    run = load_run(tmp_path)

    assert run.record.rewrites == SHRUNK
    assert torch.equal(run.model(IMAGE), model(IMAGE))
    assert run.model.features.conv1[0].weight.shape == (5, 1, 3, 3)
    assert run.model.features.conv1[1].num_features == 5
    assert run.model.classifier.fc1[0].bias is None


def test_a_depthwise_layer_shrinks_with_its_groups():
    model = nn.Sequential(nn.Conv2d(6, 12, 3, groups=6, bias=False))

    apply(model, [Rewrite(kind="shrink", module="0", inputs=4, outputs=8, groups=4)])

    assert model(torch.randn(1, 4, 5, 5)).shape == (1, 8, 3, 3)
    assert model[0].weight.isfinite().all()


def test_a_shrunk_module_keeps_type_mode_and_what_it_asks_gradients_for():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)).double().eval()
    model[0].weight.requires_grad_(requires_grad=False)
    first = model[0]

    apply(
        model,
        [Rewrite(kind="shrink", module=name, inputs=inputs, outputs=2) for name, inputs in (("0", 3), ("1", None))],
    )

    assert model[0] is first
    assert (model[0].weight.dtype, model[1].running_var.dtype) == (torch.float64, torch.float64)
    assert (model[0].weight.requires_grad, model[0].bias.requires_grad) == (False, True)
    assert not model[1].training
    assert model(torch.randn(2, 3).double()).shape == (2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "shrink", "module": "features.conv2.0", "inputs": 9, "outputs": 8}, "inputs is 9; expected 1 to 8"),
        ({"kind": "shrink", "module": "features.conv2.0", "inputs": 8}, "outputs is None; expected 1 to 8"),
        ({"kind": "shrink", "module": "features.conv2.1", "outputs": 9}, "outputs is 9; expected 1 to 8"),
        ({"kind": "shrink", "module": "features.pool1", "outputs": 8}, "it is a MaxPool2d; expected Linear or"),
        ({"kind": "group", "module": "features.conv9.0"}, r"VGG8 has no module 'features.conv9.0'; did you mean"),
        ({"kind": "group", "module": "classifier.fc2"}, "it is a Linear; expected Conv2d"),
        ({"kind": "group_linear", "module": "features.conv2.0"}, "it is a Conv2d; expected Linear"),
        ({"kind": "group", "module": "features.conv2.0", "groups": 3}, "3 groups do not divide its 8 inputs and 8"),
        ({"kind": "group", "module": "features.conv2.0", "groups": 2, "mix": 5}, "5 groups do not divide its 8"),
        ({"kind": "fold", "module": "features.conv2.1"}, "into is missing"),
        ({"kind": "fold", "module": "features.conv2.0", "into": "features.conv2.0"}, "expected BatchNorm1d or"),
        ({"kind": "fold", "module": "features.conv2.1", "into": "features.pool1"}, "it is a MaxPool2d; expected"),
    ],
)
def test_a_rewrite_that_does_not_fit_the_network_is_refused(fields, message):
    with pytest.raises(DataError, match=message):
        apply(build("vgg8", **SIZE), [Rewrite(**fields)])


def test_a_group_convolution_is_not_grouped_again():
    rewrites = [Rewrite(kind="group", module="0", groups=2), Rewrite(kind="separable", module="0.conv")]

    with pytest.raises(DataError, match="it has 2 groups; expected 1"):
        apply(nn.Sequential(nn.Conv2d(4, 4, 1)), rewrites)


@pytest.mark.parametrize("fields", [{"kind": "prune"}, {"groups": 0}, {"colour": "red"}, {"mix": -1}])
def test_a_malformed_rewrite_is_refused(fields):
    with pytest.raises(ValidationError):
        Rewrite(**{"kind": "group", "module": "0", **fields})
